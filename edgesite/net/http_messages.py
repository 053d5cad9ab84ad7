"""What an HTTP handler gets and gives: Request, Response, BodyWriter, and the limits of a server.

Units   Sizes are ``*_bytes``, times ``*_s`` seconds.
Errors  ClosedByPeer and WouldBlock from BodyWriter; nothing else leaves.
State   A request belongs to its connection; its writer is closed when the client leaves.
Source  RFC 9110, RFC 9112 (chunked coding in section 7.1, upgrade in RFC 9110 section 7.8).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from edgesite.net.errors import ClosedByPeer, WouldBlock
from edgesite.net.headers import HeaderBlock, Headers

if TYPE_CHECKING:
    from edgesite.net.http_connection import ServerConnection

__all__ = ["BodyWriter", "Frame", "Handler", "Limits", "PeerInfo", "Request", "Response"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server. A client beyond them is answered (400, 408, 413, 431, 503) or cut off."""

    header_bytes: int = 64 * 1024  #: request line and headers; bearer tokens are the largest part of them
    body_bytes: int = 3 * 1024 * 1024  #: of one request, as kube-apiserver
    connections: int = 20_000  #: open at once; above it new ones are refused with 503
    makes_room: bool = False  #: whether above that the oldest connection at rest is cut in favour of the new one
    pipelined: int = 256  #: requests that may wait on one connection
    head_timeout_s: float = 15.0  #: from the first byte of a request to the end of its headers
    body_timeout_s: float = 60.0  #: without a byte of an expected body
    idle_timeout_s: float = 120.0  #: between requests of one connection
    stall_timeout_s: float = 60.0  #: a client that reads nothing of what waits for it
    stream_buffer_bytes: int = 1024 * 1024  #: above it `BodyWriter.write_nowait` raises WouldBlock
    gzip_bytes: int = (
        128 * 1024
    )  #: bodies from this size on are compressed for clients that accept it, as kube-apiserver
    gzip_loopback: bool = False  #: whether also for clients on this machine, where it costs more than it saves


class PeerInfo:
    """Who is at the other end. Names come from a verified client certificate only, parsed once per connection."""

    __slots__ = ("_names", "_transport", "address", "in_process")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._names: tuple[str, tuple[str, ...]] | None = None
        peer = transport.get_extra_info("peername")
        self.address: str = peer[0] if isinstance(peer, tuple) else str(peer or "")  #: IP address, "" for unix sockets
        self.in_process: bool = bool(transport.get_extra_info("in_process"))  #: over ``mem:``

    def _subject(self) -> tuple[str, tuple[str, ...]]:
        if self._names is None:
            common, organizations = "", []
            certificate = self._transport.get_extra_info("peercert") or {}
            for rdn in certificate.get("subject", ()):
                for name, value in rdn:
                    if name == "commonName":
                        common = value
                    elif name == "organizationName":
                        organizations.append(value)
            self._names = (common, tuple(organizations))
        return self._names

    @property
    def common_name(self) -> str:
        """CN of the client certificate, "" without one."""
        return self._subject()[0]

    @property
    def organizations(self) -> tuple[str, ...]:
        """O values of the client certificate."""
        return self._subject()[1]

    @property
    def certificate_der(self) -> bytes | None:
        """The verified client certificate."""
        tls = self._transport.get_extra_info("ssl_object")
        return tls.getpeercert(True) if tls is not None and self._transport.get_extra_info("peercert") else None


