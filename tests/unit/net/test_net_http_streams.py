"""The HTTP server's connection: streamed answers, upgrades, and leaving."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio.lowlevel import checkpoint
from net_browser import Browser, served, settle, talk

from edgesite.net.http import BodyWriter, ClosedByPeer, Frame, HttpServer, Request, Response, WouldBlock
from edgesite.net.mem import connect_pair

pytestmark = pytest.mark.anyio


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


async def test_a_client_that_reads_slowly_is_not_cut() -> None:
    body = b"x" * 3_000_000
    async with served(lambda _: Response(200, None, body), stall_timeout_s=0.05) as browser:
        browser.transport.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        with anyio.fail_after(10):
            while True:
                browser.transport.resume_reading()
                await checkpoint()
                await checkpoint()
                browser.transport.pause_reading()
                if len(browser.got) >= len(body):
                    break
                with anyio.move_on_after(0.02):
                    await browser.ended.wait()
        assert not browser.ended.is_set()
        browser.transport.resume_reading()
        await settle()
        assert len(browser.got) > len(body)


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
