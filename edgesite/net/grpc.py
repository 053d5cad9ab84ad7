"""A gRPC client: unary calls and server streams over one HTTP/2 connection without TLS, made anew when it is gone.

    channel = Channel(ctx.net, "unix:///run/containerd/containerd.sock")
    data = await channel.call("/runtime.v1.RuntimeService/Version", request, timeout_s=5.0)
    async for data in channel.stream("/...Events/Subscribe", request): ...

Messages are bytes. Nothing is sent twice, nothing is tried again, and no thread or timer runs beside the calls: who calls decides what
is tried again, and a connection is only made when something is called.

Units   Seconds, bytes.
Errors  GrpcError with the status of the peer, or UNAVAILABLE when there is no connection or it broke, DEADLINE_EXCEEDED, and
        RESOURCE_EXHAUSTED for an answer beyond the bounds.
State   The connection and the calls on it.
Source  grpc.io: "gRPC over HTTP2"; status codes of gRPC.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from enum import IntEnum
from typing import Final, cast

import anyio

from edgesite.context import Net
from edgesite.wire.hpack import indexed, literal
from edgesite.wire.http2 import REFUSED, Body, Connection, Event, Headers, Http2Error, Reset

__all__ = ["Channel", "Code", "GrpcError"]

ANSWER_BYTES: Final = 16 << 20  #: of one message
QUEUE_MESSAGES: Final = (
    4096  #: of a server stream that nobody has read yet; a reader that is further behind loses the stream
)
CONNECT_S: Final = 10.0
_PREFIX: Final = 5
_MESSAGE_CHARS: Final = 16_384


class Code(IntEnum):
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GrpcError(Exception):
    """A call that did not succeed."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{code.name}: {text}" if text else code.name)
        self.code, self.text = code, text or code.name


class _Call:
    """What has come for one call."""

    __slots__ = ("buffer", "ended", "failure", "messages", "news", "status", "streamed", "text")

    def __init__(self, *, streamed: bool) -> None:
        self.streamed = streamed
        self.buffer = bytearray()
        self.messages: deque[bytes] = deque()
        self.status = ""  # of HTTP
        self.text = ""
        self.failure: GrpcError | None = None
        self.ended = False
        self.news = anyio.Event()  # a message of a stream, or the end

    def take_headers(self, headers: Sequence[tuple[str, str]], ended: bool) -> None:
        said = dict(headers)
        self.status = said.get(":status", self.status)
        if "grpc-status" in said:
            self.end(_code(said["grpc-status"]), _message(said.get("grpc-message", "")))
        elif ended:
            self.end(Code.UNKNOWN, f"the answer ends without a status (HTTP {self.status or 'without one'})")
        elif self.status and self.status != "200":
            self.end(Code.UNAVAILABLE if self.status in ("502", "503", "504") else Code.UNKNOWN, f"HTTP {self.status}")

    def take_body(self, data: bytes, ended: bool) -> None:
        if self.ended:
            return
        self.buffer += data
        while len(self.buffer) >= _PREFIX:
            length = int.from_bytes(self.buffer[1:_PREFIX], "big")
            if self.buffer[0] or length > ANSWER_BYTES:
                why = "compressed, which was not asked for" if self.buffer[0] else f"of {length} bytes"
                self.end(Code.RESOURCE_EXHAUSTED, f"the answer is {why}")
                return
            if len(self.buffer) < _PREFIX + length:
                break
            self.messages.append(bytes(self.buffer[_PREFIX : _PREFIX + length]))
            del self.buffer[: _PREFIX + length]
            if self.streamed:
                self.news.set()
            if len(self.messages) > (QUEUE_MESSAGES if self.streamed else 1):
                self.end(Code.RESOURCE_EXHAUSTED, "more messages than are taken")
                return
        if ended:
            self.end(Code.UNKNOWN, "the answer ends without a status")

    def end(self, code: Code, text: str = "") -> None:
        if not self.ended:
            self.ended = True
            if code is not Code.OK:
                self.failure = GrpcError(code, text)
            self.news.set()


