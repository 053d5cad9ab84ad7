"""All nodes lose their links at once and come back at once, over TLS: nobody fails, and who stayed is served meanwhile."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from prometheus_client import CollectorRegistry

from edgesite.cli.edgemark.fleet import Fleet
from edgesite.cloud.cloudhub.hub import Hub
from edgesite.cloud.cloudhub.metrics import HubMetrics
from edgesite.cloud.synccontroller.records import Records
from edgesite.net.http import HttpServer
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock, RealNet
from edgesite.net.tls import server_context
from edgesite.net.tls_listener import HandshakeLimits, TlsListener
from edgesite.runtime.bus import LocalBus
from edgesite.testing.waiting import until
from edgesite.wire.message import MessageMaker
from edgesite.wire.node_session import SessionLimits

pytestmark = pytest.mark.anyio

NODES = 150
STEADY = 10
MAKER = MessageMaker(time.time, random.Random(3).getrandbits)


@asynccontextmanager
async def hub_with_nodes() -> AsyncIterator[Any]:
    """A hub whose listener has few places, with ``NODES`` hollow nodes that come back, and ``STEADY`` more."""
    clock, net, pki = RealClock(), RealNet(HandshakeLimits(at_once=16)), RealPki(RealClock())
    async with pki.session() as keeper:
        ca = await keeper.make_ca("test")
        pair = await keeper.issue(ca, "localhost", dns_names=["localhost"], ips=["127.0.0.1"])
    tls = server_context(pair.certificate, pair.key, client_ca=ca.certificate, require_client=True)
    log, records = logging.getLogger("stampede"), Records()
    names = [f"node-{at:03d}" for at in range(NODES + STEADY)]
    async with anyio.create_task_group() as tasks:
        metrics = HubMetrics(CollectorRegistry())
        limits = SessionLimits(keepalive_s=300)
        hub = Hub(LocalBus(), clock, random.Random(1), lambda: records, limits, len(names), tasks, metrics, log)
        tasks.start_soon(hub.run)
        async with HttpServer(hub.handle, log=log) as server:
            listener = await server.listen(net, "127.0.0.1:0", tls=tls)
            assert isinstance(listener, TlsListener)
            fleets = [
                Fleet(net, clock, random.Random(2), tasks, listener.address, some)
                for some in (names[:NODES], names[NODES:])
            ]
            for fleet in fleets:
                await fleet.certify(ca, lambda at: None)
                await fleet.connect()
            await until(lambda: len(hub.nodes()) == len(names))
            yield SimpleNamespace(hub=hub, listener=listener, crowd=fleets[0], steady=fleets[1])
            for fleet in fleets:
                fleet.reconnect = False
            tasks.cancel_scope.cancel()


def pod(node: str, version: int) -> Any:
    metadata = {"name": "web", "namespace": "default", "uid": f"uid-{node}", "resourceVersion": str(version)}
    body = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": []}}
    path = f"node/{node}/default/pod/web"
    return MAKER.make("edgecontroller", "resource", "update", path, body, resource_version=str(version))


async def test_a_stampede_fails_nobody_and_steady_nodes_are_served_meanwhile() -> None:
    async with hub_with_nodes() as made:
        hub, crowd, steady = made.hub, made.crowd, made.steady
        joined = {name: node.connected_at for name, node in steady.nodes.items()}
        crowd.cut_all()
        await until(lambda: len(hub.nodes()) <= STEADY + NODES // 2)
        version, back, most = 0, 0, 0
        while len(hub.nodes()) < NODES + STEADY:
            version += 1
            before, applied = len(hub.nodes()), steady.counters.applied
            for name in steady.nodes:
                hub.send(pod(name, version))
            while steady.counters.applied < applied + STEADY:
                most = max(most, made.listener.under_way)
                await checkpoint()
            back = max(back, len(hub.nodes()) - before)
        assert version > 1
        assert most <= 16
        assert back < NODES // 4  # whatever the machine does beside: few come in while the steady ones are served
        assert {name: node.connected_at for name, node in steady.nodes.items()} == joined
        assert (crowd.failed_handshakes, made.listener.failed) == (0, 0), crowd.failures


async def test_a_full_hub_says_when_to_come_back() -> None:
    async with hub_with_nodes() as made:
        stranger = SimpleNamespace(in_process=True, common_name="")
        refusal = made.hub.greet("one-too-many", stranger, SimpleNamespace())
        assert (refusal.status, refusal.retry_after_s > 0) == (503, True)