class Response:
    """A whole answer. ``headers``: a mapping, or ready lines; content-length, connection and date are added."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 200, headers: HeaderBlock | None = None, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


#: Answers a request. None: it streamed or upgraded (or still does, through the writer). A Response that needs no await costs no task.
Handler = Callable[["Request"], Response | Awaitable[Response | None] | None]


class Request:
    """One received request, body included."""

    __slots__ = (
        "_query",
        "body",
        "chunked_ok",
        "connection",
        "headers",
        "keep_alive",
        "method",
        "path",
        "peer",
        "raw_query",
        "target",
    )

    def __init__(
        self,
        connection: ServerConnection | None,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        peer: PeerInfo,
        keep_alive: bool = True,
        chunked_ok: bool = True,
    ) -> None:
        self.connection = connection  #: None for a request made in-process, which cannot be streamed or upgraded
        self._query: dict[str, list[str]] | None = None
        self.method = method
        self.target = target  #: as received, path and query
        path, _, self.raw_query = target.partition("?")
        if path[:1] != "/" and "://" in path:  # absolute form, which servers must accept: RFC 9112 section 3.2.2
            path = "/" + path.partition("://")[2].partition("/")[2]
        self.path = unquote(path) if "%" in path else path  #: decoded
        self.headers = headers
        self.body = body
        self.peer = peer
        self.keep_alive = keep_alive
        self.chunked_ok = chunked_ok  #: False for HTTP/1.0

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's parameters, decoded; empty values are kept."""
        if self._query is None:
            self._query = parse_qs(self.raw_query, keep_blank_values=True) if self.raw_query else {}
        return self._query

    async def stream(self, status: int = 200, headers: HeaderBlock | None = None) -> BodyWriter:
        """Begin a streamed answer. If the client leaves, the task of the handler is cancelled. Raises ClosedByPeer."""
        writer = self.open_stream(status, headers)
        await writer.drain()
        return writer

    def open_stream(
        self,
        status: int = 200,
        headers: HeaderBlock | None = None,
        *,
        on_close: Callable[[], None] | None = None,
        on_drain: Callable[[], None] | None = None,
    ) -> BodyWriter:
        """Begin a streamed answer without a task: ``on_close`` is called when the client leaves first, ``on_drain`` when a
        slow client has room again. The handler may return None at once and go on with the writer. Raises ClosedByPeer."""
        return self._live().open_stream(self, status, headers, on_close, on_drain)

    def upgrade(
        self, protocol: asyncio.Protocol, headers: HeaderBlock | None = None, status: int = 101
    ) -> asyncio.Transport:
        """Answer 101 and hand the connection to ``protocol``, whose ``connection_made`` is called before this returns;
        what the client has sent already follows at once. Its ``abort()``, if it has one, is called when the server ends. Raises ClosedByPeer."""
        return self._live().upgrade(self, protocol, headers, status)

    def _live(self) -> ServerConnection:
        if self.connection is None:
            raise ClosedByPeer("this request has no connection")
        return self.connection

    def __repr__(self) -> str:
        return f"Request({self.method} {self.path})"


class Frame:
    """A piece of a streamed body with its chunk framing made once, to be written to many clients."""

    __slots__ = ("chunk", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.chunk = b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""  # an empty chunk would end the body


class BodyWriter:
    """The body of a streamed answer."""

    __slots__ = ("_chunked", "_connection", "_empty", "closed", "on_close", "on_drain", "outlives")

    def __init__(
        self,
        connection: ServerConnection,
        *,
        chunked: bool,
        empty: bool,
        on_close: Callable[[], None] | None,
        on_drain: Callable[[], None] | None,
    ) -> None:
        self._connection = connection
        self._chunked = chunked
        self._empty = empty  # answer to HEAD
        self.closed = False  #: ended by us or by the client
        self.outlives = False  #: whether it stays open when the task of its handler has ended
        self.on_close = on_close
        self.on_drain = on_drain

    def write_nowait(self, data: bytes | Frame) -> None:
        """Send a piece without waiting. Raises ClosedByPeer; WouldBlock if the client is too far behind: then nothing was sent."""
        connection = self._connection
        if self.closed or connection.is_closing():
            raise ClosedByPeer("the client left")
        if connection.write_paused and connection.buffered_bytes() > connection.limits.stream_buffer_bytes:
            raise WouldBlock("the client reads too slowly")
        self._put(data)

    async def write(self, data: bytes | Frame) -> None:
        """Send a piece and wait until the client has taken most of what waits. Raises ClosedByPeer."""
        if self.closed or self._connection.is_closing():
            raise ClosedByPeer("the client left")
        self._put(data)
        await self.drain()

    async def drain(self) -> None:
        """Wait until there is room. Raises ClosedByPeer."""
        if self._connection.write_paused:
            await self._connection.drained()
        if self.closed:
            raise ClosedByPeer("the client left")

    def close(self) -> None:
        """End the body; the connection goes on with its next request. Idempotent."""
        if not self.closed:
            self.closed = True
            self._connection.end_stream(b"0\r\n\r\n" if self._chunked and not self._empty else b"")

    def abort(self) -> None:
        """Cut the connection, so that the client sees an incomplete body."""
        self._connection.abort()

    def lost(self) -> None:
        """Called by the connection when the client leaves."""
        if not self.closed:
            self.closed = True
            if self.on_close is not None:
                self.on_close()

    def _put(self, data: bytes | Frame) -> None:
        if self._empty:
            return
        if not self._chunked:
            self._connection.put(data.payload if isinstance(data, Frame) else data)
        elif isinstance(data, Frame):
            self._connection.put(data.chunk)
        elif data:  # an empty chunk would end the body
            self._connection.put(b"%x\r\n%b\r\n" % (len(data), data))
