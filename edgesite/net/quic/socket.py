"""`QuicSocket`: messages over one QUIC connection, driven by callbacks, without a task per connection.

It has the members of `edgesite.net.websocket.WebSocket` that the link uses, and lanes: what is sent on lane 0 does not wait for
what is sent on lane 1. `is_behind` tells whether the peer has not taken most of what was sent on a lane.

Units   Bytes, seconds of the event loop's clock.
Errors  SocketClosed from send and recv once the connection is over.
State   Received messages wait up to ``WINDOW_BYTES``; then the peer may send no more. What is sent waits until it is confirmed;
        who sends looks at `is_behind`.
Source  RFC 9000 sections 4, 8 and 10.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)

from edgesite.net.errors import ProtocolError
from edgesite.net.quic.core import BAD_CERTIFICATE, Connection, PeerRefused
from edgesite.net.quic.framing import Reader, encode
from edgesite.net.websocket import Message, SocketClosed

if TYPE_CHECKING:
    from aioquic.quic.connection import NetworkAddress

__all__ = ["LANES", "WINDOW_BYTES", "QuicClosed", "QuicSocket"]

LANES: Final = 2
WINDOW_BYTES: Final = 1 << 20
HELLO_BYTES: Final = 4096  #: a greeting; anything may be at the other end yet
_CLIENT_STREAMS: Final = (0, 2)  #: by lane: one for both ways, then one of each end's own, which either may begin
_SERVER_STREAMS: Final = (0, 3)
_HIGH_BYTES: Final = 256 * 1024
_LOW_BYTES: Final = 64 * 1024
_MESSAGE_OVERHEAD: Final = 150  #: what a queued message costs beside its data
_REASON_BYTES: Final = 200
_LATE_S: Final = 1e-6
_QUANTUM_S: Final = (
    1e-3  #: timers are no nearer: bursts of a millisecond, where aioquic would pace one packet after the other
)

Send = Callable[[Sequence[bytes], Any], None]


class QuicClosed(SocketClosed):
    """The connection is over. ``code`` is QUIC's or, from 0 on without a frame type, the link's; 1006: nobody said goodbye."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.args = (f"QUIC connection closed: {reason or f'code {code:#x}'}",)

    @property
    def is_goodbye(self) -> bool:
        return self.code in (0, 1000)


