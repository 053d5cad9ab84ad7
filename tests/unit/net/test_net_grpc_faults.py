"""gRPC against peers that go away, stall, flood or babble: in-process connections, virtual time, and h2 as the other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, Event, RequestReceived, StreamReset, TrailersReceived
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame, SettingsFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesite.net import grpc, http2
from edgesite.net.grpc import Channel, Code, GrpcError
from edgesite.net.grpc_messages import framed
from edgesite.net.grpc_server import GrpcServer
from edgesite.net.mem import MemTransport, connect_pair
from edgesite.net.real import RealNet
from edgesite.testing.virtualtime import VirtualLoop, settle

pytestmark = pytest.mark.anyio

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
DONE = [("grpc-status", "0")]
ASK = [(":method", "POST"), (":scheme", "http"), (":path", "/t/echo"), (":authority", "x"), ("te", "trailers")]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": VirtualLoop}


class Other(asyncio.Protocol):
    """The other end: h2, and what came."""

    def __init__(self, *, client: bool) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=client, header_encoding="utf-8"))
        self.events: list[Event] = []
        self.ended = asyncio.Event()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.events += self.h2.receive_data(data)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def write(self, *frames: Any) -> None:
        """Send frames past h2, which would not."""
        self.transport.write(b"".join(one.serialize() for one in frames))

    def came(self, kind: type[Event]) -> list[Any]:
        return [one for one in self.events if isinstance(one, kind)]

    def answer(self, stream: int, message: bytes = b"yes") -> None:
        self.h2.send_headers(stream, HEAD)
        self.h2.send_data(stream, framed(message))
        self.h2.send_headers(stream, DONE, end_stream=True)
        self.flush()


# A client of ours


class Far:
    """A server that does as the test says, and calls that end as they end."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.ends: list[Other] = []
        self.net = RealNet()
        self.channel = Channel(self.net, "mem:far")
        self.results: list[bytes | Code] = []
        self._tasks = tasks

    async def listen(self) -> None:
        def make() -> Other:
            self.ends.append(Other(client=False))
            return self.ends[-1]

        await self.net.listen(make, "mem:far")

    async def begin(self, count: int = 1) -> Other:
        """Start calls; return the end that has them."""
        for _ in range(count):
            self._tasks.start_soon(self._call)
        await settle()
        return self.ends[-1]

    async def _call(self) -> None:
        try:
            self.results.append(await self.channel.call("/t/echo", b"?"))
        except GrpcError as exc:
            self.results.append(exc.code)


@asynccontextmanager
async def far_end() -> AsyncGenerator[Far]:
    async with anyio.create_task_group() as tasks:
        far = Far(tasks)
        await far.listen()
        yield far
        await settle()
        await far.channel.close()


