"""The HTTP server's connection, over an in-process transport: what bytes in give which bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesite.net import h11_parser, http_connection
from edgesite.net.http import BodyWriter, ClosedByPeer, Frame, HttpServer, Limits, Request, Response, WouldBlock
from edgesite.net.mem import MemTransport, connect_pair

pytestmark = pytest.mark.anyio


class Browser(asyncio.Protocol):
    """The other end: keeps what it gets."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = asyncio.Event()
        self.transport: MemTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(40):
        await checkpoint()


def echo(request: Request) -> Response:
    text = f"{request.method} {request.path} {request.raw_query} ".encode() + request.body
    return Response(200, b"content-type: text/plain\r\n", text)


@asynccontextmanager
async def served(handler: Callable[[Request], Any] = echo, **limits: Any) -> AsyncIterator[Browser]:
    async with HttpServer(handler, Limits(**limits)) as server:
        browser = Browser()
        connect_pair(asyncio.get_running_loop(), "test", browser, server.protocol_factory())
        yield browser


async def talk(data: bytes, handler: Callable[[Request], Any] = echo, *, end: bool = True, **limits: Any) -> bytes:
    """Send, and return all that comes until the server closes, or nothing more happens."""
    async with served(handler, **limits) as browser:
        browser.transport.write(data)
        if end:
            with anyio.fail_after(5):
                await browser.ended.wait()
        else:
            await settle()
        return browser.got


