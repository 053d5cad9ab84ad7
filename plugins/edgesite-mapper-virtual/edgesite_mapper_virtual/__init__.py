"""More simulated machines behind protocol ``virtual``."""
