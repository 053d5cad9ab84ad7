"""Devices of the node that plugins offer as extended resources: who has which, and what a container gets with one."""
