"""One end of a WebSocket (RFC 6455) on a raw transport, driven by callbacks, without a task per connection.

    await socket.send(b"...")                                   # waits while the peer is behind
    message = await socket.recv()                               # or ``on_message``, called for each

Text messages are bytes here, and are not checked to be UTF-8: KubeEdge's tunnel sends binary data in them.

Units   Bytes, seconds of the event loop's clock.
Errors  SocketClosed from send and recv once the connection is over.
State   Received messages wait in memory up to ``queue_bytes``; above that the peer is not read from. What an idle connection
        does not use is not made: a hub has ten thousand.
Source  RFC 6455: control frames 5.5, closing 7; the opening handshake is in `websocket`, framing in `websocket_frames`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from edgesite.net.errors import ClosedByPeer
from edgesite.net.websocket_frames import (
    NO_CODE,
    NORMAL,
    FrameError,
    FrameReader,
    Opcode,
    close_payload,
    encode,
    parse_close,
)

__all__ = ["MESSAGE_BYTES", "QUEUE_BYTES", "Message", "Side", "SocketClosed", "WebSocket"]

MESSAGE_BYTES: Final = 16 * 1024 * 1024  #: default limit of one received message
QUEUE_BYTES: Final = 1024 * 1024
_MESSAGE_OVERHEAD: Final = 150  #: what a queued message costs beside its data
_CLOSE_S: Final = 5.0  #: for the peer's half of the closing handshake
_BROKEN: Final = 1006
_GOODBYES: Final = frozenset({NORMAL, 1001, NO_CODE})  #: close codes of who has nothing to complain of
_NO_HEADERS: Final[Mapping[str, str]] = {}


class Side(Enum):
    CLIENT = "client"
    SERVER = "server"


class Message(NamedTuple):
    """One received message."""

    data: bytes
    text: bool  #: its opcode; nothing is decoded or checked


class SocketClosed(ClosedByPeer):
    """The WebSocket is closed. ``code`` 1006: the connection broke without a goodbye."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"WebSocket closed with code {code}{': ' + reason if reason else ''}")
        self.code = code
        self.reason = reason

    @property
    def is_goodbye(self) -> bool:
        """Whether an end has closed it, by a close frame or by the end of its stream, as when its program stops; not a cut."""
        return self.code in _GOODBYES or (self.code == _BROKEN and not self.reason)


