"""What a mapper counts, in the registry of its process.

    edgesite_mapper_calls_total{protocol, call, outcome}    calls of drivers: connect, read, write, health; ok or failed
    edgesite_mapper_reports_total{outcome}                  taken, refused, or the edge was away
    edgesite_mapper_devices{state}                          online, offline, unhealthy, unknown
    edgesite_mapper_call_seconds_total{protocol, call}      how long calls of drivers took

State   Registered once for each registry; `devices` is asked when somebody reads the metrics.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from edgesite.mapper.driver import DeviceState

if TYPE_CHECKING:
    from edgesite.mapper.push.meters import PushMeters

__all__ = ["Meters"]


class Meters:
    """See the module docstring. Counted in plain numbers: a counter of the library costs a third of reading a value."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._push: PushMeters | None = None
        self._calls: Counter[tuple[str, str, bool]] = Counter()
        self._seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._reports: Counter[str] = Counter()
        self._states: Callable[[], Iterable[DeviceState]] = tuple
        registry.register(self)

    def watch(self, states: Callable[[], Iterable[DeviceState]]) -> None:
        """Count devices when the metrics are read."""
        self._states = states

    def push(self) -> PushMeters:
        """What the data plane counts."""
        if self._push is None:
            from edgesite.mapper.push.meters import PushMeters

            self._push = PushMeters(self._registry)
        return self._push

    def called(self, protocol: str, call: str, succeeded: bool, seconds: float) -> None:
        self._calls[protocol, call, succeeded] += 1
        self._seconds[protocol, call] += seconds

    def reported(self, outcome: str) -> None:
        self._reports[outcome] += 1

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        calls = CounterMetricFamily("edgesite_mapper_calls", "Calls of drivers", labels=["protocol", "call", "outcome"])
        for (protocol, call, succeeded), count in self._calls.items():
            calls.add_metric([protocol, call, "ok" if succeeded else "failed"], count)
        yield calls
        seconds = CounterMetricFamily(
            "edgesite_mapper_call_seconds", "Time in calls of drivers", labels=["protocol", "call"]
        )
        for (protocol, call), spent in self._seconds.items():
            seconds.add_metric([protocol, call], spent)
        yield seconds
        reports = CounterMetricFamily("edgesite_mapper_reports", "Reports to the edge", labels=["outcome"])
        for outcome, count in self._reports.items():
            reports.add_metric([outcome], count)
        yield reports
        devices = GaugeMetricFamily("edgesite_mapper_devices", "Devices by their state", labels=["state"])
        known = Counter(self._states())
        for state in DeviceState:
            devices.add_metric([state.value], known[state])
        yield devices