async def test_after_goodbye_what_was_begun_ends_and_the_rest_goes_elsewhere() -> None:
    async with far_end() as far:
        first = await far.begin(3)
        first.write(GoAwayFrame(0, last_stream_id=2**31 - 1), PingFrame(0, opaque_data=b"12345678"))
        await settle()
        first.write(GoAwayFrame(0, last_stream_id=3))
        await settle()
        assert far.results == [Code.UNAVAILABLE]  # the third: it has not been begun with
        second = await far.begin()
        assert second is not first
        for stream in (1, 3):
            first.answer(stream, b"late")
        second.answer(1, b"new")
        with anyio.fail_after(5):
            await first.ended.wait()  # nothing is left on it
    assert far.results == [Code.UNAVAILABLE, b"late", b"late", b"new"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (ErrorCodes.REFUSED_STREAM, Code.UNAVAILABLE),
        (ErrorCodes.CANCEL, Code.CANCELLED),
        (ErrorCodes.PROTOCOL_ERROR, Code.INTERNAL),
        (ErrorCodes.ENHANCE_YOUR_CALM, Code.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_reset_ends_its_call_alone(code: ErrorCodes, status: Code) -> None:
    async with far_end() as far:
        end = await far.begin(2)
        end.h2.reset_stream(1, code)
        end.answer(3)
    assert far.results == [status, b"yes"]


@given(st.integers(0, 80))
@settings(max_examples=40, deadline=None)
def test_a_peer_that_dies_in_the_middle_of_a_frame(cut: int) -> None:
    async def run() -> list[bytes | Code]:
        async with far_end() as far:
            end = await far.begin()
            end.h2.send_headers(1, HEAD)
            end.h2.send_data(1, framed(b"y" * 60))
            end.h2.send_headers(1, DONE, end_stream=True)
            data = end.h2.data_to_send()
            end.transport.write(data[: len(data) - 1 - cut])
            end.transport.close()
        return far.results

    assert anyio.run(run, backend_options={"loop_factory": VirtualLoop}) == [Code.UNAVAILABLE]


async def test_trailers_without_end_are_refused_and_the_next_call_finds_a_new_connection() -> None:
    async with far_end() as far:
        end = await far.begin()
        end.h2.send_headers(1, HEAD)
        long = [(f"x{number}", "v" * 10_000) for number in range(8)]  # the 64 KiB that were allowed, and more
        end.h2.send_headers(1, [*DONE, *long], end_stream=True)
        end.flush()
        await settle()
        assert far.results == [Code.UNAVAILABLE]
        (await far.begin()).answer(1)
    assert far.results == [Code.UNAVAILABLE, b"yes"]


async def test_a_long_status_text_is_cut_and_nothing_else_is_lost() -> None:
    async with far_end() as far:
        end = await far.begin()
        end.h2.send_headers(1, [*HEAD, ("grpc-status", "13"), ("grpc-message", "v" * 60_000)], end_stream=True)
        end.flush()
        await settle()
        (await far.begin()).answer(3)
    assert far.results == [Code.INTERNAL, b"yes"]


async def test_no_more_calls_at_once_than_the_peer_allows() -> None:
    async with far_end() as far:
        end = await far.begin()
        end.h2.update_settings({3: 2})
        end.flush()
        await far.begin(4)
        assert len(end.came(RequestReceived)) == 2
        for stream in (1, 3, 5, 7, 9):
            end.answer(stream)
            await settle()
    assert far.results == [b"yes"] * 5


async def test_a_peer_that_takes_nothing_is_sent_little() -> None:
    async with far_end() as far:
        end = await far.begin()
        end.answer(1)
        await settle()
        end.transport.pause_reading()
        for _ in range(200):
            with pytest.raises(GrpcError) as failed:
                await far.channel.call("/t/echo", bytes(2000), timeout_s=5)
            assert failed.value.code is Code.DEADLINE_EXCEEDED
        link = far.channel._link
        assert link is not None
        assert link._transport is not None
        assert link._transport.get_write_buffer_size() < 100_000
        end.transport.resume_reading()
        await settle()
        await far.begin()
        end.answer(end.came(RequestReceived)[-1].stream_id)
    assert far.results == [b"yes", b"yes"]


async def test_a_stream_that_is_not_read_holds_its_sender_up_and_calls_go_on() -> None:
    async with far_end() as far, aclosing(far.channel.stream("/t/watch", b"?")) as stream:
        first = asyncio.ensure_future(anext(stream))
        await settle()
        end = far.ends[0]
        end.h2.send_headers(1, HEAD)
        message, sent = framed(b"m" * 1000), 0
        while end.h2.local_flow_control_window(1) >= len(message):
            end.h2.send_data(1, message)
            end.flush()
            sent += 1
            await settle()
        assert sent < 2 * http2.STREAM_WINDOW // len(message)
        await far.begin()
        end.answer(3)
        await settle()
        assert far.results == [b"yes"]
        assert len(await first) == 1000
        for _ in range(sent - 1):
            assert len(await anext(stream)) == 1000
        last = asyncio.ensure_future(anext(stream))
        await settle()
        assert end.h2.local_flow_control_window(1) >= http2.STREAM_WINDOW // 2
        end.h2.send_headers(1, DONE, end_stream=True)
        end.flush()
        with pytest.raises(StopAsyncIteration):
            await last


async def test_a_quiet_stream_asks_for_a_sign_of_life() -> None:
    async with far_end() as far, aclosing(far.channel.stream("/t/watch", b"?")) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await anyio.sleep(3 * grpc.QUIET_S)
        assert not waiting.done()  # h2 answers pings
        far.ends[0].transport.pause_reading()
        await anyio.sleep(grpc.QUIET_S + grpc.SIGN_S)
        with pytest.raises(GrpcError, match="no sign of life"):
            await waiting


# A server of ours


@asynccontextmanager
async def near_end() -> AsyncGenerator[tuple[Other, list[str]]]:
    """A client that does as the test says, and what the server's handler has seen."""
    seen: list[str] = []

    async def echo(request: bytes) -> bytes:
        seen.append("began")
        try:
            await anyio.sleep(0.0001)
        except BaseException:
            seen.append("cancelled")
            raise
        return request

    async def many(request: bytes) -> AsyncGenerator[bytes]:
        try:
            while True:
                seen.append("gave")
                yield bytes(1000)
        finally:
            seen.append("closed")

    net = RealNet()
    async with GrpcServer({"/t/echo": echo}, {"/t/many": many}) as server:
        await server.listen(net, "mem:near")
        _, other = await net.connect(lambda: Other(client=True), "mem:near")
        await settle()
        yield other, seen


def ask(end: Other, count: int = 1, path: str = "/t/echo") -> None:
    for _ in range(count):
        stream = end.h2.get_next_available_stream_id()
        end.h2.send_headers(stream, [(":path", path) if name == ":path" else (name, value) for name, value in ASK])
        end.h2.send_data(stream, framed(b"hello"), end_stream=True)
    end.flush()


def pings(end: Other) -> None:
    end.write(*[PingFrame(0, opaque_data=b"12345678")] * 100)


def empty_settings(end: Other) -> None:
    end.write(*[SettingsFrame(0, settings={3: 100})] * 100)


def rapid_resets(end: Other) -> None:
    for _ in range(100):
        ask(end)
        end.h2.reset_stream(end.h2.highest_outbound_stream_id, ErrorCodes.CANCEL)
        end.flush()


def empty_data(end: Other) -> None:
    if end.h2.highest_outbound_stream_id == 0:
        end.h2.send_headers(1, ASK)
        end.flush()
    end.write(*[DataFrame(1)] * 100)


@pytest.mark.parametrize("flood", [pings, empty_settings, rapid_resets, empty_data])
async def test_a_flood_ends_its_connection_and_no_other(flood: Callable[[Other], None]) -> None:
    async with near_end() as (end, seen):
        for _ in range(2 * http2.IDLE_FRAMES // 100):
            if end.came(ConnectionTerminated):
                break
            flood(end)
            await asyncio.sleep(0)
        with anyio.fail_after(5):
            await end.ended.wait()
        [goodbye] = end.came(ConnectionTerminated)
        assert goodbye.error_code is ErrorCodes.ENHANCE_YOUR_CALM
        assert seen.count("began") <= http2.IDLE_FRAMES


async def test_pings_between_calls_are_no_flood() -> None:
    async with near_end() as (end, _):
        for _ in range(2 * http2.IDLE_FRAMES // 100 + 2):
            pings(end)
            ask(end)
            await settle()
        assert not end.ended.is_set()
        assert len(end.came(TrailersReceived)) == 2 * http2.IDLE_FRAMES // 100 + 2


async def test_a_client_that_asks_and_does_not_read_is_not_served_on() -> None:
    async with near_end() as (end, seen):
        end.transport.pause_reading()
        ask(end, path="/t/many")
        await settle()
        assert 0 < seen.count("gave") < 200  # its window, and no more
        for _ in range(50):
            end.write(*[PingFrame(0, opaque_data=b"12345678")] * 39)
            await settle()
        assert end.transport.get_write_buffer_size() > 0  # nobody reads them
        end.transport.abort()
        await settle()
        assert seen[-1] == "closed"


async def test_a_client_that_does_not_say_hello_is_cut_off() -> None:
    net = RealNet()
    async with GrpcServer({}) as server:
        await server.listen(net, "mem:near")
        _, silent = await net.connect(Silent, "mem:near")
        await anyio.sleep(http2.HELLO_S - 1)
        assert not silent.ended.is_set()
        await anyio.sleep(2)
        assert silent.ended.is_set()


class Silent(asyncio.Protocol):
    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


async def test_a_deadline_is_kept_by_the_server_too() -> None:
    cancelled = anyio.Event()

    async def hang(request: bytes) -> bytes:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    net = RealNet()
    async with GrpcServer({"/t/echo": hang}) as server:
        await server.listen(net, "mem:near")
        _, end = await net.connect(lambda: Other(client=True), "mem:near")
        end.h2.send_headers(1, [*ASK, ("grpc-timeout", "50m")])
        end.h2.send_data(1, framed(b""), end_stream=True)
        end.flush()
        with anyio.fail_after(1):
            await cancelled.wait()
        await settle()
        [said] = [dict(one.headers) for one in end.events if hasattr(one, "headers") and one.headers]
        assert said["grpc-status"] == "4"


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([framed(b"a") + framed(b"b")], "12"),
        ([framed(b"abc")[:-1]], "3"),
        ([b""], "3"),
        ([b"\0" + (5 << 20).to_bytes(4, "big")], "8"),
    ],
)
async def test_what_is_no_single_message_is_refused(pieces: list[bytes], status: str) -> None:
    async with near_end() as (end, seen):
        end.h2.send_headers(1, ASK)
        for piece in pieces:
            end.h2.send_data(1, piece)
        end.h2.end_stream(1)
        end.flush()
        await settle()
        said = {name: value for one in end.events if getattr(one, "headers", None) for name, value in one.headers}
        assert (said["grpc-status"], seen) == (status, [])
        ask(end)
        await settle()
        assert seen == ["began"]
        assert not end.came(StreamReset)


# Nonsense


class Sink(http2.Http2Protocol):
    def __init__(self, *, client: bool) -> None:
        super().__init__(client=client)
        self.whys: list[str] = []

    def headers(self, stream: int, headers: http2.HeaderList, ended: bool) -> None:
        self.respond(stream, [(b":status", b"200")])
        self.send(stream, b"x" * 20, trailers=[(b"grpc-status", b"0")])

    def data(self, stream: int, data: bytes, ended: bool) -> None:
        self.consumed(stream, len(data))

    def lost(self, why: str) -> None:
        self.whys.append(why)


FRAME = st.builds(
    lambda kind, flags, stream, payload: (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    ),
    st.integers(0, 12),
    st.integers(0, 255),
    st.integers(0, 6),
    st.one_of(st.binary(max_size=20), st.sampled_from([b"\x82\x87\x84", b"\x83", bytes(4), bytes(8)])),
)


@given(st.booleans(), st.lists(st.one_of(FRAME, st.binary(max_size=30)), max_size=12))
@settings(max_examples=400, deadline=None)
def test_whatever_comes_ends_the_connection_at_most(client: bool, pieces: list[bytes]) -> None:
    async def run() -> None:
        ours = Sink(client=client)
        near, far = (
            MemTransport(asyncio.get_running_loop(), "x", ours),
            MemTransport(asyncio.get_running_loop(), "x", Silent()),
        )
        near.pair(far)
        ours.connection_made(near)
        if client:
            ours.send(ours.open([(b":method", b"POST"), (b":path", b"/"), (b":scheme", b"http")]), b"?" * 70_000)
        else:
            ours.data_received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())
        for piece in pieces:
            ours.data_received(piece)
        ours.leave("the test is over")
        await settle()
        assert len(ours.whys) == 1

    anyio.run(run, backend_options={"loop_factory": VirtualLoop})


def test_streams_that_are_over_are_forgotten() -> None:
    async def run() -> int:
        one, two = Sink(client=True), Sink(client=False)
        connect_pair(asyncio.get_running_loop(), "x", one, two)
        await settle()
        for _ in range(1500):
            stream = one.open([(b":method", b"POST"), (b":path", b"/"), (b":scheme", b"http")])
            one.send(stream, b"", ends=True)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await settle()
        one.leave("the test is over")
        await settle()
        return len(two._h2._closed_streams)

    assert anyio.run(run, backend_options={"loop_factory": VirtualLoop}) <= 512
