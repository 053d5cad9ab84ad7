"""UDP between simulated machines, and QUIC on it: hours of a bad network in a moment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from edgesite.net.pki import SERVER, RealPki
from edgesite.net.quic.client import ClientSocket, connect
from edgesite.net.quic.core import Credentials, configuration
from edgesite.net.quic.framing import Answer, Hello
from edgesite.net.quic.server import QuicLimits, QuicPeer, QuicServer
from edgesite.net.quic.socket import QuicSocket
from edgesite.net.real import RealClock
from edgesite.testing.simulator.datagrams import address_of
from edgesite.testing.simulator.loop import SimLoop
from edgesite.testing.simulator.network import Endpoint, Network
from edgesite.testing.simulator.transport import SimNet


class Port(asyncio.DatagramProtocol):
    """Remembers what happens to it."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)


class Lab:
    """Two machines."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = SimLoop()
        self.network = Network(self.loop, random.Random(seed), lambda line: None)
        for name in ("here", "there"):
            self.network.hosts[name] = name
            self.network.powered.add(name)
        self.link = self.network.link("here", "there")
        self.server_end = Endpoint("there", "server")
        self.near = SimNet(self.network, Endpoint("here", "client"))
        self.far = SimNet(self.network, self.server_end)


def play(scenario: Callable[[Lab], Coroutine[Any, Any, None]], seed: int = 1) -> None:
    lab = Lab(seed)
    with contextlib.closing(lab.loop):
        lab.loop.run_until_complete(scenario(lab))


def test_datagrams_arrive_from_where_they_were_sent_unless_nobody_listens() -> None:
    async def scenario(lab: Lab) -> None:
        _, server = await lab.far.datagrams(Port, local="0.0.0.0:53")
        client, port = await lab.near.datagrams(Port, remote="there:53")
        client.sendto(b"question")
        await anyio.sleep(0.1)
        [(data, source)] = server.received
        assert (data, source) == (b"question", client.get_extra_info("sockname"))
        assert source[0] == address_of("here")
        lab.network.datagrams[(address_of("there"), 53)].sendto(b"answer", source)
        await anyio.sleep(0.1)
        assert port.received == [(b"answer", (address_of("there"), 53))]
        lab.network.process_died(lab.server_end)
        client.sendto(b"still there?")
        await anyio.sleep(0.1)
        assert [type(one) for one in port.errors] == [ConnectionRefusedError]

    play(scenario)


def test_a_link_loses_and_a_cut_one_swallows() -> None:
    async def scenario(lab: Lab) -> None:
        _, server = await lab.far.datagrams(Port, local="0.0.0.0:53")
        client, port = await lab.near.datagrams(Port, remote="there:53")
        lab.link.loss = 0.3
        for number in range(1000):
            client.sendto(b"%d" % number)
        await anyio.sleep(1)
        assert 600 < len(server.received) < 800
        lab.network.cut("here", "there")
        server.received.clear()
        client.sendto(b"lost")
        await anyio.sleep(1)
        assert (server.received, port.errors) == ([], [])

    play(scenario)


@pytest.fixture(scope="module")
def keys() -> tuple[Credentials, Credentials]:
    async def make() -> tuple[Credentials, Credentials]:
        async with RealPki(RealClock()).session() as pki:
            ca = await pki.make_ca("test", days=2, serial=1)
            server = await pki.issue(ca, "cloud", dns_names=["there"], usages=SERVER, days=1)
            request = await pki.make_csr("system:node:edge-1", organizations=["system:nodes"])
            node = await pki.sign_csr(ca, request.request, days=1)
        cloud = Credentials(server.certificate, server.key, ca.certificate)
        return cloud, Credentials(node, request.key, ca.certificate)

    return asyncio.run(make())


async def serve(lab: Lab, credentials: Credentials, received: list[bytes]) -> None:
    def greet(socket: QuicSocket, hello: Hello, peer: QuicPeer) -> Answer | None:
        def echo(message: Any) -> None:
            received.append(message.data)
            socket.send_nowait(message.data, lane=0)

        socket.on_message = echo
        return None

    made = configuration(credentials, server_name=None, idle_s=120.0)
    draw = random.Random(2)
    await lab.far.datagrams(
        lambda: QuicServer(
            made,
            greet,
            limits=QuicLimits(),
            reset_key=b"k",
            random_bytes=draw.randbytes,
            log=logging.getLogger("test"),
        ),
        local="0.0.0.0:10001",
    )


@pytest.mark.parametrize("loss", [0.05, 0.25])
def test_quic_over_a_bad_link_for_an_hour(keys: tuple[Credentials, Credentials], loss: float) -> None:
    async def scenario(lab: Lab) -> None:
        received: list[bytes] = []
        await serve(lab, keys[0], received)
        lab.link.loss, lab.link.delay_s, lab.link.jitter_s = loss, 0.15, 0.1
        link: ClientSocket = await connect(lab.near, "there:10001", Hello("edge-1"), keys[1], max_message_bytes=1 << 20)
        began = lab.loop.time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.keep_path)
            for number in range(120):
                await anyio.sleep(30)
                if number % 20 == 10:  # for a while nothing gets through
                    lab.network.cut("here", "there")
                    lab.loop.call_later(20, lab.network.heal, "here", "there")
                sent = b"%d:" % number + bytes(3000)
                await link.send(sent, lane=number % 2)
                with anyio.fail_after(60):
                    assert (await link.recv()).data == sent
            tasks.cancel_scope.cancel()
        assert lab.loop.time() - began >= 3600
        assert link.closed is None
        assert len(received) == 120
        link.abort()
        await anyio.sleep(1)

    play(scenario)
