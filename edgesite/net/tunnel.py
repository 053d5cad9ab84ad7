"""Streams of a tunnel as asyncio transports: either end runs a protocol on a stream as on a socket.

    tunnel = Tunnel(socket, window=True, on_connect=serve)        # both ends; `serve` only at the edge
    stream = tunnel.open(protocol, FrameType.EXEC, Connect("/healthz"))

Flow control: what a stream may send is bounded by its window if the peer has windows, and by what the WebSocket takes. A
protocol that pauses reading makes its peer's end wait. With a peer that has no windows (KubeEdge's) a stream whose reader
falls more than `_UNREAD_BYTES` behind is ended, so that it cannot hold up the others.

Units   Bytes.
Errors  A stream's protocol gets ClosedByPeer or ProtocolError in ``connection_lost`` if it did not end by itself.
State   Streams by id; all end with the tunnel.
Source  `edgesite.wire.tunnel`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from edgesite.net.errors import ClosedByPeer, ProtocolError
from edgesite.net.websocket import Message, SocketClosed, WebSocket
from edgesite.wire import tunnel as wire
from edgesite.wire.tunnel import Connect, Frame, FrameType, InvalidFrame

__all__ = ["Tunnel", "TunnelStream"]

_HIGH_BYTES: Final = 64 * 1024  #: unsent data of one stream from which its writer is asked to pause
_SOCKET_HIGH_BYTES: Final = 256 * 1024  #: of all streams, in the WebSocket
_UNREAD_BYTES: Final = 4 * 1024 * 1024
_CONNECTS: Final = frozenset({FrameType.LOGS, FrameType.EXEC, FrameType.METRICS, FrameType.ATTACH})


class TunnelStream(asyncio.Transport):
    """One stream."""

    def __init__(self, tunnel: Tunnel, number: int, protocol: asyncio.BaseProtocol) -> None:
        super().__init__({"peername": f"tunnel:{number}"})
        self.number = number
        self._tunnel = tunnel
        self._protocol: asyncio.Protocol = protocol  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._credit = wire.WINDOW_BYTES if tunnel.window else -1  # -1: unlimited
        self._writer_paused = False
        self._unread: deque[bytes] = deque()
        self._unread_size = 0
        self._taken = 0  # delivered since the last grant
        self._reading = True
        self._closing = False
        self._peer_done = False
        self._lost = False

    # What the protocol calls

    def write(self, data: Any) -> None:
        if self._closing or not data:
            return
        self._unsent.append(bytes(data))
        self._unsent_size += len(data)
        self.pump()
        if not self._writer_paused and self._unsent_size > _HIGH_BYTES:
            self._writer_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """End the stream once what was written is sent."""
        if not self._closing:
            self._closing = True
            self.pump()

    def abort(self) -> None:
        self._unsent.clear()
        self._unsent_size = 0
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._deliver)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol  # type: ignore[assignment]

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self._unsent_size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The limits are the tunnel's."""

    # What the tunnel calls

    def pump(self) -> None:
        """Send what window and socket allow."""
        tunnel = self._tunnel
        while self._unsent and self._credit != 0 and not tunnel.stalled:
            data = self._unsent.popleft()
            most = wire.DATA_BYTES if self._credit < 0 else min(wire.DATA_BYTES, self._credit)
            if len(data) > most:
                self._unsent.appendleft(data[most:])
                data = data[:most]
            self._unsent_size -= len(data)
            if self._credit > 0:
                self._credit -= len(data)
            tunnel.send(self.number, FrameType.DATA, data)
        if self._writer_paused and self._unsent_size <= _HIGH_BYTES // 4 and not self._closing:
            self._writer_paused = False
            self._protocol.resume_writing()
        if self._closing and not self._unsent and not self._lost:
            self._lose(None)

    def grant(self, size: int) -> None:
        """The peer takes more."""
        if self._credit >= 0:
            self._credit += size
            self.pump()

    def receive(self, data: bytes) -> None:
        """Data came for the protocol."""
        if self._closing or self._lost:
            self._take(len(data))
            return
        self._unread.append(data)
        self._unread_size += len(data)
        if self._unread_size > (2 * wire.WINDOW_BYTES if self._tunnel.window else _UNREAD_BYTES):
            self.fail(ProtocolError("the reader of this stream is too slow"))
            return
        self._deliver()

    def end(self) -> None:
        """The peer has ended the stream."""
        self._peer_done = True
        self._deliver()

    def fail(self, error: Exception) -> None:
        """End the stream with an error."""
        if not self._lost:
            self._closing = True
            self._unsent.clear()
            self._unread.clear()
            self._unsent_size = self._unread_size = 0
            self._lose(error)

    def _deliver(self) -> None:
        while self._unread and self._reading and not self._closing:
            data = self._unread.popleft()
            self._unread_size -= len(data)
            self._take(len(data))
            self._protocol.data_received(data)
        if self._peer_done and (not self._unread or self._closing) and not self._lost:
            if not self._closing:
                self._protocol.eof_received()
            self._closing = True
            self._unsent.clear()
            self._unsent_size = 0
            self._lose(None)

    def _take(self, size: int) -> None:
        if self._tunnel.window:
            self._taken += size
            if self._taken >= wire.WINDOW_BYTES // 2 and not self._lost and not self._peer_done:
                self._tunnel.send(self.number, FrameType.GRANT, wire.uvarint(self._taken))
                self._taken = 0

    def _lose(self, error: Exception | None) -> None:
        self._lost = True
        self._tunnel.forget(self, tell=not self._peer_done or self._tunnel.answers_removal)
        self._loop.call_soon(self._protocol.connection_lost, error)


