"""One HTTP/1.1 connection of a client: a request out, its answer in, one after the other.

Units   Bytes.
Errors  ClosedByPeer when the connection breaks, ProtocolError when the answer is not HTTP or too long.
State   At most one exchange; `reusable` once its answer is complete.
Source  RFC 9112: message body length 6.3, interim answers RFC 9110 section 15.2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from edgesite.net.errors import ClosedByPeer, ProtocolError
from edgesite.net.headers import Headers
from edgesite.net.http_parser import ParserError, ParserUpgrade, ResponseParser

__all__ = ["ClientConnection"]

_HEADER_BYTES: Final = 256 * 1024
_BUFFER_BYTES: Final = 256 * 1024  #: of an answer's body that nobody has read yet; above it the peer is not read from


class ClientConnection(asyncio.Protocol):
    """Drives the parser and the transport of one connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.reused = False  #: it has carried an exchange before
        self.idle_since = 0.0
        self._parser: ResponseParser | None = None
        self._upgraded: asyncio.Protocol | None = None
        self._write_paused = False
        self._writer: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._reset(head_only=False)

    def _reset(self, *, head_only: bool) -> None:
        self._head_only = head_only  # the answer to HEAD has no body, whatever its headers say
        self.status = 0
        self.headers = Headers([])
        self._lines: list[tuple[bytes, bytes]] = []
        self._size = 0
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._complete = False
        self._keep = False
        self._got_bytes = False
        self._until_eof = False
        self._tail = b""
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    @property
    def untouched(self) -> bool:
        """Whether the peer has sent nothing of an answer yet."""
        return not self._got_bytes

    @property
    def reusable(self) -> bool:
        return (
            self._complete
            and self._keep
            and not self._head_only
            and not self._reading_paused
            and self.transport is not None
            and not self.transport.is_closing()
        )

    # Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._parser = ResponseParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._parser = None
        self._end_of_input(exc)
        self.resume_writing()

    def eof_received(self) -> bool:
        self._end_of_input(None)
        return False

    def _end_of_input(self, exc: Exception | None) -> None:
        if self._until_eof and exc is None and self.status:
            self._complete = True
        if not self._complete and self._error is None:
            self._error = ClosedByPeer(f"the connection was closed before the answer was complete{_because(exc)}")
        self._wake()

    def data_received(self, data: bytes) -> None:
        if self._upgraded is not None:
            self._upgraded.data_received(data)
            return
        if self.status == 101 and self.transport is not None:  # what follows an upgrade waits for its new owner
            self._tail += data
            self.transport.pause_reading()
            self._reading_paused = True
            return
        if self._complete or self._error is not None or self._parser is None:
            self.abort()  # nothing was asked for
            return
        self._got_bytes = True
        try:
            self._parser.feed_data(data)
        except ParserUpgrade as exc:
            self._tail = data[exc.args[0] :]
        except ParserError as exc:
            if not self._complete:
                self._fail(ProtocolError(f"malformed HTTP answer: {exc}"))
            self._keep = False
        if not self.status:
            self._size += len(data)
            if self._size > _HEADER_BYTES:
                self._fail(ProtocolError("the answer's headers are too long"))

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()
        self.abort()

    def _wake(self) -> None:
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self._lines = []
            return
        self.status = status
        self.headers = headers = Headers(self._lines)
        self._keep = self._parser.should_keep_alive()
        self._until_eof = (
            "content-length" not in headers
            and not headers.has_token("transfer-encoding", "chunked")
            and status not in (101, 204, 304)
        )
        if self._head_only:
            self._complete = True
        self._wake()

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > _BUFFER_BYTES and not self._reading_paused and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True
            self._wake()

    # What the client calls

    def expect(self, *, head_only: bool) -> None:
        """Begin an exchange whose request went another way, as over a tunnel."""
        self._reset(head_only=head_only)

    async def send(self, head: bytes, body: bytes, *, head_only: bool) -> None:
        """Begin an exchange. Raises ClosedByPeer."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ClosedByPeer("the connection is closed")
        self._reset(head_only=head_only)
        if len(body) < 65_536:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        while self._write_paused and not self._complete and self._error is None:
            self._writer = self._loop.create_future()
            await self._writer

    async def receive_head(self) -> None:
        """Wait for status and headers. Raises ClosedByPeer, ProtocolError."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._more()

    async def receive(self) -> bytes:
        """Return what has come of the body, b"" at its end. Raises ClosedByPeer, ProtocolError."""
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._more()
        data = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._reading_paused and self.transport is not None:
            self._reading_paused = False
            self.transport.resume_reading()
        return data

    async def _more(self) -> None:
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Give the connection, upgraded, to another protocol. Raises ClosedByPeer."""
        transport = self.transport
        if transport is None:
            raise ClosedByPeer("the connection is closed")
        self._upgraded = protocol
        self.transport = None
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._reading_paused:
            transport.resume_reading()
        tail, self._tail = self._tail, b""
        if tail:
            protocol.data_received(tail)
        return transport


def _because(exc: Exception | None) -> str:
    return f": {exc}" if exc is not None else ""
