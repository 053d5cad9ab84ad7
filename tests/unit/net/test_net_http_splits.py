"""The HTTP server's connection: the same requests however their bytes arrive, with either parser; and any bytes at all."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from net_browser import Browser, echo, served, talk

from edgesite.net import h11_parser, http_connection, http_intake
from edgesite.net.http import HttpServer, Response
from edgesite.net.mem import connect_pair

pytestmark = pytest.mark.anyio


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
        module: ModuleType = http_intake
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
    got = await talk(
        b"POST /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
        b"GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    assert bodies(got) == [b"POST /a  abc", b"GET /b  "]
    got = await talk(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\njunk", lambda _: Response(403)
    )
    assert got.startswith(b"HTTP/1.1 403 ")
    assert (await talk(b"GET\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


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
