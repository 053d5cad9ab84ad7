"""CloudHub: where the edges connect, and where they get their certificates."""