class WebSocket(asyncio.Protocol):
    """One end of a WebSocket. Made by `edgesite.net.websocket`. Implements `edgesite.net.messagesocket.MessageSocket`."""

    lanes = 1

    __slots__ = (
        "__weakref__",
        "_close_sent",
        "_close_timer",
        "_heard",
        "_held",
        "_loop",
        "_masks",
        "_most_queued",
        "_over",
        "_paused",
        "_peer_close",
        "_ping_timer",
        "_queue",
        "_queued",
        "_reader",
        "_readers",
        "_transport",
        "_write_bytes",
        "_write_paused",
        "_writers",
        "headers",
        "on_close",
        "on_drain",
        "on_message",
        "on_pong",
        "subprotocol",
    )

    def __init__(
        self,
        side: Side,
        *,
        max_message_bytes: int = MESSAGE_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        write_bytes: int = 0,
        subprotocol: str = "",
    ) -> None:
        self.subprotocol = subprotocol  #: agreed in the handshake, or ""
        self.headers: Mapping[str, str] = _NO_HEADERS
        #: Called with each message instead of queueing it for `recv`; `deliver_to` sets it.
        self.on_message: Callable[[Message], None] | None = None
        self.on_close: Callable[[SocketClosed], None] | None = None  #: called once, when the connection is over
        self.on_pong: Callable[[bytes], None] | None = None
        self.on_drain: Callable[[], None] | None = (
            None  #: called when a peer that was behind has taken most of what was sent
        )
        self._loop = asyncio.get_running_loop()
        self._masks = side is Side.CLIENT
        self._reader = FrameReader(masked=side is Side.SERVER, limit=max_message_bytes)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[Message] | None = None
        self._queued = 0
        self._most_queued = queue_bytes
        self._write_bytes = write_bytes  # beyond which the peer is behind; 0 leaves it to the transport (TLS: 512 KiB)
        self._paused = False  # we do not read
        self._held = False  # the owner asked us not to read
        self._write_paused = False
        self._readers: list[asyncio.Future[None]] | None = None
        self._writers: list[asyncio.Future[None]] | None = None
        self._over: SocketClosed | None = None
        self._close_sent: tuple[int, str] | None = None
        self._peer_close: tuple[int, str] | None = None  # nothing more is read from then on
        self._close_timer: asyncio.TimerHandle | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._heard = False  # since the last keepalive ping

    # State

    @property
    def closed(self) -> SocketClosed | None:
        """Why the connection is over, or None while it is not."""
        return self._over

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self._over is None and self._close_sent is None and self._transport is not None

    @property
    def buffered_bytes(self) -> int:
        """What was sent and not yet taken by the peer."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def is_behind(self, lane: int = 0) -> bool:
        """Whether the peer has not taken most of what was sent."""
        return self._write_paused

    def extra_info(self, name: str) -> object:
        """The transport's ``get_extra_info``."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    # Sending

    async def send(self, data: bytes | str, *, text: bool | None = None) -> None:
        """Send one message, then wait while the peer is behind. ``str`` goes as text, bytes as binary unless ``text``.
        Raises SocketClosed."""
        self.send_nowait(data, text=text)
        await self.drain()

    def send_nowait(self, data: bytes | str, *, text: bool | None = None, lane: int = 0) -> None:
        """Send one message without waiting; `buffered_bytes` tells how far the peer is behind. Raises SocketClosed."""
        if isinstance(data, str):
            self._write(Opcode.TEXT, data.encode())
        else:
            self._write(Opcode.TEXT if text else Opcode.BINARY, data)

    def _write(self, opcode: Opcode, payload: bytes) -> None:
        transport = self._transport
        if self._over is not None or self._close_sent is not None or transport is None:
            raise self._over or SocketClosed(NORMAL, "closing")
        transport.write(encode(opcode, payload, os.urandom(4) if self._masks else None))

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was sent. Raises SocketClosed."""
        while self._write_paused and self._over is None:
            await self._wait_for_writing()
        if self._over is not None:
            raise self._over

    def ping(self, data: bytes = b"") -> None:
        """Send a ping; the pong comes to ``on_pong``. Raises SocketClosed."""
        self._write(Opcode.PING, data)

    def keep_alive(self, interval_s: float, timeout_s: float, data: bytes = b"", *, always: bool = False) -> None:
        """Ping after ``interval_s`` in which nothing was received, or every time if ``always``; cut the connection if nothing at
        all is received for ``timeout_s``."""
        silent = 0.0

        def tick() -> None:
            nonlocal silent
            self._ping_timer = None
            if not self.is_open:
                return
            silent = 0.0 if self._heard else silent + interval_s
            self._heard = False
            if silent >= timeout_s and not self._paused:
                self.abort()
                return
            if silent or always:
                self._write(Opcode.PING, data)
            self._ping_timer = self._loop.call_later(interval_s, tick)

        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._heard = True
        self._ping_timer = self._loop.call_later(interval_s, tick)

    # Receiving

    async def recv(self) -> Message:
        """Return the next message. Raises SocketClosed at the end."""
        while not self._queue:
            if self._over is not None:
                raise self._over
            if self._readers is None:
                self._readers = []
            await _wait(self._loop, self._readers)
        message = self._queue.popleft()
        self._queued -= len(message.data) + _MESSAGE_OVERHEAD
        self._adjust_reading()
        return message

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Messages until the connection is over, however it ends."""
        while True:
            try:
                message = await self.recv()
            except SocketClosed:
                return
            yield message

    def deliver_to(self, on_message: Callable[[Message], None]) -> None:
        """Set ``on_message``, and hand over what has come before."""
        self.on_message = on_message
        waiting, self._queue, self._queued = self._queue or (), None, 0
        for message in waiting:
            on_message(message)
        self._adjust_reading()

    def pause(self) -> None:
        """Stop reading from the peer (for owners with ``on_message``)."""
        self._held = True
        self._adjust_reading()

    def resume(self) -> None:
        """Read again."""
        self._held = False
        self._adjust_reading()

    def _adjust_reading(self) -> None:
        if self._transport is None:
            return
        if not self._paused and (self._held or self._queued > self._most_queued):
            self._paused = True
            self._transport.pause_reading()
        elif self._paused and not self._held and self._queued <= self._most_queued // 2:
            self._paused = False
            self._transport.resume_reading()

    # Closing

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and wait for the peer's, up to 5 s. Idempotent."""
        self.close_nowait(code, reason)
        if self._paused:
            self._paused = self._held = False
            if self._transport is not None:
                self._transport.resume_reading()  # else the peer's goodbye is never seen
        while self._over is None:
            await self._wait_for_writing()

    async def _wait_for_writing(self) -> None:
        if self._writers is None:
            self._writers = []
        await _wait(self._loop, self._writers)

    def close_nowait(self, code: int = 1000, reason: str = "") -> None:
        """Begin to close."""
        if not self.is_open:
            return
        self._write(Opcode.CLOSE, close_payload(code, reason))
        self._close_sent = (code, reason)
        self._close_timer = self._loop.call_later(_CLOSE_S, self.abort)

    def abort(self) -> None:
        """Cut the connection without a goodbye."""
        if self._transport is not None:
            self._transport.abort()

    # Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        if self._write_bytes:
            transport.set_write_buffer_limits(self._write_bytes)  # type: ignore[attr-defined]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._over is not None:
            return
        self._transport = None
        ended = self._peer_close or (_BROKEN, str(exc) if exc is not None else "")
        self._over = SocketClosed(*ended)
        for timer in (self._close_timer, self._ping_timer):
            if timer is not None:
                timer.cancel()
        self._close_timer = self._ping_timer = None
        _wake(self._readers)
        _wake(self._writers)
        if self.on_close is not None:
            self.on_close(self._over)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        _wake(self._writers)
        if self.on_drain is not None:
            self.on_drain()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._peer_close is not None or self._transport is None:
            return
        self._heard = True
        try:
            for opcode, payload in self._reader.feed(data):
                if opcode <= Opcode.BINARY:
                    self._take_message(Message(payload, opcode == Opcode.TEXT))
                elif opcode == Opcode.CLOSE:
                    self._take_close(payload)
                    return
                elif opcode == Opcode.PONG:
                    if self.on_pong is not None:
                        self.on_pong(payload)
                elif self.is_open:
                    self._write(Opcode.PONG, payload)
        except FrameError as exc:
            self._fail(exc)

    def _take_close(self, payload: bytes) -> None:
        """The peer says goodbye: answer with the same, and end the connection when that is written."""
        self._peer_close = parse_close(payload)
        if self._close_sent is None:
            code, reason = self._peer_close
            self.close_nowait(NORMAL if code == NO_CODE else code, reason)
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: FrameError) -> None:
        """The peer broke the rules: say so and read no more."""
        self.close_nowait(error.code, error.reason)
        self._peer_close = (error.code, error.reason)
        if self._transport is not None:
            self._transport.close()

    def _take_message(self, message: Message) -> None:
        if self.on_message is not None:
            self.on_message(message)
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(message)
        self._queued += len(message.data) + _MESSAGE_OVERHEAD
        self._adjust_reading()
        _wake(self._readers)


async def _wait(loop: asyncio.AbstractEventLoop, waiters: list[asyncio.Future[None]]) -> None:
    waiter = loop.create_future()
    waiters.append(waiter)
    try:
        await waiter
    finally:
        if waiter in waiters:
            waiters.remove(waiter)


def _wake(waiters: list[asyncio.Future[None]] | None) -> None:
    while waiters:
        waiter = waiters.pop(0)
        if not waiter.done():
            waiter.set_result(None)
