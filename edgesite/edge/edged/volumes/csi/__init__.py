"""Volumes of CSI drivers: which volume a pod means, the driver's calls, what is mounted where, the node's part in the API."""
