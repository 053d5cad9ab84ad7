"""What edged counts, for /metrics of the edge role."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["EdgedMetrics"]

_SECONDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class EdgedMetrics:
    """One for a role; a registry takes each name once, so it is kept over restarts of the module."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "edgesite_edged"
        self.pods = Gauge(f"{name}_pods", "Pods that this node works on", registry=registry)
        self.runtime_up = Gauge(f"{name}_runtime_up", "Whether the container runtime answers", registry=registry)
        self.pod_start = Histogram(
            f"{name}_pod_start_seconds",
            "From the first sight of a pod to all its containers running",
            buckets=_SECONDS,
            registry=registry,
        )
        self.pod_end = Histogram(
            f"{name}_pod_end_seconds",
            "From the wish to end a pod to the last trace of it, grace period included",
            buckets=_SECONDS,
            registry=registry,
        )
        self.faults = Counter(
            f"{name}_pod_faults", "Looks at a pod that failed and were tried again", registry=registry
        )
        self.container_starts = Counter(f"{name}_container_starts", "Containers started", registry=registry)
