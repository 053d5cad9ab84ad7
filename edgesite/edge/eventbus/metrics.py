"""What EventBus counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client import Metric

    from edgesite.edge.eventbus.external import ExternalBroker
    from edgesite.edge.eventbus.incoming import Incoming
    from edgesite.edge.eventbus.internal import InternalBroker

__all__ = ["Metrics"]

_NAME = "edgesite_eventbus"
_DROPPED = ("full", "large", "expired", "early")


class Metrics(Collector):
    """Counters of the module, and those of its brokers when they are asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.published = Counter(f"{_NAME}_published", "Publications of edgecore's own", registry=registry)
        self.refused = Counter(f"{_NAME}_refused", "Messages that could not be carried out", registry=registry)
        self._incoming: Incoming | None = None
        self._internal: InternalBroker | None = None
        self._external: ExternalBroker | None = None
        registry.register(self)

    def follow(self, incoming: Incoming, internal: InternalBroker | None, external: ExternalBroker | None) -> None:
        """These are counted from now on."""
        self._incoming, self._internal, self._external = incoming, internal, external

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        if self._incoming is not None:
            told = "Publications for the cloud that were given up while there was no link"
            yield CounterMetricFamily(f"{_NAME}_uploads_dropped", told, value=self._incoming.dropped)
        if self._external is not None:
            yield GaugeMetricFamily(
                f"{_NAME}_external_connected",
                "Whether there is an external broker",
                value=float(self._external.connected),
            )
            yield CounterMetricFamily(
                f"{_NAME}_external_dropped",
                "Publications that the external broker did not get",
                value=self._external.outbox.dropped,
            )
            yield CounterMetricFamily(
                f"{_NAME}_external_unreadable",
                "Publications of the external broker whose topic was no text",
                value=self._external.unreadable,
            )
        if self._internal is None or (counts := self._internal.counts) is None:
            return
        yield GaugeMetricFamily(f"{_NAME}_clients", "Clients of the embedded broker", value=self._internal.clients)
        yield CounterMetricFamily(f"{_NAME}_received", "Publications of clients", value=counts.received)
        yield CounterMetricFamily(f"{_NAME}_sent", "Publications given to clients", value=counts.sent)
        yield CounterMetricFamily(f"{_NAME}_denied", "Publications that the ACL kept back", value=counts.denied)
        ended = CounterMetricFamily(f"{_NAME}_ended", "Connections that were ended", labels=["why"])
        ended.add_metric(["refused"], counts.refused)
        ended.add_metric(["broken"], counts.broken)
        yield ended
        dropped = CounterMetricFamily(f"{_NAME}_dropped", "Publications that a client did not get", labels=["why"])
        for why in _DROPPED:
            dropped.add_metric([why], getattr(counts, f"dropped_{why}"))
        dropped.add_metric(["retained"], counts.retained_refused)
        yield dropped
