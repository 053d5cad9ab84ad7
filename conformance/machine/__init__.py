"""What only a whole machine shows: systemd, cgroup v2, huge pages, kernel modules, a shutdown. See `__main__`."""
