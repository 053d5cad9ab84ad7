"""A raw connection that one task reads and another writes.

    _, stream = await net.connect(ByteStream, "127.0.0.1:8080")
    await stream.send(b"..."); stream.end(); data = await stream.receive()      # b"" once the peer has ended its side

Units   Bytes.
Errors  ClosedByPeer once the connection has broken, and from `send` after its end.
State   What was received and not yet read, up to `UNREAD_BYTES`: above that the peer is not read from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from edgesite.net.errors import ClosedByPeer

__all__ = ["ByteStream"]

UNREAD_BYTES: Final = 256 * 1024


class ByteStream(asyncio.Protocol):
    """One connection. Make it through ``net.connect``."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._peer_ended = False
        self._error: ClosedByPeer | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._write_paused = False

    async def receive(self) -> bytes:
        """Return what has come, b"" once the peer has ended its side. Raises ClosedByPeer."""
        while not self._unread:
            if self._peer_ended:
                return b""
            if self._error is not None:
                raise self._error
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._unread.popleft() if len(self._unread) == 1 else b"".join(self._unread)
        self._unread.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def give_back(self, data: bytes) -> None:
        """Put what was received and not used in front of what comes next."""
        if data:
            self._unread.appendleft(data)
            self._size += len(data)

    async def send(self, data: bytes) -> None:
        """Send, then wait while the peer is behind; for one task at a time. Raises ClosedByPeer."""
        if self._transport is None or self._transport.is_closing():
            raise self._error or ClosedByPeer("the connection is closed")
        self._transport.write(data)
        while self._write_paused and self._error is None:
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None

    def end(self) -> None:
        """End our side; the peer may go on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    # Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._error = ClosedByPeer(f"the connection was closed{f': {exc}' if exc is not None else ''}")
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def eof_received(self) -> bool:
        self._peer_ended = True
        self._wake()
        return True

    def data_received(self, data: bytes) -> None:
        self._unread.append(data)
        self._size += len(data)
        if self._size > UNREAD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
