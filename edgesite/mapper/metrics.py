"""What a mapper counts, in the registry of its process.

    edgesite_mapper_calls_total{protocol, call, outcome}    calls of drivers: connect, read, write, health; ok or failed
    edgesite_mapper_reports_total{outcome}                  taken, refused, or the edge was away
    edgesite_mapper_devices{state}                          online, offline, unhealthy, unknown
    edgesite_mapper_call_seconds_total{protocol, call}      how long calls of drivers took

State   Registered once for each registry; `devices` is asked when somebody reads the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from edgesite.mapper.driver import DeviceState

if TYPE_CHECKING:
    from edgesite.mapper.push.meters import PushMeters

__all__ = ["Meters"]


class Meters:
    """See the module docstring."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._push: PushMeters | None = None
        self._calls = Counter(
            "edgesite_mapper_calls", "Calls of drivers", ["protocol", "call", "outcome"], registry=registry
        )
        self._seconds = Counter(
            "edgesite_mapper_call_seconds", "Time in calls of drivers", ["protocol", "call"], registry=registry
        )
        self._reports = Counter("edgesite_mapper_reports", "Reports to the edge", ["outcome"], registry=registry)
        self._devices = Gauge("edgesite_mapper_devices", "Devices by their state", ["state"], registry=registry)

    def push(self) -> PushMeters:
        """What the data plane counts."""
        if self._push is None:
            from edgesite.mapper.push.meters import PushMeters

            self._push = PushMeters(self._registry)
        return self._push

    def called(self, protocol: str, call: str, succeeded: bool, seconds: float) -> None:
        self._calls.labels(protocol, call, "ok" if succeeded else "failed").inc()
        self._seconds.labels(protocol, call).inc(seconds)

    def reported(self, outcome: str) -> None:
        self._reports.labels(outcome).inc()

    def watch(self, states: Callable[[], Iterable[DeviceState]]) -> None:
        """Count devices when the metrics are read."""
        for state in DeviceState:
            self._devices.labels(state.value).set_function(partial(_count, states, state))


def _count(states: Callable[[], Iterable[DeviceState]], wanted: DeviceState) -> float:
    return float(sum(state is wanted for state in states()))
