"""What the API server counts.

State   Counts in plain dicts, turned into metrics when they are read: a request costs an addition.
Source  Names follow kube-apiserver's where they mean the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from edgesite.apiserver.kinds import Kind
    from edgesite.kube.requestinfo import Route

__all__ = ["ApiMetrics"]

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class ApiMetrics:
    """A collector: requests by verb and resource, refusals by method and code. Series are bounded by the kinds that are served."""

    def __init__(self, watches: Callable[[], int] = lambda: 0, in_flight: Callable[[], int] = lambda: 0) -> None:
        self.watches = watches
        self.in_flight = in_flight
        self._requests: dict[tuple[str, str, str], int] = {}
        self._quick: dict[Kind, int] = {}
        self._failures: dict[tuple[str, int], int] = {}

    def seen(self, verb: str, route: Route) -> None:
        """Count a request for a kind that is served."""
        key = (verb, route.group, route.resource)
        self._requests[key] = self._requests.get(key, 0) + 1

    def read_again(self, kind: Kind) -> None:
        """Count a GET that took the short way."""
        self._quick[kind] = self._quick.get(kind, 0) + 1

    def failed(self, method: str, code: int) -> None:
        """Count a request that was refused or failed."""
        key = (method if method in _METHODS else "other", code)
        self._failures[key] = self._failures.get(key, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Return the metrics, for prometheus-client."""
        requests = CounterMetricFamily(
            "apiserver_request", "Requests by verb and resource", labels=["verb", "group", "resource"]
        )
        counts = dict(self._requests)
        for kind, count in self._quick.items():
            key = ("get", kind.resource.group, kind.resource.plural)
            counts[key] = counts.get(key, 0) + count
        for key, count in counts.items():
            requests.add_metric(list(key), count)
        yield requests
        failures = CounterMetricFamily(
            "apiserver_request_refused", "Requests answered with an error", labels=["method", "code"]
        )
        for (method, code), count in self._failures.items():
            failures.add_metric([method, str(code)], count)
        yield failures
        yield GaugeMetricFamily("apiserver_longrunning_requests", "Open watches", self.watches())
        yield GaugeMetricFamily("apiserver_current_inflight_requests", "Writes under way", self.in_flight())

    def describe(self) -> list[Metric]:
        """Nothing: so that the registry does not collect when this is registered."""
        return []
