"""The embedded broker's server over transports that do not drain: who makes it hold too much goes, and nobody else."""

from __future__ import annotations

import asyncio
import random
from typing import Any, ClassVar

import anyio
import pytest

from edgesite.edge.eventbus.broker import server as module
from edgesite.edge.eventbus.broker.server import BrokerServer, _Client
from edgesite.edge.eventbus.broker.settings import Who
from edgesite.net.real import RealClock, RealThreads
from edgesite.wire.mqtt.access import Password
from edgesite.wire.mqtt.broker import Broker
from edgesite.wire.mqtt.codec import encode
from edgesite.wire.mqtt.packets import Connect, Publish
from edgesite.wire.mqtt.session import Limits

pytestmark = pytest.mark.anyio


class Transport(asyncio.Transport):
    """Nobody reads at the other end."""

    def __init__(self, client: _Client) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.client, self.unsent, self.is_closed = client, 0, False

    def write(self, data: Any) -> None:
        self.unsent += len(data)
        if self.unsent > 65_536 >= self.unsent - len(data):
            self.client.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    abort = close


def clients(count: int) -> tuple[BrokerServer, list[Transport]]:
    broker = Broker(Limits(), random.Random(1).getrandbits)
    server = BrokerServer(broker, Who(), clock=RealClock(), threads=RealThreads())
    made = []
    for number in range(count):
        client = _Client(server)
        transport = Transport(client)
        client.connection_made(transport)
        client.data_received(encode(Connect(f"c{number}"), 4))
        made.append(transport)
    return server, made


async def test_who_asks_and_never_reads_the_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNSENT_BYTES", 300_000)
    _, (hostile, other) = clients(2)
    for _ in range(40):
        hostile.client.data_received(b"\xc0\x00" * 10_000)
        if hostile.is_closed:
            break
    assert hostile.is_closed
    assert hostile.unsent <= 330_000
    assert not other.is_closed


async def test_the_one_who_holds_most_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 500_000)
    _, (hostile, other) = clients(2)
    hostile.client.data_received(encode(Publish("t", bytes(1_000_000)), 4)[:450_000])
    other.client.data_received(encode(Publish("t", bytes(100_000)), 4)[:60_000])
    assert (hostile.is_closed, other.is_closed) == (True, False)
    late = clients_more(other.client)
    late.data_received(encode(Publish("t", bytes(300_000)), 4)[:200_000])
    assert not late.transport.is_closing()  # who has gone holds nothing any more


def clients_more(known: _Client) -> _Client:
    made = _Client(known._server)
    made.connection_made(Transport(made))
    made.data_received(encode(Connect("late"), 4))
    return made


class Checked(Password):
    """Counts how often it was asked."""

    asked: ClassVar[list[bytes]] = []

    def matches(self, given: bytes) -> bool:
        self.asked.append(given)
        return True


async def test_a_name_that_is_unknown_takes_as_long_as_a_wrong_password() -> None:
    broker = Broker(Limits(), random.Random(1).getrandbits)
    who = Who({"anna": Checked(1, b"", b"")})
    threads = RealThreads()
    async with BrokerServer(broker, who, clock=RealClock(), threads=threads) as server:
        client = _Client(server)
        client.connection_made(Transport(client))
        client.data_received(encode(Connect("c", username="nobody", password=b"guess"), 4))
        with anyio.fail_after(10):
            while client.connection is not None and not client.connection.is_over:
                await anyio.wait_all_tasks_blocked()
    await threads.close()
    assert Checked.asked == [b"guess"]
    assert broker.counts.refused == 1
