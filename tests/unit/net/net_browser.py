"""A browser on an in-process transport, for the tests of the HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from edgesite.net.http import HttpServer, Limits, Request, Response
from edgesite.net.mem import MemTransport, connect_pair

__all__ = ["Browser", "echo", "served", "settle", "talk"]


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
