"""The HTTP server's connection: answers, limits, timeouts, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from net_browser import Browser, echo, served, settle, talk

from edgesite.net.http import HttpServer, Limits, Request, Response
from edgesite.net.mem import connect_pair

pytestmark = pytest.mark.anyio


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


async def test_an_absolute_target_is_a_path_here() -> None:
    got = await talk(b"GET http://host:80/a/b?c=d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert got.endswith(b"GET /a/b c=d ")