class QuicSocket:
    """One end of a connection. Made by `client.connect` and `server.QuicServer`."""

    lanes: int = LANES

    def __init__(self, connection: Connection, send: Send, *, max_message_bytes: int) -> None:
        self.connection = connection
        self.on_message: Callable[[Message], None] | None = None
        self.on_close: Callable[[SocketClosed], None] | None = None  #: called once, when the connection is over
        self.on_drain: Callable[[], None] | None = None  #: called when a lane that was behind no longer is
        self.on_ready: Callable[[], None] | None = None  #: called when the peer is verified
        self.on_cid: Callable[[bytes, bool], None] | None = None  #: an id of ours was made known, or is no longer used
        self.heard_at = 0.0  #: when the last datagram came
        is_client = connection.configuration.is_client
        self._out = _CLIENT_STREAMS if is_client else _SERVER_STREAMS
        self._in = _SERVER_STREAMS if is_client else _CLIENT_STREAMS
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._most_message_bytes = max_message_bytes
        self._readers = [Reader(HELLO_BYTES) for _ in range(LANES)]
        self._verified = False
        self._queue: deque[Message] = deque()
        self._queued = 0
        self._received = 0
        self._held = False
        self._behind = [False] * LANES
        self._receivers: deque[asyncio.Future[None]] = deque()
        self._senders: deque[asyncio.Future[None]] = deque()
        self._over: SocketClosed | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._soon: asyncio.Handle | None = None

    # State

    @property
    def closed(self) -> SocketClosed | None:
        """Why the connection is over, or None while it is not."""
        return self._over

    @property
    def buffered_bytes(self) -> int:
        """What was sent and not yet confirmed by the peer."""
        return sum(self.connection.unacknowledged(stream) for stream in self._out)

    @property
    def peer_address(self) -> Any:
        """Where the peer is now: it may move."""
        return self.connection.get_peer_address()

    def is_behind(self, lane: int = LANES - 1) -> bool:
        """Whether more on this lane should wait for `drain` or ``on_drain``."""
        return self._behind[lane]

    def allow_messages(self) -> None:
        """The greeting is over: messages may be as large as they may."""
        for reader in self._readers:
            reader.limit = self._most_message_bytes
        self.connection.settle()

    # Sending

    async def send(self, data: bytes | str, *, text: bool | None = None, lane: int = LANES - 1) -> None:
        """Send one message, then wait while the peer is behind. Raises SocketClosed."""
        self.send_nowait(data, text=text, lane=lane)
        await self.drain(lane)

    def send_nowait(self, data: bytes | str, *, text: bool | None = None, lane: int = LANES - 1) -> None:
        """Send one message without waiting. Raises SocketClosed."""
        if self._over is not None:
            raise self._over
        is_text = isinstance(data, str) if text is None else text
        payload = data.encode() if isinstance(data, str) else data
        stream = self._out[lane]
        self.connection.send_stream_data(stream, encode(payload, text=is_text))
        if self.connection.unacknowledged(stream) > _HIGH_BYTES:
            self._behind[lane] = True
        self._transmit_soon()

    async def drain(self, lane: int = LANES - 1) -> None:
        """Wait until the peer has taken most of what was sent. Raises SocketClosed."""
        while self._behind[lane] and self._over is None:
            await _wait(self._loop, self._senders)
        if self._over is not None:
            raise self._over

    def ping(self) -> None:
        """Make the peer confirm something."""
        if self._over is None:
            self.connection.send_ping(0)
            self._transmit_soon()

    # Receiving

    async def recv(self) -> Message:
        """Return the next message, of whichever lane. Raises SocketClosed at the end."""
        while not self._queue:
            if self._over is not None:
                raise self._over
            await _wait(self._loop, self._receivers)
        message = self._queue.popleft()
        self._queued -= len(message.data) + _MESSAGE_OVERHEAD
        self._grant()
        return message

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Messages until the connection is over, however it ends."""
        while True:
            try:
                message = await self.recv()
            except SocketClosed:
                return
            yield message

    def pause(self) -> None:
        """Take no more messages (for owners with ``on_message``)."""
        self._held = True

    def resume(self) -> None:
        """Take messages again."""
        self._held = False
        self._hand_out()
        self._grant()

    def _hand_out(self) -> None:
        while self._queue and self.on_message is not None and not self._held and self._over is None:
            message = self._queue.popleft()
            self._queued -= len(message.data) + _MESSAGE_OVERHEAD
            self.on_message(message)

    def _grant(self) -> None:
        """Let the peer send as much more as was taken. Beginnings of messages count as taken: they must be able to grow."""
        if self._over is None and self.connection.took(max(0, self._received - self._queued)):
            self._transmit_soon()

    # Closing

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Say goodbye. Idempotent."""
        self.close_nowait(code, reason)

    def close_nowait(self, code: int = 0, reason: str = "") -> None:
        """Tell the peer, and be done: nothing that waits is sent any more."""
        if self._over is None:
            self.connection.close(error_code=code, reason_phrase=reason[:_REASON_BYTES])
            self._pump()

    def abort(self) -> None:
        """End the connection at once."""
        self.close_nowait()

    def lose(self, reason: str) -> None:
        """The peer is gone, and cannot be told."""
        self._finish(QuicClosed(1006, reason))

    # Driving

    def start(self, address: NetworkAddress) -> None:
        """Begin as a client."""
        self.connection.connect(address, now=self._loop.time())
        self._transmit()

    def datagrams(self, datagrams: Sequence[bytes], address: NetworkAddress) -> None:
        """Datagrams came for this connection."""
        if self._over is not None:
            return
        now = self.heard_at = self._loop.time()
        for data in datagrams:
            self.connection.receive_datagram(data, address, now=now)
        self._pump()

    def _pump(self) -> None:
        """Act on what the connection has to tell, then send what it has to send."""
        while self._over is None and (event := self.connection.next_event()) is not None:
            try:
                self._take(event)
            except PeerRefused as exc:
                self.connection.close(error_code=BAD_CERTIFICATE, frame_type=0, reason_phrase=str(exc)[:_REASON_BYTES])
            except ProtocolError as exc:
                self.connection.close(error_code=1, reason_phrase=str(exc)[:_REASON_BYTES])
        if self._over is None:
            self._look_at_senders()
            self._transmit()

    def _take(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self._take_data(event)
        elif isinstance(event, HandshakeCompleted):
            self.connection.verify_peer()
            self._verified = True
            if self.on_ready is not None:
                self.on_ready()
        elif isinstance(event, ConnectionIdIssued | ConnectionIdRetired):
            if self.on_cid is not None:
                self.on_cid(event.connection_id, isinstance(event, ConnectionIdIssued))
        elif isinstance(event, StreamReset):
            raise ProtocolError("the peer has reset a lane")

    def _take_data(self, event: StreamDataReceived) -> None:
        if self.connection.ended is not None or not self._verified:
            return
        if event.stream_id not in self._in or event.end_stream:
            raise ProtocolError(f"stream {event.stream_id} is no lane, or was ended")
        self._received += len(event.data)
        messages = self._readers[self._in.index(event.stream_id)].feed(event.data)
        for message in messages:
            if self.on_message is not None and not self._held and not self._queue:
                self.on_message(message)
            else:
                self._queue.append(message)
                self._queued += len(message.data) + _MESSAGE_OVERHEAD
        if self._queue:
            _wake(self._receivers)
        self._grant()

    def _look_at_senders(self) -> None:
        freed = False
        for lane, stream in enumerate(self._out):
            if self._behind[lane] and self.connection.unacknowledged(stream) <= _LOW_BYTES:
                self._behind[lane] = False
                freed = True
        if freed:
            _wake(self._senders)
            if self.on_drain is not None:
                self.on_drain()

    def _transmit_soon(self) -> None:
        if self._soon is None and self._over is None:
            self._soon = self._loop.call_soon(self._transmit)

    def _transmit(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._over is not None:
            return
        now = self._loop.time()
        outgoing = self.connection.datagrams_to_send(now=now)
        while outgoing:
            address = outgoing[0][1]
            self._send([data for data, to in outgoing if to == address], address)
            outgoing = [one for one in outgoing if one[1] != address]
        ended = self.connection.ended
        if ended is not None:
            # A closing period is the server's table's business: unknown ids are answered with a reset.
            self._finish(QuicClosed(ended.error_code, ended.reason_phrase or "the peer has closed"))
            return
        at = self.connection.get_timer()
        if at is not None and at < now + _QUANTUM_S:
            at = now + _QUANTUM_S
        if at != self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if at is None else self._loop.call_at(at, self._on_timer)
            self._timer_at = at

    def _on_timer(self) -> None:
        # A moment late: at the very time, rounding can leave aioquic's loss detection with nothing to do, for ever.
        now = max(self._timer_at or 0.0, self._loop.time()) + _LATE_S
        self._timer = self._timer_at = None
        self.connection.handle_timer(now=now)
        self._pump()

    def _finish(self, closed: SocketClosed) -> None:
        if self._over is not None:
            return
        self._over = closed
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        self._timer = self._soon = None
        _wake(self._receivers)
        _wake(self._senders)
        if self.on_close is not None:
            self.on_close(closed)


async def _wait(loop: asyncio.AbstractEventLoop, waiters: deque[asyncio.Future[None]]) -> None:
    waiter = loop.create_future()
    waiters.append(waiter)
    try:
        await waiter
    finally:
        if waiter in waiters:
            waiters.remove(waiter)


def _wake(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
