"""Tunnel streams: bytes pass exactly, within bounds, whatever either end does; endings are told once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesite.net import websocket
from edgesite.net.errors import ClosedByPeer, ProtocolError
from edgesite.net.http import HttpServer, Request
from edgesite.net.real import RealNet
from edgesite.net.tunnel import Tunnel, TunnelStream
from edgesite.wire import tunnel as wire
from edgesite.wire.tunnel import Connect, FrameType

pytestmark = pytest.mark.anyio


class End(asyncio.Protocol):
    """One end of a stream: keeps what it gets, and counts its endings."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.sent = bytearray()
        self.full = False
        self.ended: list[Exception | None] = []
        self.transport: TunnelStream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TunnelStream)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def pause_writing(self) -> None:
        assert not self.full
        self.full = True

    def resume_writing(self) -> None:
        assert self.full
        self.full = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.append(exc)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.sent += data
            self.transport.write(data)


class Pair:
    """A tunnel with both its ends."""

    def __init__(self, cloud: Tunnel, edges: list[End]) -> None:
        self.cloud = cloud
        self.edge: Tunnel
        self.edges = edges
        self.opened = 0

    async def open(self) -> tuple[End, End]:
        near, count = End(), len(self.edges)
        self.opened += 1
        self.cloud.open(self.opened, near, FrameType.EXEC, Connect("/x"))
        while len(self.edges) == count:
            await checkpoint()
        return near, self.edges[-1]


@asynccontextmanager
async def tunnel(*, window: bool = True) -> AsyncIterator[Pair]:
    clouds: list[Tunnel] = []
    edges: list[End] = []

    def take(request: Request) -> None:
        clouds.append(Tunnel(websocket.accept(request), window=window))

    def on_connect(at: Tunnel, number: int, kind: FrameType, connect: Connect) -> None:
        end = End()
        at.accept(number, end)
        edges.append(end)

    net = RealNet()
    async with HttpServer(take) as server:
        await server.listen(net, "mem:tunnel")
        socket = await websocket.connect(net, "mem:tunnel", wire.CONNECT_PATH)
        edge = Tunnel(socket, window=window, on_connect=on_connect)
        pair = Pair(clouds[0], edges)
        pair.edge = edge
        yield pair
        edge.close("the test is over")


async def settle() -> None:
    for _ in range(300):
        await checkpoint()


async def until_equal(sender: End, receiver: End) -> None:
    with anyio.fail_after(10):
        while receiver.got != sender.sent:
            await checkpoint()


@pytest.mark.parametrize("window", [True, False])
async def test_what_was_written_before_the_end_arrives(window: bool) -> None:
    async with tunnel(window=window) as pair:
        near, far = await pair.open()
        near.send(b"q" * 700_000)
        far.send(b"a" * 700_000)
        await until_equal(near, far)
        far.transport.close()
        await until_equal(far, near)
        await settle()
        assert near.ended == far.ended == [None]
        assert pair.cloud.streams == pair.edge.streams == 0


async def test_a_paused_reader_bounds_what_is_on_its_way_and_loses_nothing() -> None:
    async with tunnel() as pair:
        near, far = await pair.open()
        near.transport.pause_reading()
        while not far.full:
            far.send(b"x" * 50_000)
            await settle()
        assert near.transport._unread_size <= wire.WINDOW_BYTES
        assert len(far.sent) < 2 * wire.WINDOW_BYTES
        other, its_far = await pair.open()
        its_far.send(b"not held up")
        await until_equal(its_far, other)
        near.transport.resume_reading()
        await until_equal(far, near)
        assert not far.full


async def test_a_stream_that_ends_while_its_reader_is_paused_is_read_to_its_end() -> None:
    async with tunnel() as pair:
        near, far = await pair.open()
        near.transport.pause_reading()
        far.send(b"last words")
        far.transport.close()
        await settle()
        assert near.got == b""
        assert near.ended == []
        near.transport.resume_reading()
        await settle()
        assert near.got == b"last words"
        assert near.ended == [None]


async def test_without_windows_a_reader_too_far_behind_loses_its_stream_only() -> None:
    async with tunnel(window=False) as pair:
        near, far = await pair.open()
        other, its_far = await pair.open()
        near.transport.pause_reading()
        with anyio.fail_after(10):
            while not near.ended:
                far.send(b"x" * 100_000)
                await checkpoint()
        assert isinstance(near.ended[0], ProtocolError)
        its_far.send(b"fine")
        await until_equal(its_far, other)


async def test_a_peer_that_ignores_its_window_loses_its_stream() -> None:
    async with tunnel() as pair:
        near, far = await pair.open()
        near.transport.pause_reading()
        far.transport._credit = 10**9
        with anyio.fail_after(10):
            while not near.ended:
                far.send(b"x" * 100_000)
                await checkpoint()
        assert isinstance(near.ended[0], ProtocolError)


async def test_all_streams_end_with_the_tunnel() -> None:
    async with tunnel() as pair:
        ends = [end for _ in range(5) for end in await pair.open()]
        pair.edge.close("enough")
        await settle()
        for end in ends:
            assert len(end.ended) == 1
            assert isinstance(end.ended[0], ClosedByPeer)
        assert pair.cloud.ended is not None
        with pytest.raises(ClosedByPeer):
            pair.cloud.open(99, End(), FrameType.EXEC, Connect("/x"))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_streams_are_exact_and_fair_through_any_storm(seed: int, window: bool) -> None:
    chance = random.Random(seed)

    async def run() -> None:
        async with tunnel(window=window) as pair:
            streams = [await pair.open() for _ in range(chance.randint(1, 4))]
            for _ in range(chance.randint(5, 60)):
                near, far = chance.choice(streams)
                one = chance.choice((near, far))
                action = chance.random()
                if one.transport.is_closing():
                    continue
                if action < 0.6:
                    if not one.full:
                        one.send(chance.randbytes(chance.choice((1, 100, 20_000, 90_000))))
                elif action < 0.75:
                    one.transport.pause_reading()
                elif action < 0.95:
                    one.transport.resume_reading()
                else:
                    one.transport.close()
                for _ in range(chance.randint(0, 5)):
                    await checkpoint()
            for end in (end for stream in streams for end in stream):
                if not end.transport.is_closing():
                    end.transport.resume_reading()
            await settle()
            for near, far in streams:
                closed = bool(near.ended or far.ended)
                for sender, receiver in ((near, far), (far, near)):
                    assert sender.sent.startswith(receiver.got)  # in order, nothing twice
                    assert closed or receiver.got == sender.sent
                near.transport.close()
            await settle()
            assert all(len(end.ended) == 1 for stream in streams for end in stream)
            assert pair.cloud.streams == pair.edge.streams == 0

    anyio.run(run)