async def test_answers_pipelined_requests_in_order_though_the_first_is_slow() -> None:
    release = anyio.Event()

    async def slow(request: Request) -> Response:
        await release.wait()
        return Response(200, None, b"slow")

    def handler(request: Request) -> Any:
        return slow(request) if request.path == "/slow" else Response(200, None, request.path.encode())

    async with served(handler) as browser:
        browser.transport.write(
            b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        await settle()
        assert browser.got == b""
        release.set()
        while b"/b" not in browser.got:
            await checkpoint()
    bodies = [part.partition(b"\r\n\r\n")[2] for part in browser.got.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"slow", b"/a", b"/b"]


async def test_a_plain_answer_needs_no_task() -> None:
    async with served() as browser:
        before = len(asyncio.all_tasks())
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        while not browser.got:
            assert len(asyncio.all_tasks()) == before
            await checkpoint()


async def test_connection_close_ends_the_connection_and_later_bytes_are_ignored() -> None:
    got = await talk(b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert got.count(b"HTTP/1.1") == 1
    assert b"connection: close\r\n" in got
    assert got.endswith(b"GET /1  ")


async def test_http_1_0_closes_unless_asked_to_keep() -> None:
    assert b"connection: close" in await talk(b"GET / HTTP/1.0\r\n\r\n")
    got = await talk(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", end=False)
    assert b"connection: keep-alive" in got


async def test_head_has_the_length_but_not_the_body() -> None:
    got = await talk(b"HEAD /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"content-length: 9" in head
    assert body == b""


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_content_say_no_length(status: int) -> None:
    got = await talk(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", lambda _: Response(status))
    assert b"content-length" not in got


async def test_continue_is_sent_only_to_who_waits_for_it() -> None:
    async with served() as browser:
        browser.transport.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        while not browser.got:
            await checkpoint()
        assert browser.got == b"HTTP/1.1 100 Continue\r\n\r\n"
        browser.transport.write(b"abc")
        while b"200 OK" not in browser.got:
            await checkpoint()
        assert browser.got.endswith(b"PUT /  abc")
    got = await talk(
        b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\nabc"
    )
    assert b"100 Continue" not in got


async def test_a_body_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    assert b"200 OK" in await talk(head % 10 + b"x" * 10, body_bytes=10)
    refused = await talk(head % 11 + b"x" * 11, body_bytes=10)
    assert refused.startswith(b"HTTP/1.1 413 ")
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n"
    assert (await talk(chunked, body_bytes=10)).startswith(b"HTTP/1.1 413 ")


async def test_a_body_announced_too_long_is_refused_before_it_comes() -> None:
    got = await talk(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n", body_bytes=10)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in got


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 2000 + b"\r\n\r\n",
        b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n",
        b"".join([b"GET / HTTP/1.1\r\nHost: h\r\n", *[b"X: aaaaaaaaaaaaaaaaa\r\n"] * 100]),
    ],
    ids=["long value", "long target", "many lines"],
)
async def test_long_heads_are_refused(data: bytes) -> None:
    assert (await talk(data, header_bytes=1000)).startswith(b"HTTP/1.1 431 ")


async def test_a_header_line_without_end_is_refused_when_it_is_too_long() -> None:
    async with served(header_bytes=1000) as browser:
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\nX: ")
        for _ in range(20):
            browser.transport.write(b"a" * 100)
            await settle()
        with anyio.fail_after(5):
            await browser.ended.wait()
        assert browser.got.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: 1\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_answered_400_and_closed(data: bytes) -> None:
    assert (await talk(data)).startswith(b"HTTP/1.1 400 ")


async def test_a_bad_request_after_good_ones_is_refused_in_order() -> None:
    async def handler(request: Request) -> Response:
        await checkpoint()
        return echo(request)

    got = await talk(b"GET /good HTTP/1.1\r\nHost: h\r\n\r\nnonsense\r\n\r\n", handler)
    assert got.index(b"/good") < got.index(b"HTTP/1.1 400")


async def test_more_pipelined_requests_than_allowed_are_refused_after_those_allowed() -> None:
    async def handler(request: Request) -> Response:
        await checkpoint()
        return Response(200)

    got = await talk(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 10, handler, pipelined=4)
    assert got.count(b"200 OK") == 5
    assert got.count(b"HTTP/1.1 503 ") == 1


async def test_a_head_that_does_not_come_is_timed_out() -> None:
    async with served(head_timeout_s=0.02, idle_timeout_s=60.0) as browser:
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\nX: ")
        with anyio.fail_after(5):
            await browser.ended.wait()
        assert browser.got.startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with served(head_timeout_s=0.02) as browser:
        with anyio.fail_after(5):
            await browser.ended.wait()
        assert browser.got == b""


async def test_a_body_that_stops_is_timed_out() -> None:
    async with served(head_timeout_s=0.02, body_timeout_s=0.02) as browser:
        browser.transport.write(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc")
        with anyio.fail_after(5):
            await browser.ended.wait()
        assert browser.got.startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    release = anyio.Event()

    async def handler(request: Request) -> Response:
        await release.wait()
        return Response(200)

    async with served(handler, head_timeout_s=0.01, idle_timeout_s=0.01) as browser:
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with anyio.move_on_after(0.1):
            await browser.ended.wait()
        assert not browser.ended.is_set()
        release.set()
        with anyio.fail_after(5):
            await browser.ended.wait()
        assert b"200 OK" in browser.got


async def test_a_failing_handler_is_a_plain_500() -> None:
    def handler(request: Request) -> Response:
        raise RuntimeError("secret")

    async def later(request: Request) -> Response:
        raise RuntimeError("secret")

    for one in (handler, later, lambda _: None):
        got = await talk(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", one)
        assert got.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in got


async def test_a_header_that_would_split_the_answer_is_a_500() -> None:
    got = await talk(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", lambda _: Response(200, {"x": "a\r\nset-cookie: b"})
    )
    assert got.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in got


async def test_streams_chunks_and_goes_on_with_the_next_request() -> None:
    async def handler(request: Request) -> Response | None:
        if request.path == "/plain":
            return Response(200, None, b"plain")
        writer = await request.stream(200, {"content-type": "text/plain"})
        await writer.write(b"one")
        await writer.write(b"")
        writer.write_nowait(Frame(b"two!"))
        return None

    got = await talk(
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /plain HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", handler
    )
    first, _, rest = got.partition(b"0\r\n\r\n")
    assert first.endswith(b"\r\n\r\n3\r\none\r\n4\r\ntwo!\r\n")
    assert rest.endswith(b"plain")


async def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    async def handler(request: Request) -> None:
        writer = await request.stream()
        await writer.write(b"data")

    got = await talk(b"GET / HTTP/1.0\r\n\r\n", handler)
    assert got.endswith(b"\r\n\r\ndata")
    assert b"chunked" not in got


async def test_a_stream_that_fails_half_way_is_cut() -> None:
    async def handler(request: Request) -> None:
        writer = await request.stream()
        await writer.write(b"data")
        await checkpoint()
        raise RuntimeError("boom")

    assert not (await talk(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", handler)).endswith(b"0\r\n\r\n")


async def test_the_handler_of_a_stream_is_cancelled_when_the_client_leaves() -> None:
    left = anyio.Event()

    async def handler(request: Request) -> None:
        await request.stream()
        try:
            await anyio.sleep_forever()
        finally:
            left.set()

    async with served(handler) as browser:
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        while not browser.got:
            await checkpoint()
        browser.transport.close()
        with anyio.fail_after(5):
            await left.wait()


async def test_a_stream_without_a_task_learns_that_the_client_left() -> None:
    writers: list[BodyWriter] = []
    left = anyio.Event()

    def handler(request: Request) -> None:
        writers.append(request.open_stream(200, None, on_close=left.set))

    async with served(handler) as browser:
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        while not browser.got:
            await checkpoint()
        browser.transport.abort()
        with anyio.fail_after(5):
            await left.wait()
        with pytest.raises(ClosedByPeer):
            writers[0].write_nowait(b"x")


async def test_a_slow_reader_is_told_by_wouldblock_and_by_on_drain() -> None:
    writers: list[BodyWriter] = []
    drained = anyio.Event()

    def handler(request: Request) -> None:
        writers.append(request.open_stream(200, None, on_drain=drained.set))

    async with served(handler, stream_buffer_bytes=200_000) as browser:
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        while not browser.got:
            await checkpoint()
        browser.transport.pause_reading()
        with pytest.raises(WouldBlock):  # noqa: PT012 - which write is refused depends on the buffers
            for _ in range(100):
                writers[0].write_nowait(b"x" * 10_000)
        browser.transport.resume_reading()
        with anyio.fail_after(5):
            await drained.wait()
        writers[0].write_nowait(b"more")


async def test_a_client_that_never_reads_is_cut() -> None:
    async def handler(request: Request) -> None:
        writer = await request.stream()
        while True:
            await writer.write(b"x" * 100_000)

    async with served(handler, stall_timeout_s=0.02) as browser:
        browser.transport.pause_reading()
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with anyio.fail_after(5):
            await browser.ended.wait()


async def test_an_upgrade_hands_over_what_came_with_the_request() -> None:
    other = Browser()

    def handler(request: Request) -> None:
        request.upgrade(other, {"Upgrade": "SPDY/3.1"})

    async with served(handler) as browser:
        browser.transport.write(b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nearly")
        while other.got != b"early":
            await checkpoint()
        browser.transport.write(b" late")
        while other.got != b"early late":
            await checkpoint()
        other.transport.write(b"raw")
        while not browser.got.endswith(b"\r\n\r\nraw"):
            await checkpoint()
        assert browser.got.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


async def test_an_upgrade_that_is_declined_gets_its_answer() -> None:
    got = await talk(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\njunk", lambda _: Response(403)
    )
    assert got.startswith(b"HTTP/1.1 403 ")
    assert b"connection: close" in got


async def test_an_offer_of_http_2_is_ignored_body_included() -> None:
    got = await talk(
        b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
        b"Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    assert got.count(b"200 OK") == 2
    assert b"POST /a  abc" in got
    assert got.endswith(b"GET /b  ")


async def test_connect_is_refused() -> None:
    assert (await talk(b"CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n")).startswith(b"HTTP/1.1 405 ")


async def test_paths_and_queries_are_decoded() -> None:
    seen: list[Request] = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200)

    await talk(
        b"GET /api/v1/nodes/a%3Ab?x=1&x=%20&labelSelector=a%3Db&watch HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        handler,
    )
    assert seen[0].path == "/api/v1/nodes/a:b"
    assert seen[0].query == {"x": ["1", " "], "labelSelector": ["a=b"], "watch": [""]}


async def test_too_many_connections_are_refused() -> None:
    async with HttpServer(echo, Limits(connections=1)) as server:
        loop = asyncio.get_running_loop()
        first, second = Browser(), Browser()
        connect_pair(loop, "a", first, server.protocol_factory())
        connect_pair(loop, "b", second, server.protocol_factory())
        while not second.got:
            await checkpoint()
        assert second.got.startswith(b"HTTP/1.1 503 ")
        first.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        while not first.got:
            await checkpoint()
        assert first.got.startswith(b"HTTP/1.1 200 ")


async def test_a_half_closed_client_gets_its_answer() -> None:
    async def handler(request: Request) -> Response:
        await checkpoint()
        await checkpoint()
        return Response(200, None, b"still there")

    async with served(handler) as browser:
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        browser.transport.write_eof()
        with anyio.fail_after(5):
            await browser.ended.wait()
        assert browser.got.endswith(b"still there")


PIPELINE = (
    b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept:\tjson \r\n\r\n"
    b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n"
    b"PUT /q HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nDELETE /d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
)
BODIES = [b"GET /a b=c ", b"POST /p  abcdefg", b"PUT /q  hello", b"DELETE /d  "]


def bodies(got: bytes) -> list[bytes]:
    return [part.partition(b"\r\n\r\n")[2] for part in got.split(b"HTTP/1.1 200 OK\r\n")[1:]]


@pytest.fixture(params=["httptools", "h11"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a test with both parsers."""
    if request.param == "h11":
        module: ModuleType = http_connection
        for name in ("ParserError", "ParserUpgrade", "RequestParser"):
            monkeypatch.setattr(module, name, getattr(h11_parser, name))
    return request.param


async def _feed(pieces: list[bytes]) -> bytes:
    async with HttpServer(echo) as server:
        browser = Browser()
        connection = server.protocol_factory()
        assert isinstance(connection, http_connection.ServerConnection)
        connect_pair(asyncio.get_running_loop(), "test", browser, connection)
        for piece in pieces:
            connection.data_received(piece)
        with anyio.fail_after(5):
            await browser.ended.wait()
        return browser.got


async def test_requests_split_at_any_byte_are_the_same(parser: str) -> None:
    for at in range(1, len(PIPELINE)):
        assert bodies(await _feed([PIPELINE[:at], PIPELINE[at:]])) == BODIES


async def test_requests_byte_by_byte_are_the_same(parser: str) -> None:
    assert bodies(await _feed([PIPELINE[at : at + 1] for at in range(len(PIPELINE))])) == BODIES


@pytest.mark.parametrize("parser", ["httptools", "h11"], indirect=True)
async def test_offers_of_http_2_and_upgrades_with_either_parser(parser: str) -> None:
    await test_an_offer_of_http_2_is_ignored_body_included()
    await test_an_upgrade_hands_over_what_came_with_the_request()
    await test_what_is_not_http_is_answered_400_and_closed(b"GET\r\n\r\n")


@settings(max_examples=150, deadline=None)
@given(
    data=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\nHost: h\r\n",
                    b"Host: x\r\n",
                    b"Content-Length: 3\r\n",
                    b"\r\n",
                    b"abc",
                    b"Upgrade: websocket\r\n",
                    b"Connection: Upgrade\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"3\r\nabc\r\n",
                    b"0\r\n\r\n",
                    b"\n",
                ]
            ),
        ),
        max_size=12,
    )
)
def test_no_input_makes_the_connection_fail(data: list[bytes]) -> None:
    async def run() -> None:
        failures: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        async with served() as browser:
            for piece in data:
                browser.transport.write(piece)
                await checkpoint()
                await checkpoint()
        assert not failures

    anyio.run(run)


async def test_leaving_twice_leaves_no_task_and_no_connection() -> None:
    async def handler(request: Request) -> None:
        writer = await request.stream()
        await writer.write(b"x")
        await anyio.sleep_forever()

    before = asyncio.all_tasks()
    server = HttpServer(handler)
    for _ in range(2):
        async with server:
            browser = Browser()
            connect_pair(asyncio.get_running_loop(), "test", browser, server.protocol_factory())
            browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            while not browser.got:
                await checkpoint()
        with anyio.fail_after(5):
            await browser.ended.wait()
        assert server.connections == 0
        assert asyncio.all_tasks() == before


async def test_an_absolute_target_is_a_path_here() -> None:
    got = await talk(b"GET http://host:80/a/b?c=d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert got.endswith(b"GET /a/b c=d ")
