"""Plugins of the node: programs of others behind sockets, which bring storage (CSI) and devices."""
