"""What CloudHub counts; made once per role, for a registry takes each name once."""

from __future__ import annotations

from dataclasses import fields
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from edgesite.wire.slots import SessionCounts

__all__ = ["HubMetrics"]


class HubMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        name = "edgesite_cloudhub"
        self.nodes = Gauge(f"{name}_nodes", "Nodes that are connected", registry=registry)
        self.line = Gauge(f"{name}_line", "Messages of edges that wait for a module", registry=registry)
        self.backlog = Gauge(f"{name}_unacknowledged", "Objects that edges have not acknowledged", registry=registry)
        self.received = Counter(f"{name}_received", "Messages of edges for modules", registry=registry)
        self.acknowledged = Counter(
            f"{name}_acknowledged", "Objects that edges have stored or removed", registry=registry
        )
        self.refused = Counter(
            f"{name}_refused_connections", "Connections refused, by status", ["code"], registry=registry
        )
        self.bad = Counter(f"{name}_bad_messages", "Messages of edges that could not be read", registry=registry)
        self.sessions = SessionCounts()  #: kept by the sessions themselves, and read when somebody asks
        objects = Gauge(
            f"{name}_objects", "Messages about objects, by what became of them", ["fate"], registry=registry
        )
        for one in fields(SessionCounts):
            objects.labels(one.name).set_function(partial(getattr, self.sessions, one.name))
