"""Renewals of leases do not wait behind the requests of those that join."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from prometheus_client import CollectorRegistry

from edgesite.cloud.cloudhub.hub import Hub
from edgesite.cloud.cloudhub.line import SHARE, Line, is_renewal
from edgesite.cloud.cloudhub.metrics import HubMetrics
from edgesite.cloud.cloudhub.records import LEASES
from edgesite.net.real import RealClock
from edgesite.runtime.bus import LocalBus
from edgesite.wire.events import Received
from edgesite.wire.message import Message, MessageMaker
from edgesite.wire.node_session import SessionLimits

pytestmark = pytest.mark.anyio
MAKER = MessageMaker(lambda: 1700000000.0, random.Random(7).getrandbits)


def request(operation: str, path: str) -> Message:
    return MAKER.make("edged", "meta", operation, path)


def peer(node: str) -> Any:
    """What the hub needs of a connection to take messages from it."""
    held: list[bool] = []
    return SimpleNamespace(
        node=node,
        waiting_upstream=0,
        held=held,
        hold=held.append,
        session=SimpleNamespace(own_peer=True),
        send=lambda _: None,
    )


def test_what_is_a_renewal() -> None:
    assert is_renewal(request("update", "kube-node-lease/lease/e1"))
    assert is_renewal(request("renew", "kube-node-lease/lease/e1"))
    assert not is_renewal(request("insert", "kube-node-lease/lease/e1"))
    assert not is_renewal(request("query", "kube-node-lease/lease/e1"))
    assert not is_renewal(request("update", "default/podstatus/lease"))


async def test_a_renewal_passes_a_module_that_is_behind() -> None:
    bus, clock = LocalBus(), RealClock()
    busy, leases = bus.join("edgecontroller", "edgecontroller", size=1), bus.join(LEASES, LEASES)
    async with anyio.create_task_group() as tasks:
        hub = Hub(
            bus,
            clock,
            random.Random(1),
            lambda: None,
            SessionLimits(),
            10,
            tasks,
            HubMetrics(CollectorRegistry()),
            logging.getLogger("line"),
        )
        tasks.start_soon(hub.run)
        for number in range(50):
            hub.on_event(peer(f"e{number}"), Received(request("insert", f"default/node/e{number}")))
        hub.on_event(peer("e99"), Received(request("update", "kube-node-lease/lease/e99")))
        with anyio.fail_after(5):
            assert (await leases.receive()).resource == "node/e99/kube-node-lease/lease/e99"
            assert (await busy.receive()).resource == "node/e0/default/node/e0", (
                "nobody has taken any of the others yet"
            )
        tasks.cancel_scope.cancel()
    busy.close()
    leases.close()


async def test_a_node_that_sends_more_than_its_share_is_not_read_from() -> None:
    passed: list[str] = []
    go_on = anyio.Event()

    async def pass_on(connection: Any, message: Message) -> None:
        await go_on.wait()
        passed.append(message.resource)

    line, one, other = Line(pass_on), peer("e1"), peer("e2")
    for number in range(SHARE):
        line.add(one, request("query", f"default/configmap/{number}"))
    line.add(other, request("query", "default/configmap/x"))
    assert (one.held, other.held) == ([True], [])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(line.run)
        go_on.set()
        with anyio.fail_after(5):
            while len(passed) <= SHARE:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert (one.held[-1], one.waiting_upstream, len(line)) == (False, 0, 0)
