"""What DeviceTwin counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["Metrics"]


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        name = "edgesite_devicetwin"
        self.left = Counter(
            f"{name}_refused", "Messages about devices that were not taken, by why", ["why"], registry=registry
        )
        self.taken = Counter(
            f"{name}_messages", "Messages about devices, by where they came from", ["source"], registry=registry
        )
        self.devices = Gauge(f"{name}_devices", "Devices of this node", registry=registry)
