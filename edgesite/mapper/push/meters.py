"""What the data plane counts.

    edgesite_mapper_pushed_total{sink}             values that a sink has taken
    edgesite_mapper_push_dropped_total{sink, why}  full (the oldest make room), refused, failed (a bug), misconfigured, ended (with the process)
    edgesite_mapper_push_failures_total{sink}      attempts that failed and are made again
    edgesite_mapper_push_waiting                   values that wait

State   Registered once for each registry.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["PushMeters"]


class PushMeters:
    """See the module docstring."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._pushed = Counter("edgesite_mapper_pushed", "Values that a sink has taken", ["sink"], registry=registry)
        self._dropped = Counter(
            "edgesite_mapper_push_dropped", "Values that were not pushed", ["sink", "why"], registry=registry
        )
        self._failures = Counter(
            "edgesite_mapper_push_failures", "Attempts that are made again", ["sink"], registry=registry
        )
        self._waiting = Gauge("edgesite_mapper_push_waiting", "Values that wait for a sink", registry=registry)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Ask for what waits when the metrics are read."""
        self._waiting.set_function(lambda: float(waiting()))

    def sent(self, sink: str, count: int) -> None:
        self._pushed.labels(sink).inc(count)

    def dropped(self, sink: str, why: str, count: int = 1) -> None:
        self._dropped.labels(sink, why).inc(count)

    def failed(self, sink: str) -> None:
        self._failures.labels(sink).inc()
