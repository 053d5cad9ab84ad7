"""Messages over QUIC on loopback, through a relay that loses, delays and readdresses datagrams as networks do."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from edgesite.net.pki import SERVER, RealPki
from edgesite.net.quic import client as quic_client
from edgesite.net.quic.client import ClientSocket, connect
from edgesite.net.quic.core import Credentials, configuration
from edgesite.net.quic.framing import Answer, Hello
from edgesite.net.quic.server import QuicLimits, QuicPeer, QuicServer
from edgesite.net.quic.socket import WINDOW_BYTES, QuicSocket
from edgesite.net.real import RealClock, RealNet
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio

MESSAGE_BYTES = 4 << 20
URGENT, BULK = 0, 1


@dataclass(frozen=True)
class Keys:
    server: Credentials
    node: Credentials


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="module")
def keys() -> Keys:
    async def make() -> Keys:
        async with RealPki(RealClock()).session() as pki:
            ca = await pki.make_ca("test", days=2, serial=1)
            server = await pki.issue(ca, "cloud", ips=["127.0.0.1"], usages=SERVER, days=1)
            request = await pki.make_csr("system:node:edge-1", organizations=["system:nodes"])
            node = await pki.sign_csr(ca, request.request, days=1)
        return Keys(
            Credentials(server.certificate, server.key, ca.certificate), Credentials(node, request.key, ca.certificate)
        )

    return asyncio.run(make())


@dataclass
class Cloud:
    """A server that keeps what it is sent."""

    keys: Keys
    limits: QuicLimits = field(default_factory=lambda: QuicLimits(message_bytes=MESSAGE_BYTES))
    reset_key: bytes = b"k" * 32
    port: int = 0
    sockets: list[QuicSocket] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)

    def greet(self, socket: QuicSocket, hello: Hello, peer: QuicPeer) -> Answer | None:
        assert peer.common_name == f"system:node:{hello.node}"
        self.sockets.append(socket)
        socket.on_message = lambda message: self.received.append(message.data)
        return None

    async def start(self) -> QuicServer:
        made = configuration(self.keys.server, server_name=None, idle_s=30.0)

        def make() -> QuicServer:
            return QuicServer(
                made,
                self.greet,
                limits=self.limits,
                reset_key=self.reset_key,
                random_bytes=os.urandom,
                log=logging.getLogger("edgesite.test"),
            )

        transport, server = await RealNet().datagrams(make, local=f"127.0.0.1:{self.port}")
        self.port = transport.get_extra_info("sockname")[1]
        return server


@asynccontextmanager
async def cloud_of(keys: Keys, **options: Any) -> AsyncIterator[tuple[Cloud, QuicServer]]:
    cloud = Cloud(keys, **options)
    server = await cloud.start()
    try:
        yield cloud, server
    finally:
        server.close()


class Relay(asyncio.DatagramProtocol):
    """A router between client and server. ``fate(data)`` gives the delays after which copies of a datagram go on."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.fate: Callable[[bytes], list[float]] = lambda data: [0.0]
        self._server = server
        self._client: Any = None
        self._near: asyncio.DatagramTransport | None = None
        self._far: asyncio.DatagramTransport | None = None
        self.ports: list[int] = []  #: of the mappings, the newest last

    async def open(self) -> int:
        loop = asyncio.get_running_loop()
        self._near, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        await self.remap()
        return self._near.get_extra_info("sockname")[1]

    async def remap(self) -> None:
        """Forget the mapping: the client gets another address in the server's eyes."""
        relay = self

        class Far(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                relay._pass(relay._near, data, relay._client)

        if self._far is not None:
            self._far.close()
        loop = asyncio.get_running_loop()
        self._far, _ = await loop.create_datagram_endpoint(Far, remote_addr=self._server)
        self.ports.append(self._far.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._client = addr
        self._pass(self._far, data, None)

    def _pass(self, transport: asyncio.DatagramTransport | None, data: bytes, addr: Any) -> None:
        assert transport is not None
        for delay in self.fate(data):
            asyncio.get_running_loop().call_later(delay, self._send, transport, data, addr)

    def _send(self, transport: asyncio.DatagramTransport, data: bytes, addr: Any) -> None:
        if not transport.is_closing():
            transport.sendto(data, addr)

    def close(self) -> None:
        for transport in (self._near, self._far):
            if transport is not None:
                transport.close()


@asynccontextmanager
async def relay_to(cloud: Cloud) -> AsyncIterator[tuple[Relay, int]]:
    relay = Relay(("127.0.0.1", cloud.port))
    try:
        yield relay, await relay.open()
    finally:
        relay.close()


async def dial(keys: Keys, port: int, node: str = "edge-1") -> ClientSocket:
    with anyio.fail_after(DEADLINE_S):
        return await connect(RealNet(), f"127.0.0.1:{port}", Hello(node), keys.node, max_message_bytes=MESSAGE_BYTES)


async def test_all_arrives_in_order_though_datagrams_are_lost_doubled_and_overtaken(keys: Keys) -> None:
    draw = random.Random(7)

    def fate(data: bytes) -> list[float]:
        copies = 0 if draw.random() < 0.05 else 2 if draw.random() < 0.05 else 1
        return [0.002 + 0.003 * draw.random() for _ in range(copies)]

    async with cloud_of(keys) as (cloud, _), relay_to(cloud) as (relay, port):
        relay.fate = fate
        link = await dial(keys, port)
        sent = [draw.randbytes(draw.randrange(1, 40_000)) for _ in range(15)]
        down: list[bytes] = []

        async def read() -> None:
            async for message in link:
                down.append(message.data)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(link.keep_path)
            for one in sent:
                await link.send(one, lane=BULK)
                cloud.sockets[0].send_nowait(one, lane=BULK)
            await until(lambda: len(cloud.received) == len(down) == len(sent))
            assert cloud.received == down == sent
            link.abort()


async def test_a_connection_survives_another_address_of_the_client(keys: Keys) -> None:
    async with cloud_of(keys) as (cloud, _), relay_to(cloud) as (relay, port):
        link = await dial(keys, port)
        for number in range(3):  # NAT forgets the mapping; the client does not know
            await relay.remap()
            await link.send(b"%d" % number, lane=URGENT)
            await until(lambda number=number: len(cloud.received) == number + 1)  # type: ignore[misc]
            cloud.sockets[0].send_nowait(b"back", lane=URGENT)
            with anyio.fail_after(DEADLINE_S):
                assert (await link.recv()).data == b"back"
            await until(lambda: cloud.sockets[0].peer_address[1] == relay.ports[-1])
        assert len(cloud.sockets) == 1
        link.abort()


async def test_a_client_whose_socket_leads_nowhere_takes_another(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_client, "_SILENT_S", 0.2)
    async with cloud_of(keys) as (cloud, _), relay_to(cloud) as (relay, port):
        link = await dial(keys, port)
        dead: list[Any] = [link._port.transport.get_extra_info("sockname")]  # type: ignore[union-attr]
        relay.fate = lambda data: [] if relay._client in dead else [0.0]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.keep_path)
            await link.send(b"hear me", lane=URGENT)
            await until(lambda: cloud.received == [b"hear me"])
            assert link.closed is None
            link.abort()


async def test_a_server_that_started_anew_knows_the_old_connection_no_more(keys: Keys) -> None:
    cloud = Cloud(keys)
    first = await cloud.start()
    link = await dial(keys, cloud.port)
    assert first._transport is not None
    for one in tuple(first._ids):  # as by kill -9: no goodbye
        one._send = lambda data, addr: None
    first._transport.close()
    await until(lambda: first._transport is None)
    second = await cloud.start()
    await link.send(b"are you there?" * 4, lane=URGENT)
    await until(lambda: link.closed is not None)
    assert "started anew" in str(link.closed)
    second.close()


async def test_a_server_that_is_gone_is_noticed(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quic_client, "_REFUSED_S", 0.3)
    cloud = Cloud(keys)
    server = await cloud.start()
    link = await dial(keys, cloud.port)
    for one in tuple(server._ids):
        one._send = lambda data, addr: None
    server.close()
    await link.send(b"are you there?", lane=URGENT)
    await until(lambda: link.closed is not None)
    assert "nobody listens" in str(link.closed)
    with pytest.raises(OSError, match="connection refused"):
        await dial(keys, cloud.port)


async def test_what_is_urgent_does_not_wait_behind_the_bulk(keys: Keys) -> None:
    async with cloud_of(keys) as (cloud, _), relay_to(cloud) as (relay, port):
        link = await dial(keys, port)
        free_at = 0.0

        def slow(data: bytes) -> list[float]:  # 1 MB/s
            nonlocal free_at
            now = asyncio.get_running_loop().time()
            free_at = max(free_at, now) + len(data) / 1e6
            return [free_at - now]

        relay.fate = slow
        link.send_nowait(bytes(600_000), lane=BULK)
        assert link.is_behind(BULK)
        assert not link.is_behind(URGENT)
        link.send_nowait(b"keepalive", lane=URGENT)
        await until(lambda: len(cloud.received) == 2)
        assert cloud.received[0] == b"keepalive"
        link.abort()


async def test_a_reader_that_stops_holds_up_nobody_and_little_memory(keys: Keys) -> None:
    async with cloud_of(keys) as (cloud, _):
        stuck = await dial(keys, cloud.port)
        lively = await dial(keys, cloud.port)
        far_stuck, far_lively = cloud.sockets
        far_stuck.pause()
        message = bytes(50_000)
        sent = 0
        with anyio.move_on_after(1.0):
            while True:
                await stuck.send(message, lane=BULK)
                sent += len(message)
        assert stuck.is_behind(BULK)
        assert sent < 2 * WINDOW_BYTES
        assert far_stuck._queued <= WINDOW_BYTES
        for _ in range(60):  # more than the window: it moves on
            await lively.send(message, lane=BULK)
        await until(lambda: len(cloud.received) == 60)
        far_stuck.resume()
        await until(lambda: len(cloud.received) > 60 + sent // len(message))  # and the one whose sender gave up waiting
        assert far_lively.closed is None
        stuck.abort()
        lively.abort()


async def test_a_message_beyond_the_limit_ends_the_connection_with_the_reason(keys: Keys) -> None:
    async with cloud_of(keys, limits=QuicLimits(message_bytes=100_000)) as (cloud, _):
        link = await dial(keys, cloud.port)
        link.send_nowait(bytes(100_000), lane=BULK)
        await until(lambda: cloud.received)
        link.send_nowait(bytes(100_001), lane=BULK)
        await until(lambda: link.closed is not None)
        assert "a message of 100001 bytes; 100000 are allowed" in str(link.closed)


async def test_floods_of_strangers_make_no_state(keys: Keys) -> None:
    draw = random.Random(3)
    async with cloud_of(keys) as (cloud, server):
        answers: list[bytes] = []

        class Flood(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                answers.append(data)

        loop = asyncio.get_running_loop()
        flood, _ = await loop.create_datagram_endpoint(Flood, remote_addr=("127.0.0.1", cloud.port))
        largest = 0
        for number in range(2000):
            size = draw.randrange(0, 1300)
            data = bytearray(draw.randbytes(size))
            if size and number % 2:
                data[0] |= 0xC0  # a long header
                data[1:5] = b"\0\0\0\1"
            largest = max(largest, len(data))
            flood.sendto(bytes(data))
            if number % 50 == 0:
                await checkpoint()
        await until(lambda: server.dropped > 500)
        assert server.connections == 0
        assert all(len(one) < largest for one in answers)
        link = await dial(keys, cloud.port)  # and others come in meanwhile
        assert server.connections == 1
        link.abort()
        await until(lambda: server.connections == 0)
        flood.close()


async def test_a_peer_that_never_greets_is_dropped(keys: Keys) -> None:
    async with cloud_of(keys, limits=QuicLimits(handshakes=1, handshake_s=0.3)) as (cloud, server):
        net = RealNet()
        made = configuration(keys.node, server_name="127.0.0.1", idle_s=30.0)
        from edgesite.net.quic.client import _Port
        from edgesite.net.quic.core import Connection

        address = f"127.0.0.1:{cloud.port}"
        _, port = await net.datagrams(_Port, remote=address)
        mute = ClientSocket(net, address, Connection(made, window_bytes=WINDOW_BYTES), port, max_message_bytes=100)
        mute.connect()
        await until(lambda: server.connections == 1)
        await until(lambda: server.connections == 0)
        assert "no greeting in time" in str(await until(lambda: mute.closed))
        link = await dial(keys, cloud.port)
        link.abort()