class _Link(asyncio.Protocol):
    """One connection and the calls on it."""

    def __init__(self) -> None:
        self._http2 = Connection()
        self._calls: dict[int, _Call] = {}
        self._transport: asyncio.Transport | None = None
        self._room = anyio.Event()
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._http2.receive(data)
        except Http2Error as exc:
            self._fail(f"the peer does not speak HTTP/2 as it should: {exc}")
            return
        for event in events:
            self._take(event)
        self._send()
        if self._http2.closing:
            self._retire()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection broke: {exc}" if exc else "the connection was closed")

    @property
    def is_full(self) -> bool:
        return self._http2.open_streams >= self._http2.most_streams

    async def wait_room(self) -> None:
        while self.usable and self.is_full:
            self._room = anyio.Event()
            await self._room.wait()

    def begin(self, block: bytes, request: bytes, *, streamed: bool) -> tuple[int, _Call]:
        call = _Call(streamed=streamed)
        stream = self._http2.request(block, b"\0" + len(request).to_bytes(4, "big") + request)
        self._calls[stream] = call
        self._send()
        return stream, call

    def drop(self, stream: int) -> None:
        """Nobody waits for this call any more."""
        if self._calls.pop(stream, None) is not None:
            self._http2.cancel(stream)
            self._send()
            self._make_room()

    def close(self) -> None:
        self._fail("the connection was closed here")

    def _take(self, event: Event) -> None:
        call = self._calls.get(event.stream)
        if call is None:
            return
        match event:
            case Headers():
                call.take_headers(event.headers, event.ended)
            case Body():
                call.take_body(event.data, event.ended)
            case Reset():
                refused = event.code == REFUSED
                call.end(Code.UNAVAILABLE if refused else Code.CANCELLED, f"the peer ended the call ({event.code})")
        if call.ended:
            self.drop(event.stream)

    def _send(self) -> None:
        data = self._http2.take()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _make_room(self) -> None:
        self._room.set()
        if self._http2.closing:
            self._retire()

    def _retire(self) -> None:
        """The peer goes away: what is under way may end, what is new takes another connection."""
        self.usable = False
        self._room.set()
        if not self._calls and self._transport is not None:
            self._transport.close()

    def _fail(self, why: str) -> None:
        self.usable = False
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.end(Code.UNAVAILABLE, why)
        self._room.set()
        if self._transport is not None:
            self._transport.abort()


class Channel:
    """One peer. It may be made before there is a loop."""

    def __init__(self, net: Net, address: str, *, user_agent: str = "grpc-edgesite") -> None:
        """``address`` is "host:port" or "unix:///path"."""
        self._net, self.address = net, address
        authority = "localhost" if address.startswith("unix:") else address
        self._ahead = indexed(":method", "POST") + indexed(":scheme", "http")
        self._behind = b"".join(
            literal(name, value)
            for name, value in (
                (":authority", authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", user_agent),
            )
        )
        self._blocks: dict[str, bytes] = {}  # by path: as many as there are methods
        self._link: _Link | None = None
        self._connecting = anyio.Lock()
        self._closed = False

    async def close(self) -> None:
        """End the connection and all calls on it; none can be made any more."""
        self._closed = True
        if self._link is not None:
            self._link.close()

    async def call(
        self,
        path: str,
        request: bytes,
        *,
        timeout_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
        finish_s: float = 0.0,
    ) -> bytes:
        """Return the answer to one request. Raises GrpcError.

        A call that is cancelled here is given ``finish_s`` to come to its end before the peer is told.
        """
        with anyio.move_on_after(timeout_s):
            link = await self._connected()
            stream, call = link.begin(self._block(path, timeout_s, metadata), request, streamed=False)
            try:
                await call.news.wait()
            except BaseException:
                if finish_s:
                    with anyio.move_on_after(finish_s, shield=True):
                        await call.news.wait()
                raise
            finally:
                link.drop(stream)
            if call.failure is not None:
                raise call.failure
            if not call.messages:
                raise GrpcError(Code.INTERNAL, "the answer is empty")
            return call.messages[0]
        raise GrpcError(Code.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s")

    async def stream(
        self, path: str, request: bytes, *, metadata: Mapping[str, str] | None = None
    ) -> AsyncGenerator[bytes]:
        """Give the answers of a server stream until it ends. Raises GrpcError."""
        link = await self._connected()
        stream, call = link.begin(self._block(path, None, metadata), request, streamed=True)
        try:
            while True:
                while call.messages:
                    yield call.messages.popleft()
                if call.failure is not None:
                    raise call.failure
                if call.ended:
                    return
                call.news = anyio.Event()
                await call.news.wait()
        finally:
            link.drop(stream)

    async def _connected(self) -> _Link:
        """The connection, made now if there is none, with room for one more call. Raises GrpcError."""
        while True:
            if self._closed:
                raise GrpcError(Code.UNAVAILABLE, f"the connection to {self.address} is closed")
            link = self._link
            if link is None or not link.usable:
                link = await self._connect()
            if not link.is_full:
                return link
            await link.wait_room()

    async def _connect(self) -> _Link:
        async with self._connecting:
            if self._link is not None and self._link.usable:
                return self._link  # made while we waited
            try:
                with anyio.fail_after(CONNECT_S):
                    _, link = await self._net.connect(_Link, self.address)
            except OSError as exc:  # also when it takes too long
                raise GrpcError(Code.UNAVAILABLE, str(exc) or type(exc).__name__) from exc
            self._link = link
            return link

    def _block(self, path: str, timeout_s: float | None, metadata: Mapping[str, str] | None) -> bytes:
        if (block := self._blocks.get(path)) is None:
            block = self._blocks[path] = self._ahead + literal(":path", path) + self._behind
        if timeout_s is not None:
            block += literal("grpc-timeout", f"{min(max(int(timeout_s * 1000), 1), 99_999_999)}m")
        for name, value in (metadata or {}).items():
            block += literal(name, value)
        return block


def _code(text: str) -> Code:
    try:
        return Code(int(text))
    except ValueError:
        return Code.UNKNOWN


def _message(text: str) -> str:
    """Undo the percent-encoding of a status message."""
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text[:_MESSAGE_CHARS], errors="replace")
