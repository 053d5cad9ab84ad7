"""Nodes that stop reporting: what is said about them, and which of their pods are evicted."""
