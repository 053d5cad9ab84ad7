"""Drivers of devices within the edge role: plugins answer `edgesite_mapper`, the devices are those of this node."""
