"""The DaemonSet controller: one pod of a template on each node that suits it."""
