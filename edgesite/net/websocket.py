"""WebSocket (RFC 6455) on a raw transport: websockets' protocol core, driven by callbacks, without a task per connection.

    socket = accept(request)                                    # in an HTTP handler, which then returns None
    socket = await connect(net, "cloud:10000", "/e632/node/events", {"ProjectID": "e632"}, tls=context)
    await socket.send(b"...")                                   # waits while the peer is behind
    message = await socket.recv()                               # or ``on_message``, called for each

Text messages are bytes here, and are not checked to be UTF-8: KubeEdge's tunnel sends binary data in them.

Units   Bytes, seconds of the event loop's clock.
Errors  SocketClosed from send and recv once the connection is over; HandshakeError, UpgradeRefused, OSError from connect.
State   Received messages wait in memory up to ``queue_bytes``; above that the peer is not read from.
Source  RFC 6455: framing 5, fragmentation 5.4, control frames 5.5, closing 7, opening handshake 4.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol, Side

from edgesite.net.client import HttpClient, UpgradeRefused
from edgesite.net.errors import ClosedByPeer, NetError

if TYPE_CHECKING:
    import ssl

    from edgesite.context import Net
    from edgesite.net.http_messages import Request

__all__ = ["HandshakeError", "Message", "SocketClosed", "UpgradeRefused", "WebSocket", "accept", "connect"]

MESSAGE_BYTES: Final = 16 * 1024 * 1024  #: default limit of one received message
QUEUE_BYTES: Final = 1024 * 1024
_MESSAGE_OVERHEAD: Final = 150  #: what a queued message costs beside its data
_CLOSE_S: Final = 5.0  #: for the peer's half of the closing handshake
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


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


class HandshakeError(NetError):
    """The peer's opening handshake is not WebSocket's. ``status`` is what to answer it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class WebSocket(asyncio.Protocol):
    """One end of a WebSocket. Made by `accept` and `connect`."""

    def __init__(
        self,
        side: Side,
        *,
        max_message_bytes: int = MESSAGE_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        subprotocol: str = "",
    ) -> None:
        self.subprotocol = subprotocol  #: agreed in the handshake, or ""
        self.headers: Mapping[str, str] = {}
        #: Called with each message instead of queueing it for `recv`; `deliver_to` sets it.
        self.on_message: Callable[[Message], None] | None = None
        self.on_close: Callable[[SocketClosed], None] | None = None  #: called once, when the connection is over
        self.on_pong: Callable[[bytes], None] | None = None
        self.on_drain: Callable[[], None] | None = (
            None  #: called when a peer that was behind has taken most of what was sent
        )
        self._loop = asyncio.get_running_loop()
        self._core = Protocol(side, max_size=max_message_bytes)
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes] = []
        self._parts_text = False
        self._queue: deque[Message] = deque()
        self._queued = 0
        self._most_queued = queue_bytes
        self._paused = False  # we do not read
        self._held = False  # the owner asked us not to read
        self._write_paused = False
        self._readers: deque[asyncio.Future[None]] = deque()
        self._writers: deque[asyncio.Future[None]] = deque()
        self._over: SocketClosed | None = None
        self._eof_fed = False
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
        return self._over is None and self._core.state is OPEN

    @property
    def buffered_bytes(self) -> int:
        """What was sent and not yet taken by the peer."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def extra_info(self, name: str) -> object:
        """The transport's ``get_extra_info``."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    # Sending

    async def send(self, data: bytes | str, *, text: bool | None = None) -> None:
        """Send one message, then wait while the peer is behind. ``str`` goes as text, bytes as binary unless ``text``.
        Raises SocketClosed."""
        self.send_nowait(data, text=text)
        await self.drain()

    def send_nowait(self, data: bytes | str, *, text: bool | None = None) -> None:
        """Send one message without waiting; `buffered_bytes` tells how far the peer is behind. Raises SocketClosed."""
        if self._over is not None or self._core.state is not OPEN:
            raise self._over or SocketClosed(1000, "closing")
        if isinstance(data, str):
            self._core.send_text(data.encode())
        elif text:
            self._core.send_text(data)
        else:
            self._core.send_binary(data)
        self._flush()

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was sent. Raises SocketClosed."""
        while self._write_paused and self._over is None:
            await _wait(self._loop, self._writers)
        if self._over is not None:
            raise self._over

    def ping(self, data: bytes = b"") -> None:
        """Send a ping; the pong comes to ``on_pong``. Raises SocketClosed."""
        if self._over is not None or self._core.state is not OPEN:
            raise self._over or SocketClosed(1000, "closing")
        self._core.send_ping(data)
        self._flush()

    def keep_alive(self, interval_s: float, timeout_s: float, data: bytes = b"", *, always: bool = False) -> None:
        """Ping after ``interval_s`` in which nothing was received, or every time if ``always``; cut the connection if nothing at
        all is received for ``timeout_s``."""
        silent = 0.0

        def tick() -> None:
            nonlocal silent
            self._ping_timer = None
            if self._over is not None or self._core.state is not OPEN:
                return
            silent = 0.0 if self._heard else silent + interval_s
            self._heard = False
            if silent >= timeout_s and not self._paused:
                self.abort()
                return
            if silent or always:
                self._core.send_ping(data)
                self._flush()
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
        while self._queue:
            message = self._queue.popleft()
            self._queued -= len(message.data) + _MESSAGE_OVERHEAD
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
            await _wait(self._loop, self._writers)

    def close_nowait(self, code: int = 1000, reason: str = "") -> None:
        """Begin to close."""
        if self._over is None and self._core.state is OPEN:
            self._core.send_close(code, reason)
            self._flush()

    def abort(self) -> None:
        """Cut the connection without a goodbye."""
        if self._transport is not None:
            self._transport.abort()

    # Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._over is not None:
            return
        self._transport = None
        self._feed_eof()
        close = self._core.close_rcvd
        if close is not None:
            self._over = SocketClosed(close.code, close.reason)
        elif self._core.parser_exc is not None and self._core.close_sent is not None:
            self._over = SocketClosed(self._core.close_sent.code, self._core.close_sent.reason)
        else:
            self._over = SocketClosed(1006, str(exc) if exc is not None else "")
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
        self._feed_eof()
        return False

    def _feed_eof(self) -> None:
        if not self._eof_fed:
            self._eof_fed = True
            self._core.receive_eof()
            self._take_events()

    def data_received(self, data: bytes) -> None:
        if self._eof_fed:
            return
        self._heard = True
        self._core.receive_data(data)
        self._take_events()

    def _take_events(self) -> None:
        self._flush()
        for frame in self._core.events_received():
            if isinstance(frame, Frame):
                self._take_frame(frame)

    def _take_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if frame.fin:
                self._take_message(Message(bytes(frame.data), opcode is Opcode.TEXT))
            else:
                self._parts, self._parts_text = [bytes(frame.data)], opcode is Opcode.TEXT
        elif opcode is Opcode.CONT:
            self._parts.append(bytes(frame.data))
            if frame.fin:
                parts, self._parts = self._parts, []
                self._take_message(Message(b"".join(parts), self._parts_text))
        elif opcode is Opcode.PONG and self.on_pong is not None:
            self.on_pong(bytes(frame.data))

    def _take_message(self, message: Message) -> None:
        if self.on_message is not None:
            self.on_message(message)
            return
        self._queue.append(message)
        self._queued += len(message.data) + _MESSAGE_OVERHEAD
        self._adjust_reading()
        _wake(self._readers)

    def _flush(self) -> None:
        transport = self._transport
        for data in self._core.data_to_send():
            if transport is None:
                continue
            if data:
                transport.write(data)
            else:  # the core's sign for the end of what we send
                transport.close()
        if self._core.close_expected() and self._close_timer is None and transport is not None:
            self._close_timer = self._loop.call_later(_CLOSE_S, self.abort)


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


def _accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()).decode("ascii")


def accept(
    request: Request,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    max_message_bytes: int = MESSAGE_BYTES,
    queue_bytes: int = QUEUE_BYTES,
) -> WebSocket:
    """Answer a WebSocket handshake; the connection is then the socket's. Header lines that come twice are tolerated.
    ``subprotocols`` are ours in order of preference. Raises HandshakeError, ClosedByPeer."""
    received = request.headers
    if request.method != "GET" or not received.has_token("upgrade", "websocket"):
        raise HandshakeError(426, "this is a WebSocket endpoint")
    if (received.get("sec-websocket-version") or "").strip() != "13":
        raise HandshakeError(426, "WebSocket version 13 is spoken here")
    key = (received.get("sec-websocket-key") or "").strip()
    try:
        well_formed = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        well_formed = False
    if not well_formed:
        raise HandshakeError(400, "Sec-WebSocket-Key is missing or malformed")
    chosen = next((one for one in subprotocols if received.has_token("sec-websocket-protocol", one)), "")
    answer = {"Upgrade": "websocket", "Sec-WebSocket-Accept": _accept_key(key), **(headers or {})}
    if chosen:
        answer["Sec-WebSocket-Protocol"] = chosen
    socket = WebSocket(SERVER, max_message_bytes=max_message_bytes, queue_bytes=queue_bytes, subprotocol=chosen)
    request.upgrade(socket, answer)
    return socket


async def connect(
    net: Net,
    address: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    subprotocols: Sequence[str] = (),
    max_message_bytes: int = MESSAGE_BYTES,
    queue_bytes: int = QUEUE_BYTES,
) -> WebSocket:
    """Open a WebSocket; the caller sets the deadline. Raises OSError, UpgradeRefused, HandshakeError."""
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    lines = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key, **(headers or {})}
    if subprotocols:
        lines["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)

    def make() -> WebSocket:
        return WebSocket(CLIENT, max_message_bytes=max_message_bytes, queue_bytes=queue_bytes)

    async with HttpClient(net, address, tls=tls, server_hostname=server_hostname) as client:
        _, socket, answered = await client.connect_upgrade(path, lines, make)
    chosen = answered.get("sec-websocket-protocol", "") or ""
    if answered.get("sec-websocket-accept") != _accept_key(key) or (chosen and chosen not in subprotocols):
        socket.abort()
        raise HandshakeError(400, "the server's WebSocket handshake does not fit ours")
    socket.subprotocol = chosen
    socket.headers = dict(answered)
    return socket
