"""In-process transports behave as sockets do; WebSocket and client over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesite.net import websocket
from edgesite.net.client import HttpClient, UpgradeRefused
from edgesite.net.http import ClosedByPeer, HttpServer, Request, Response
from edgesite.net.mem import connect_pair
from edgesite.net.real import RealNet
from edgesite.net.websocket import Message, SocketClosed, WebSocket

pytestmark = pytest.mark.anyio


class End(asyncio.Protocol):
    def __init__(self) -> None:
        self.log: list[str] = []
        self.got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.log.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")

    def eof_received(self) -> None:
        self.log.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.log.append("lost")


async def settle() -> None:
    for _ in range(60):
        await checkpoint()


async def test_what_was_written_before_close_arrives_before_the_end() -> None:
    near, far = End(), End()
    ours, _ = connect_pair(asyncio.get_running_loop(), "x", near, far)
    ours.write(b"last words")
    ours.close()
    ours.write(b"too late")
    await settle()
    assert far.got == b"last words"
    assert near.log == ["made", "lost"]
    assert far.log == ["made", "eof", "lost"]


async def test_a_reader_that_pauses_makes_the_writer_pause() -> None:
    near, far = End(), End()
    ours, theirs = connect_pair(asyncio.get_running_loop(), "x", near, far)
    theirs.pause_reading()
    for _ in range(10):
        ours.write(b"x" * 30_000)
    await settle()
    assert far.got == b""
    assert near.log == ["made", "pause"]
    theirs.resume_reading()
    await settle()
    assert len(far.got) == 300_000
    assert near.log == ["made", "pause", "resume"]


async def test_abort_drops_what_waits() -> None:
    near, far = End(), End()
    ours, theirs = connect_pair(asyncio.get_running_loop(), "x", near, far)
    theirs.pause_reading()
    ours.write(b"never")
    await settle()
    ours.abort()
    await settle()
    assert far.got == b""
    assert far.log[-1] == near.log[-1] == "lost"


async def test_half_close_lets_the_other_side_answer() -> None:
    class Keeps(End):
        def eof_received(self) -> bool:  # type: ignore[override]
            super().eof_received()
            return True

    near, far = End(), Keeps()
    ours, theirs = connect_pair(asyncio.get_running_loop(), "x", near, far)
    ours.write_eof()
    await settle()
    theirs.write(b"answer")
    theirs.close()
    await settle()
    assert near.got == b"answer"


async def test_names_are_taken_once_and_freed_by_close() -> None:
    net = RealNet()
    with pytest.raises(ConnectionRefusedError):
        await net.connect(End, "mem:hub")
    listener = await net.listen(End, "mem:hub")
    with pytest.raises(OSError, match="in use"):
        await net.listen(End, "mem:hub")
    with pytest.raises(ConnectionRefusedError):
        await RealNet().connect(End, "mem:hub")
    await listener.close()
    await (await net.listen(End, "mem:hub")).close()


@asynccontextmanager
async def echo() -> AsyncIterator[RealNet]:
    """A WebSocket server on mem:echo that sends back what it gets; /slow never reads."""

    async def serve(request: Request) -> Response | None:
        if request.path == "/refuse":
            return Response(403, None, b"no")
        socket = websocket.accept(request, subprotocols=("b", "a"), max_message_bytes=100_000)
        if request.path == "/slow":
            socket.pause()
            await anyio.sleep_forever()
        async for message in socket:
            await socket.send(message.data, text=message.text)
        return None

    net = RealNet()
    async with HttpServer(serve) as server:
        await server.listen(net, "mem:echo")
        yield net


async def test_text_that_is_not_utf8_passes_unchanged() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/")
        await socket.send(b"\xff\xfe\x00", text=True)
        assert await socket.recv() == Message(b"\xff\xfe\x00", True)
        await socket.send(b"\xff")
        assert await socket.recv() == Message(b"\xff", False)
        await socket.close()


async def test_fragments_are_joined() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/")
        assert socket._transport is not None
        for first, data in ((0x01, b"one "), (0x89, b"between"), (0x00, b"two "), (0x80, b"three")):
            socket._transport.write(bytes((first, 0x80 | len(data))) + b"\0\0\0\0" + data)
        assert await socket.recv() == Message(b"one two three", True)
        await socket.close()


async def test_close_gives_the_code_to_both_ends_and_wakes_who_waits() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/")
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(SocketClosed):
                    await socket.recv()

            tasks.start_soon(wait)
            await settle()
            await socket.close(4001, "enough")
        assert socket.closed is not None
        assert (socket.closed.code, socket.closed.reason) == (4001, "enough")
        with pytest.raises(SocketClosed):
            await socket.send(b"x")


async def test_a_message_beyond_the_limit_closes_with_1009() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/")
        await socket.send(b"x" * 100_000)
        assert len((await socket.recv()).data) == 100_000
        await socket.send(b"x" * 100_001)
        with pytest.raises(SocketClosed) as caught:
            await socket.recv()
        assert caught.value.code == 1009


async def test_send_waits_for_a_peer_that_does_not_read() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/slow")
        sent = 0
        with anyio.move_on_after(0.05):
            while True:
                await socket.send(b"x" * 50_000)
                sent += 1
        assert sent < 20
        socket.abort()


async def test_a_cut_connection_is_1006() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/")
        socket.abort()
        with pytest.raises(SocketClosed) as caught:
            await socket.recv()
        assert caught.value.code == 1006
        assert isinstance(caught.value, ClosedByPeer)


async def test_a_refused_handshake_gives_the_answer() -> None:
    async with echo() as net:
        with pytest.raises(UpgradeRefused) as caught:
            await websocket.connect(net, "mem:echo", "/refuse")
        assert (caught.value.answer.status, caught.value.answer.body) == (403, b"no")


async def test_subprotocols_are_agreed_in_the_servers_order() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/", subprotocols=("a", "b"))
        assert socket.subprotocol == "b"
        socket.abort()


async def test_silence_is_noticed_by_keep_alive() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/slow")
        socket.keep_alive(0.01, 0.03)
        with anyio.fail_after(5), pytest.raises(SocketClosed):
            await socket.recv()


async def test_pongs_keep_a_silent_connection() -> None:
    async with echo() as net:
        socket = await websocket.connect(net, "mem:echo", "/")
        pongs: list[bytes] = []
        socket.on_pong = pongs.append
        socket.keep_alive(0.005, 0.01, b"ping you")
        with anyio.fail_after(5):
            while len(pongs) < 5:
                await checkpoint()
        assert socket.is_open
        socket.abort()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_make_a_websocket_fail(pieces: list[bytes]) -> None:
    async def run() -> None:
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        socket = WebSocket(websocket.Side.SERVER)
        other = End()
        _, theirs = connect_pair(asyncio.get_running_loop(), "x", other, socket)
        for piece in pieces:
            if not theirs.is_closing():
                socket.data_received(piece)
            await checkpoint()
        socket.abort()
        await settle()
        assert not failures
        assert socket.closed is not None

    anyio.run(run)


async def test_the_client_reuses_connections_and_survives_a_stale_one() -> None:
    peers: list[int] = []

    def handler(request: Request) -> Response:
        peers.append(id(request.connection))
        return Response(200, None, request.body)

    net = RealNet()
    client = HttpClient(net, "mem:api")
    async with HttpServer(handler) as server:
        listener = await server.listen(net, "mem:api")
        for _ in range(3):
            assert (await client.request("PUT", "/", None, b"x")).body == b"x"
        assert len(set(peers)) == 1
        await listener.close()
    async with HttpServer(handler) as server:
        await server.listen(net, "mem:api")
        assert (await client.request("GET", "/")).status == 200
        await client.close()


async def test_the_client_tells_a_cut_answer() -> None:
    async def handler(request: Request) -> None:
        writer = await request.stream()
        await writer.write(b"half")
        raise RuntimeError

    net = RealNet()
    async with HttpServer(handler, on_failure=lambda *_: Response(500)) as server:
        await server.listen(net, "mem:api")
        async with HttpClient(net, "mem:api") as client:
            with pytest.raises(ClosedByPeer):
                await client.request("GET", "/")


async def test_leaving_a_stream_cuts_it_at_the_server() -> None:
    left = anyio.Event()

    async def handler(request: Request) -> None:
        writer = await request.stream()
        try:
            while True:
                await writer.write(b"x" * 1000)
        finally:
            left.set()

    net = RealNet()
    async with HttpServer(handler) as server:
        await server.listen(net, "mem:api")
        async with HttpClient(net, "mem:api") as client, client.stream("GET", "/") as answer:
            assert (await answer.read())[:1] == b"x"
        with anyio.fail_after(5):
            await left.wait()


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/a\n"])
async def test_targets_cannot_split_a_request(target: str) -> None:
    async with HttpClient(RealNet(), "mem:x") as client:
        with pytest.raises(ValueError, match="target"):
            await client.request("GET", target)
