"""Approves and signs certificates of nodes, with the embedded API server's CA."""
