"""edged: the node agent. It turns the pods that metamanager holds into running containers and reports what became of them."""
