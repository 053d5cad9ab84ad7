"""HTTP/1.1 server on a raw transport: ``HttpServer(handler)`` makes the protocols that ``ctx.net.listen`` drives.

    async with HttpServer(handler, clock=ctx.clock, threads=ctx.threads, log=ctx.log) as server:
        await server.listen(ctx.net, "127.0.0.1:8080")
        ctx.ready()
        await anyio.sleep_forever()

Units   See `Limits`.
Errors  A handler's exception is logged and answered by ``on_failure``; a peer's fault is answered by ``on_reject``.
State   The tasks of the handlers and the open connections; leaving the block ends all of them.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.abc

from edgesite.net.errors import ClosedByPeer, NetError, ProtocolError, WouldBlock
from edgesite.net.headers import HeaderBlock, Headers
from edgesite.net.http_connection import ServerConnection
from edgesite.net.http_messages import BodyWriter, Frame, Handler, Limits, PeerInfo, Request, Response

if TYPE_CHECKING:
    import ssl

    from anyio import TaskHandle

    from edgesite.context import Clock, Listener, Net, Threads

__all__ = [
    "BodyWriter",
    "ClosedByPeer",
    "Frame",
    "Handler",
    "HeaderBlock",
    "Headers",
    "HttpServer",
    "Limits",
    "NetError",
    "PeerInfo",
    "ProtocolError",
    "Request",
    "Response",
    "WouldBlock",
]

logger = logging.getLogger(__name__)
_TEXT: Final = b"content-type: text/plain; charset=utf-8\r\n"
_GOODBYE_S: Final = 1.0  #: how long closing connections may take to flush


class HttpServer:
    """Serves one handler on any number of addresses while its ``async with`` block is open."""

    def __init__(
        self,
        handler: Handler,
        limits: Limits = Limits(),
        *,
        clock: Clock | None = None,
        threads: Threads | None = None,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger] = logger,
        on_reject: Callable[[int, str], Response] | None = None,
        on_failure: Callable[[Request, Exception], Response] | None = None,
    ) -> None:
        """``clock`` adds Date headers, ``threads`` compresses off the loop. ``on_reject(status, message)`` makes the answer to a
        broken or excessive request, ``on_failure(request, error)`` the one to a handler's exception."""
        self.handler = handler
        self.limits = limits
        self.threads = threads
        self.closing = False
        self._clock = clock
        self._log = log
        self._on_reject = on_reject
        self._on_failure = on_failure
        self._date = (0, b"")
        # Dicts, not sets: connections end in the order in which they came, the same in every run of a simulation.
        self._connections: dict[ServerConnection, None] = {}
        self._upgraded: weakref.WeakKeyDictionary[asyncio.Protocol, None] = weakref.WeakKeyDictionary()
        self._listeners: list[Listener] = []
        self._tasks: anyio.abc.TaskGroup | None = None
        self._empty: asyncio.Event | None = None

    @property
    def connections(self) -> int:
        """How many connections are open, upgraded ones not counted."""
        return len(self._connections)

    async def __aenter__(self) -> HttpServer:
        self.closing = False
        self._empty = asyncio.Event()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None
        self.closing = True
        try:
            with anyio.move_on_after(_GOODBYE_S * 2, shield=True):
                await self._shut()
        finally:
            self._tasks.cancel_scope.cancel()
            for connection in tuple(self._connections):
                connection.abort()
            for protocol in tuple(self._upgraded):
                if (abort := getattr(protocol, "abort", None)) is not None:
                    abort()
        return await self._tasks.__aexit__(kind, error, trace)

    async def drain(self, within_s: float) -> None:
        """Take nothing new, and let what is being answered come to its end for so long; upgraded connections are left alone. To be
        called before the block is left; streams that have no end are the caller's to close. Idempotent."""
        assert self._empty is not None
        self.closing = True
        await self._stop_listening()
        for connection in tuple(self._connections):
            if not connection.busy:
                connection.close()
        self._empty.clear()
        if self._connections:
            with anyio.move_on_after(within_s):
                await self._empty.wait()

    async def _stop_listening(self) -> None:
        for listener in self._listeners:
            await listener.close()
        self._listeners.clear()

    async def _shut(self) -> None:
        """Stop listening, end what runs, and let what was written leave."""
        assert self._tasks is not None
        assert self._empty is not None
        await self._stop_listening()
        self._tasks.cancel_scope.cancel()
        for connection in tuple(self._connections):
            connection.close()
        self._empty.clear()
        if self._connections:
            with anyio.move_on_after(_GOODBYE_S):
                await self._empty.wait()

    def protocol_factory(self) -> asyncio.BaseProtocol:
        """Make the protocol of one connection, for ``net.listen``."""
        return ServerConnection(self)

    async def listen(self, net: Net, address: str, *, tls: ssl.SSLContext | None = None) -> Listener:
        """Serve on ``address`` until the block ends. Raises OSError."""
        listener = await net.listen(self.protocol_factory, address, tls=tls)
        self._listeners.append(listener)
        return listener

    # What the connections call

    def admit(self, connection: ServerConnection) -> bool:
        """Count a new connection in; False if there are too many."""
        self._connections[connection] = None
        has_room = len(self._connections) <= self.limits.connections
        if not has_room and self.limits.makes_room:
            at_rest = next((one for one in self._connections if not one.busy and one is not connection), None)
            if at_rest is not None:
                del self._connections[at_rest]
                at_rest.abort()
                has_room = True
        return has_room and not self.closing

    def forget(self, connection: ServerConnection) -> None:
        """A connection ended."""
        self._connections.pop(connection, None)
        if not self._connections and self._empty is not None:
            self._empty.set()

    def hand_over(self, connection: ServerConnection, protocol: asyncio.Protocol) -> None:
        """A connection was upgraded: its new protocol owns it, until the server ends."""
        self._upgraded[protocol] = None
        self.forget(connection)

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> TaskHandle[None, None]:
        """Run a handler's task."""
        assert self._tasks is not None, "the server serves only within its async with block"
        return self._tasks.start_soon(function, *args)

    def date_line(self) -> bytes:
        """The Date header, made once a second; empty without a clock."""
        if self._clock is None:
            return b""
        now = int(self._clock.time())
        if self._date[0] != now:
            self._date = (now, f"date: {formatdate(now, usegmt=True)}\r\n".encode("ascii"))
        return self._date[1]

    def reject(self, status: int, message: str) -> Response:
        """Make the answer to a request that breaks HTTP's rules or our limits."""
        if self._on_reject is not None:
            try:
                return self._on_reject(status, message)
            except Exception:
                self._log.exception("cannot word a refusal")
        return Response(status, _TEXT, message.encode() + b"\n")

    def failed(self, request: Request, error: Exception) -> Response:
        """Make the answer to a request whose handler raised."""
        if isinstance(error, ClosedByPeer):
            return Response(499 if request.chunked_ok else 500, _TEXT, b"")  # nobody is there to read it
        if self._on_failure is not None:
            try:
                return self._on_failure(request, error)
            except Exception:
                self._log.exception("cannot word a failure")
        self._log.error("%s %s failed", request.method, request.path, exc_info=error)
        return Response(500, _TEXT, b"internal error\n")
