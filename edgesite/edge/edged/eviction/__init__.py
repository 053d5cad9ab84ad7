"""What a node does when memory, disk or process ids run out: says so, makes room, and ends pods in kubelet's order."""