class Tunnel:
    """The streams of one WebSocket. It takes over the socket's callbacks."""

    def __init__(
        self,
        socket: WebSocket,
        *,
        window: bool,
        on_connect: Callable[[Tunnel, int, FrameType, Connect], None] | None = None,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        """``on_connect`` (at the edge) answers a request by `accept` or `refuse`; ``on_end`` is told why the tunnel ended."""
        self.window = window
        self.answers_removal = on_connect is not None  #: the edge answers type 4 with type 4, the cloud does not
        self._socket = socket
        self._on_connect = on_connect
        self._on_end = on_end
        self._streams: dict[int, TunnelStream] = {}
        self._ended: str | None = None
        socket.on_close = self._on_close
        socket.on_drain = self._on_drain
        socket.deliver_to(self._on_message)
        if socket.closed is not None:
            self._on_close(socket.closed)

    @property
    def ended(self) -> str | None:
        """Why the tunnel is over, or None."""
        return self._ended

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    @property
    def stalled(self) -> bool:
        """Whether the WebSocket takes nothing more for now."""
        return self._socket.buffered_bytes > _SOCKET_HIGH_BYTES

    def open(self, number: int, protocol: asyncio.BaseProtocol, kind: FrameType, connect: Connect) -> TunnelStream:
        """Open a stream; ``protocol.connection_made`` has been called on return. Raises ClosedByPeer."""
        if self._ended is not None:
            raise ClosedByPeer(self._ended)
        stream = self._streams[number] = TunnelStream(self, number, protocol)
        self.send(number, kind, connect.encode(number))
        protocol.connection_made(stream)
        return stream

    def accept(self, number: int, protocol: asyncio.BaseProtocol) -> TunnelStream:
        """Serve a stream that the cloud has opened."""
        stream = self._streams[number] = TunnelStream(self, number, protocol)
        protocol.connection_made(stream)
        return stream

    def refuse(self, number: int) -> None:
        """Do not serve a stream."""
        self.send(number, FrameType.REMOVE)

    def send(self, number: int, kind: int, data: bytes = b"") -> None:
        """Send a frame; nothing once the socket is closed."""
        if self._socket.is_open:
            self._socket.send_nowait(wire.encode(number, kind, data), text=True)

    def forget(self, stream: TunnelStream, *, tell: bool) -> None:
        """A stream is over."""
        if self._streams.get(stream.number) is stream:
            del self._streams[stream.number]
            if tell and self._ended is None:  # else it ends with the tunnel, which is no ordinary end
                self.send(stream.number, FrameType.REMOVE)

    def close(self, reason: str) -> None:
        """End the tunnel and its streams."""
        self._end(reason)
        self._socket.close_nowait(1000, reason[:120])

    def _on_message(self, message: Message) -> None:
        if not message.text:
            self._break("a tunnel message is not text")
            return
        try:
            self._on_frame(wire.decode(message.data))
        except InvalidFrame as exc:
            self._break(str(exc))

    def _on_frame(self, frame: Frame) -> None:
        """Raises InvalidFrame."""
        stream = self._streams.get(frame.stream)
        if frame.type == FrameType.DATA:
            if stream is not None:
                stream.receive(frame.data)
        elif frame.type == FrameType.REMOVE:
            if stream is not None:
                stream.end()
        elif frame.type == FrameType.GRANT:
            if stream is not None:
                stream.grant(wire.read_uvarint(frame.data)[0])
        elif self._on_connect is None:
            return  # only the cloud opens streams and closes tunnels
        elif frame.type == FrameType.CLOSE:
            self.close(frame.data.decode("utf-8", "replace") or "the cloud closed the tunnel")
        elif frame.type in _CONNECTS and stream is None:
            try:
                connect = Connect.decode(frame.data)
            except InvalidFrame:
                self.refuse(frame.stream)
                return
            self._on_connect(self, frame.stream, FrameType(frame.type), connect)

    def _break(self, reason: str) -> None:
        self._end(reason)
        self._socket.close_nowait(1003, reason[:120])

    def _on_drain(self) -> None:
        for stream in tuple(self._streams.values()):
            stream.pump()

    def _on_close(self, closed: SocketClosed) -> None:
        self._end(closed.reason or f"the tunnel's connection ended ({closed.code})")

    def _end(self, reason: str) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        for stream in tuple(self._streams.values()):
            stream.fail(ClosedByPeer(reason))
        self._streams.clear()
        if self._on_end is not None:
            self._on_end(reason)
