"""Leads the API server's connections to nodes to the cloud role that holds their tunnels, by rules of the kernel's firewall."""
