"""Streams between simulated machines: delay, cuts, resets, deaths, back-pressure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from edgesite.testing.simulator.loop import SimLoop
from edgesite.testing.simulator.network import GIVE_UP_S, Endpoint, Network
from edgesite.testing.simulator.transport import SimNet


class Peer(asyncio.Protocol):
    """Remembers what happens to it."""

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.error: Exception | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


class Lab:
    """Two machines, a server on one, a client on the other."""

    def __init__(self) -> None:
        self.loop = SimLoop()
        self.network = Network(self.loop, random.Random(1), lambda line: None)
        for name in ("here", "there"):
            self.network.hosts[name] = name
            self.network.powered.add(name)
        self.client_end, self.server_end = Endpoint("here", "client"), Endpoint("there", "server")
        self.client_net, self.server_net = SimNet(self.network, self.client_end), SimNet(self.network, self.server_end)
        self.servers: list[Peer] = []

    async def joined(self) -> tuple[Peer, Peer]:
        def accept() -> Peer:
            self.servers.append(Peer())
            return self.servers[-1]

        await self.server_net.listen(accept, "0.0.0.0:80")
        _, client = await self.client_net.connect(Peer, "there:80")
        return client, self.servers[-1]


@pytest.fixture
def run() -> Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]:
    def play(scenario: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
        lab = Lab()
        try:
            lab.loop.run_until_complete(scenario(lab))
        finally:
            lab.loop.close()

    return play


Run = Callable[[Callable[[Lab], Coroutine[Any, Any, None]]], None]


def test_bytes_arrive_in_order_after_the_delay(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        for number in range(50):
            client.transport.write(b"%d," % number)
        await anyio.sleep(lab.network.default.delay_s / 2)
        assert server.data == b""
        await anyio.sleep(1)
        assert server.data == b"".join(b"%d," % number for number in range(50))

    run(scenario)


def test_closing_tells_the_other_end_after_the_data(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        client.transport.write(b"bye")
        client.transport.close()
        await anyio.sleep(1)
        assert (server.data, server.events) == (b"bye", ["eof", "lost"])
        assert (client.events, client.error) == (["lost"], None)

    run(scenario)


def test_nobody_listening_is_refused(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        with pytest.raises(ConnectionRefusedError):
            await lab.client_net.connect(Peer, "there:80")
        with pytest.raises(OSError, match="no machine"):
            await lab.client_net.connect(Peer, "nowhere:80")

    run(scenario)


def test_an_address_is_taken_once(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        port = await lab.server_net.listen(Peer, "0.0.0.0:80")
        with pytest.raises(OSError, match="in use"):
            await lab.server_net.listen(Peer, "127.0.0.1:80")
        await port.close()
        await lab.server_net.listen(Peer, "127.0.0.1:80")

    run(scenario)


def test_a_cut_stalls_and_healing_delivers(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        lab.network.cut("here", "there")
        client.transport.write(b"late")
        await anyio.sleep(GIVE_UP_S / 2)
        assert server.data == b""
        lab.network.heal("here", "there")
        await anyio.sleep(1)
        assert (server.data, client.events) == (b"late", [])

    run(scenario)


def test_only_the_sender_learns_of_a_long_cut(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        lab.network.cut("here", "there")
        client.transport.write(b"lost")
        await anyio.sleep(GIVE_UP_S + 1)
        assert isinstance(client.error, TimeoutError)
        assert server.events == []
        lab.network.heal("here", "there")
        server.transport.write(b"anybody there?")
        await anyio.sleep(1)
        assert isinstance(server.error, ConnectionResetError)

    run(scenario)


def test_connecting_over_a_cut_link_times_out(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        lab.network.cut("here", "there")
        with pytest.raises(TimeoutError):
            await lab.client_net.connect(Peer, "there:80")
        assert lab.loop.time() > 60

    run(scenario)


def test_a_killed_process_says_goodbye_through_its_kernel(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        server.transport.write(b"last words")
        lab.network.process_died(lab.server_end)
        await anyio.sleep(1)
        assert (client.data, client.events) == (b"last words", ["eof", "lost"])
        assert server.events == []
        with pytest.raises(ConnectionRefusedError):
            await lab.client_net.connect(Peer, "there:80")

    run(scenario)


def test_a_machine_without_power_tells_nobody(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        server.transport.write(b"never sent")
        lab.network.machine_died("there")
        await anyio.sleep(1000)
        assert (client.data, client.events) == (b"", [])
        lab.network.powered.add("there")
        client.transport.write(b"hello")
        await anyio.sleep(1)
        assert isinstance(client.error, ConnectionResetError)

    run(scenario)


def test_a_reset_breaks_both_ends(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        lab.network.reset("here", "there")
        await anyio.sleep(1)
        assert isinstance(client.error, ConnectionResetError)
        assert isinstance(server.error, ConnectionResetError)

    run(scenario)


def test_a_reader_that_pauses_pauses_the_writer(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        server.transport.pause_reading()
        client.transport.write(bytes(200_000))
        await anyio.sleep(1000)
        assert (server.data, client.events) == (b"", ["pause"])
        server.transport.resume_reading()
        await anyio.sleep(1)
        assert (len(server.data), client.events) == (200_000, ["pause", "resume"])

    run(scenario)


def test_a_lossy_link_delays_and_loses_nothing(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        lab.network.link("here", "there").loss = 0.5
        for number in range(100):
            client.transport.write(bytes([number]))
        await anyio.sleep(60)
        assert server.data == bytes(range(100))

    run(scenario)


def test_half_closed_streams_carry_the_other_half(run: Run) -> None:
    async def scenario(lab: Lab) -> None:
        client, server = await lab.joined()
        server.eof_received = lambda: True  # type: ignore[method-assign]
        client.transport.write_eof()
        await anyio.sleep(1)
        server.transport.write(b"answer")
        await anyio.sleep(1)
        assert client.data == b"answer"

    run(scenario)
