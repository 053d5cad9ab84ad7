"""``keadm``: makes this host a cloud or an edge of a site, and undoes that; KubeEdge's flags, outputs and exit codes.

Nothing is downloaded: the programs are on the host (packages, or the one binary that this is), so that all of it works offline.
Files: command (the tree of commands), parser (flags as users know them), init, join, reset (one command each), preflight (what is
checked before anything changes), changes and journal (what is done, and undone after a failure or a crash), host, systemd.

Source  KubeEdge v1.12.7, keadm/cmd/keadm (commands, flags, messages).
"""
