"""SPDY/3.1 over a raw transport: streams that tasks read and write, both as server and as client.

    connection = SpdyConnection(server=True, on_stream=take)         # then request.upgrade(connection, headers)
    connection = await connect(net, address, target, "v4.channel.k8s.io")
    stream = await connection.open({"streamtype": "stdin"})
    await stream.send(b"..."); stream.end(); data = await stream.receive()      # b"" once the peer has ended its side

Units   Bytes.
Errors  ClosedByPeer from a stream that the peer reset, or whose connection is over. A peer that breaks the rules is cut off.
State   What was received and not yet read, up to `UNREAD_BYTES` a stream: above that the connection is not read from, as with
        Kubernetes' own ends, which know no flow control of streams.
Source  `edgesite.wire.spdy`; apimachinery's httpstream (upgrade and protocol headers), Kubernetes v1.36.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.net.client import HttpClient
from edgesite.net.errors import ClosedByPeer, ProtocolError
from edgesite.wire import spdy
from edgesite.wire.spdy import ResetStatus, SpdyError

if TYPE_CHECKING:
    from edgesite.context import Net

__all__ = ["PROTOCOL_HEADER", "STREAMS", "UPGRADE", "SpdyConnection", "SpdyStream", "connect"]

UPGRADE: Final = "SPDY/3.1"
PROTOCOL_HEADER: Final = "X-Stream-Protocol-Version"
UNREAD_BYTES: Final = 256 * 1024
STREAMS: Final = 1024  #: open at once; each connection of a port-forward has two
GOODBYE_S: Final = 5.0  #: for the peer to take what was sent and to leave


class SpdyStream:
    """One stream. Made by `SpdyConnection`."""

    def __init__(self, connection: SpdyConnection, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._connection = connection
        self._unread: deque[bytes] = deque()
        self.unread_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self.replied: asyncio.Future[None] | None = None  # until the peer has taken a stream that we opened
        self._dropping = False
        self.peer_ended = False
        self.ended = False  # our side
        self._error: ClosedByPeer | None = None

    async def receive(self) -> bytes:
        """Return what has come, b"" once the peer has ended its side. Raises ClosedByPeer."""
        while not self._unread:
            if self.peer_ended:
                return b""
            if self._error is not None:
                raise self._error
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = self._unread.popleft() if len(self._unread) == 1 else b"".join(self._unread)
        self._unread.clear()
        self.unread_bytes = 0
        self._connection.adjust_reading()
        return data

    async def send(self, data: bytes) -> None:
        """Send, then wait while the peer is behind. Raises ClosedByPeer."""
        self._check()
        if data:
            self._connection.put(self._connection.encoder.data(self.number, data))
            await self._connection.drain()

    def end(self) -> None:
        """End our side; idempotent."""
        if not self.ended and self._error is None:
            self.ended = True
            self._connection.put(self._connection.encoder.data(self.number, b"", fin=True))
            self._connection.forget_ended(self)

    def reset(self, status: int = ResetStatus.CANCEL) -> None:
        """End both sides at once; idempotent."""
        if self._error is None and not (self.ended and self.peer_ended):
            self._connection.put([self._connection.encoder.reset(self.number, status)])
            self.fail(ClosedByPeer("the stream was reset"))
            self._connection.forget(self)

    def discard(self) -> None:
        """Drop what came and what comes: nobody will read it."""
        self._dropping = True
        self._unread.clear()
        self.unread_bytes = 0
        self._connection.adjust_reading()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self.ended:
            raise ClosedByPeer("our side of the stream has ended")

    # What the connection calls

    def take(self, data: bytes, *, fin: bool) -> None:
        if data and not self._dropping and not self.peer_ended:
            self._unread.append(data)
            self.unread_bytes += len(data)
        self.peer_ended = self.peer_ended or fin
        self._wake()

    def fail(self, error: ClosedByPeer) -> None:
        self._error = self._error or error
        if self.replied is not None and not self.replied.done():
            self.replied.set_exception(error)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class SpdyConnection(asyncio.Protocol):
    """One connection, after its upgrade."""

    def __init__(self, *, server: bool = False, on_stream: Callable[[SpdyStream], None] | None = None) -> None:
        """``on_stream`` is given each stream that the peer opens, already answered; without it they are refused."""
        self.encoder = spdy.Encoder()
        self._loop = asyncio.get_running_loop()
        self._decoder = spdy.Decoder()
        self._on_stream = on_stream
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, SpdyStream] = {}
        self._next = 2 if server else 1
        self._last_peer = 0
        self._paused = False
        self._write_paused = False
        self._writers: list[asyncio.Future[None]] = []
        self._over: ClosedByPeer | None = None
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        self._ended = anyio.Event()

    async def open(self, headers: Mapping[str, str]) -> SpdyStream:
        """Open a stream and wait until the peer has taken it; the caller sets the deadline. Raises ClosedByPeer."""
        if self._over is not None:
            raise self._over
        stream = self._streams[self._next] = SpdyStream(self, self._next, headers)
        self._next += 2
        stream.replied = self._loop.create_future()
        self.put([self.encoder.syn_stream(stream.number, headers)])
        await stream.replied
        return stream

    def close(self) -> None:
        """Say goodbye, let what was written leave, and close."""
        if self._closing or self._transport is None:
            return
        self.put([self.encoder.go_away(self._last_peer)])
        self._closing = True
        self._transport.close()
        self._timer = self._loop.call_later(GOODBYE_S, self.abort)

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_ended(self) -> None:
        """Wait until the connection is over."""
        await self._ended.wait()

    # What streams call

    def put(self, parts: list[bytes]) -> None:
        """Write; nothing once the connection is closing."""
        if self._transport is not None and not self._closing:
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    async def drain(self) -> None:
        """Wait while the peer is behind. Raises ClosedByPeer."""
        while self._write_paused and self._over is None:
            waiter = self._loop.create_future()
            self._writers.append(waiter)
            await waiter
        if self._over is not None:
            raise self._over

    def adjust_reading(self) -> None:
        """Read from the peer unless a stream has too much that nobody has read."""
        if self._transport is None:
            return
        full = any(one.unread_bytes > UNREAD_BYTES for one in self._streams.values())
        if full and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        elif self._paused and not full:
            self._paused = False
            self._transport.resume_reading()

    def forget(self, stream: SpdyStream) -> None:
        self._streams.pop(stream.number, None)
        self.adjust_reading()

    def forget_ended(self, stream: SpdyStream) -> None:
        """Forget a stream whose two sides have ended."""
        if stream.ended and stream.peer_ended:
            self.forget(stream)

    # Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._over = ClosedByPeer(f"the connection was closed{f': {exc}' if exc is not None else ''}")
        if self._timer is not None:
            self._timer.cancel()
        for stream in self._streams.values():
            stream.fail(self._over)
        self._streams.clear()
        self.resume_writing()
        self._ended.set()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        writers, self._writers = self._writers, []
        for waiter in writers:
            if not waiter.done():
                waiter.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._over is not None:
            return
        try:
            for frame in self._decoder.feed(data):
                self._take(frame)
        except SpdyError:
            self.put([self.encoder.go_away(self._last_peer, ResetStatus.PROTOCOL_ERROR)])
            self.abort()
            return
        self.adjust_reading()

    def _take(self, frame: spdy.Frame) -> None:
        if isinstance(frame, spdy.Data | spdy.SynReply | spdy.Headers):
            stream = self._streams.get(frame.stream)
            if stream is None:
                return  # it was reset, or has ended
            if isinstance(frame, spdy.SynReply) and stream.replied is not None and not stream.replied.done():
                stream.replied.set_result(None)
            stream.take(frame.data if isinstance(frame, spdy.Data) else b"", fin=frame.fin)
            self.forget_ended(stream)
        elif isinstance(frame, spdy.SynStream):
            self._take_new(frame)
        elif isinstance(frame, spdy.Reset):
            stream = self._streams.pop(frame.stream, None)
            if stream is not None:
                stream.fail(ClosedByPeer("the peer has reset the stream"))
        elif isinstance(frame, spdy.Ping) and frame.number % 2 != self._next % 2:  # else it answers one of ours
            self.put([self.encoder.ping(frame.number)])

    def _take_new(self, frame: spdy.SynStream) -> None:
        number = frame.stream
        if number % 2 == self._next % 2 or number <= self._last_peer:
            self.put([self.encoder.reset(number, ResetStatus.PROTOCOL_ERROR)])
            return
        self._last_peer = number
        if self._on_stream is None or self._closing or len(self._streams) >= STREAMS:
            self.put([self.encoder.reset(number, ResetStatus.REFUSED_STREAM)])
            return
        stream = self._streams[number] = SpdyStream(self, number, frame.headers)
        self.put([self.encoder.syn_reply(number)])
        stream.take(b"", fin=frame.fin)
        self._on_stream(stream)


async def connect(net: Net, address: str, target: str, protocol: str, *, method: str = "POST") -> SpdyConnection:
    """Ask a server for SPDY with one stream protocol. The caller sets the deadline. Raises OSError, UpgradeRefused."""
    headers = {"Upgrade": UPGRADE, PROTOCOL_HEADER: protocol}
    async with HttpClient(net, address) as client:
        _, connection, answered = await client.connect_upgrade(target, headers, SpdyConnection, method=method)
    if answered.get(PROTOCOL_HEADER) != protocol:
        connection.abort()
        raise ProtocolError(f"the server does not speak {protocol}")
    return connection
