"""SPDY connections: bytes pass exactly and within bounds, ends and resets are told, and a peer that breaks the rules is cut off."""

from __future__ import annotations

import asyncio
import hashlib
import random

import anyio
import pytest

from edgesite.net.errors import ClosedByPeer
from edgesite.net.mem import MemTransport, connect_pair
from edgesite.net.spdy import STREAMS, UNREAD_BYTES, SpdyConnection, SpdyStream
from edgesite.wire.spdy import DATA_BYTES, Encoder

pytestmark = pytest.mark.anyio


class Pair:
    """Two ends; ``taken`` holds the streams that the server was given."""

    def __init__(self) -> None:
        self.taken: list[SpdyStream] = []
        self.server = SpdyConnection(server=True, on_stream=self.taken.append)
        self.client = SpdyConnection()
        self.near: MemTransport
        self.near, self.far = connect_pair(asyncio.get_running_loop(), "spdy", self.client, self.server)

    async def open(self) -> tuple[SpdyStream, SpdyStream]:
        stream = await self.client.open({"streamType": "data"})
        return stream, self.taken[-1]


async def test_bytes_pass_both_ways_to_their_ends() -> None:
    pair = Pair()
    data = random.Random(2).randbytes(3_000_000)

    async def echo(stream: SpdyStream) -> None:
        while piece := await stream.receive():
            await stream.send(piece)
        stream.end()

    async def send(stream: SpdyStream) -> None:
        await stream.send(data)
        stream.end()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                near, far = await pair.open()
                assert far.headers == {"streamtype": "data"}
                tasks.start_soon(echo, far)
                tasks.start_soon(send, near)
                got = hashlib.sha256()
                while piece := await near.receive():
                    got.update(piece)
                assert got.digest() == hashlib.sha256(data).digest()


async def test_a_reader_that_stops_holds_the_sender_up() -> None:
    pair = Pair()
    near, far = await pair.open()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await near.send(b"x" * DATA_BYTES)
            sent += DATA_BYTES

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        held = sent
        assert held < UNREAD_BYTES + 600_000
        await far.receive()
        await anyio.wait_all_tasks_blocked()
        assert sent > held
        far.discard()
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


async def test_a_reset_is_told_to_the_other_side_alone() -> None:
    pair = Pair()
    near, far = await pair.open()
    other, _ = await pair.open()
    await near.send(b"last words")
    near.reset()
    assert await far.receive() == b"last words"
    with pytest.raises(ClosedByPeer):
        await far.receive()
    with pytest.raises(ClosedByPeer):
        await near.send(b"more")
    await other.send(b"goes on")
    other.end()
    with pytest.raises(ClosedByPeer):
        await other.send(b"after its end")


async def test_a_connection_that_ends_ends_its_streams() -> None:
    pair = Pair()
    near, far = await pair.open()
    pair.server.close()
    with anyio.fail_after(5):
        with pytest.raises(ClosedByPeer):
            await near.receive()
        with pytest.raises(ClosedByPeer):
            await pair.client.open({})
        with pytest.raises(ClosedByPeer):
            await far.receive()
        await pair.client.wait_ended()
        await pair.server.wait_ended()


async def test_streams_that_nobody_takes_are_refused() -> None:
    pair = Pair()
    await pair.open()
    far = pair.server
    with pytest.raises(ClosedByPeer, match="reset"):
        await far.open({"streamtype": "pushed"})


async def test_streams_are_bounded() -> None:
    pair = Pair()
    for _ in range(STREAMS):
        await pair.open()
    with pytest.raises(ClosedByPeer, match="reset"):
        await pair.open()
    assert len(pair.taken) == STREAMS


@pytest.mark.parametrize("junk", [b"\xffGET / HTTP/1.1\r\n\r\n", b"\x80\x02\x00\x01\x00\x00\x00\x00"])
async def test_a_peer_that_speaks_something_else_is_cut_off(junk: bytes) -> None:
    pair = Pair()
    pair.near.write(junk)
    with anyio.fail_after(5):
        await pair.server.wait_ended()


async def test_ids_that_are_not_the_peer_s_are_refused() -> None:
    pair = Pair()
    encoder = Encoder()
    for number in (2, 5, 3):  # even: the server's own; after 5 comes no 3
        pair.near.write(encoder.syn_stream(number, {}))
    await anyio.wait_all_tasks_blocked()
    assert [one.number for one in pair.taken] == [5]
