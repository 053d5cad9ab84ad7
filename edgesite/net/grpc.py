"""A gRPC client: unary calls and server streams over one HTTP/2 connection without TLS, made anew when it is gone.

    channel = Channel(ctx.net, "unix:///run/containerd/containerd.sock")
    data = await channel.call("/runtime.v1.RuntimeService/Version", request, timeout_s=5.0)
    async for data in channel.stream("/...Events/Subscribe", request): ...

Messages are bytes. Nothing is sent twice, nothing is tried again, and no thread runs beside the calls: who calls decides what
is tried again, and when, and a connection is only made when something is called. A stream that is read slowly holds its sender up.
While a stream is quiet, its peer is asked every few minutes whether it is there.

Units   Seconds, bytes.
Errors  GrpcError with the status of the peer, or UNAVAILABLE when there is no connection or it broke, DEADLINE_EXCEEDED, and
        RESOURCE_EXHAUSTED for an answer beyond the bounds.
State   The connection and the calls on it.
Source  grpc.io: "gRPC over HTTP2", "Keepalive" (servers take a ping in five minutes well).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import anyio

from edgesite.context import Net
from edgesite.net.grpc_messages import Code, GrpcError, Unframer, framed, of_http, of_reset, read_status, timeout_text
from edgesite.net.http2 import ErrorCodes, HeaderList, Http2Protocol

__all__ = ["Channel", "Code", "GrpcError"]

ANSWER_BYTES: Final = 16 << 20  #: of one message
CONNECT_S: Final = 10.0
CLOSE_S: Final = 2.0
QUIET_S: Final = 330.0  #: of a stream, until its peer is asked for a sign of life
SIGN_S: Final = 20.0  #: that it has for one


class _Call:
    """What has come for one call."""

    __slots__ = ("_news", "ended", "failure", "messages", "status", "streamed", "taken", "unframer")

    def __init__(self, *, streamed: bool) -> None:
        self.streamed = streamed
        self.unframer = Unframer(ANSWER_BYTES, "the answer")
        self.messages: deque[bytes] = deque()
        self.taken = 0  # bytes of messages that wait, which hold the sender up
        self.status = ""  # of HTTP
        self.failure: GrpcError | None = None
        self.ended = False
        self._news: asyncio.Future[None] | None = None  # of who waits

    async def wait(self) -> None:
        """Wait for a message of a stream, or for the end. One caller at a time."""
        if not (self.ended or (self.streamed and self.messages)):
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def take_headers(self, headers: HeaderList, ended: bool) -> None:
        said = dict(headers)
        self.status = said.get(b":status", self.status.encode()).decode("latin-1")
        if (status := said.get(b"grpc-status")) is not None:
            self.end(*read_status(status, said.get(b"grpc-message", b"")))
        elif self.status and self.status != "200":
            self.end(of_http(self.status), f"HTTP {self.status}")
        elif ended:
            self.end(Code.UNKNOWN, "the answer ends without a status")

    def take_body(self, data: bytes, ended: bool) -> None:
        try:
            for message in self.unframer.feed(data):
                self.messages.append(message)
                if self.streamed:
                    self._tell()
                elif len(self.messages) > 1:
                    raise GrpcError(Code.INTERNAL, "more than one answer")
        except GrpcError as exc:
            self.end(exc.code, exc.text)
        if ended:
            self.end(Code.UNKNOWN, "the answer ends without a status")

    def end(self, code: Code, text: str = "") -> None:
        if not self.ended:
            self.ended = True
            if code is not Code.OK:
                self.failure = GrpcError(code, text)
            self._tell()


class _Link(Http2Protocol):
    """One connection and the calls on it."""

    def __init__(self) -> None:
        super().__init__(client=True)
        self._calls: dict[int, _Call] = {}
        self._room = anyio.Event()
        self._sign: anyio.Event | None = None  # that a ping has come back
        self.usable = True

    @property
    def is_full(self) -> bool:
        return self.is_held_up or len(self._calls) >= self.most_streams

    async def wait_room(self) -> None:
        while self.usable and self.is_full:
            if self._room.is_set():
                self._room = anyio.Event()
            await self._room.wait()

    def begin(self, headers: HeaderList, request: bytes, *, streamed: bool) -> tuple[int, _Call]:
        """Send a request. Raises GrpcError."""
        try:
            stream = self.open(headers)
        except ConnectionError as exc:
            self._retire()
            raise GrpcError(Code.UNAVAILABLE, str(exc)) from exc
        call = self._calls[stream] = _Call(streamed=streamed)
        self.send(stream, framed(request), ends=True)
        return stream, call

    def finish(self, stream: int, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """Nobody waits for this call any more."""
        if self._calls.pop(stream, None) is not None:
            self.cancel(stream, code)
            self._room.set()
            if not self.usable:
                self._retire()

    def read(self, stream: int, call: _Call) -> None:
        """All messages of a stream that were here are taken."""
        count, call.taken = call.taken, 0
        if count:
            self.consumed(stream, count)
            self.write()

    async def check(self) -> None:
        """Ask the peer for a sign of life, and give the connection up without one."""
        sign = self._sign
        if sign is None:
            sign = self._sign = anyio.Event()
            self.ping()
        with anyio.move_on_after(SIGN_S):
            await sign.wait()
            return
        self.leave(f"the peer gives no sign of life for {SIGN_S:g} s")

    # What the connection tells

    def headers(self, stream: int, headers: HeaderList, ended: bool) -> None:
        self.useful()
        if (call := self._calls.get(stream)) is not None:
            call.take_headers(headers, ended)
            if call.ended:
                self.finish(stream)

    def data(self, stream: int, data: bytes, ended: bool) -> None:
        call = self._calls.get(stream)
        if call is not None:
            call.take_body(data, ended)
            if call.streamed and call.messages:
                call.taken += len(data)
                data = b""
            if call.ended:
                self.finish(stream)
        self.consumed(stream, len(data))

    def reset(self, stream: int, code: int) -> None:
        if (call := self._calls.get(stream)) is not None:
            call.end(of_reset(code), f"the peer ended the call ({code})")
            self.finish(stream)

    def leaving(self, last_stream: int) -> None:
        for stream, call in tuple(self._calls.items()):
            if stream > last_stream:
                call.end(Code.UNAVAILABLE, "the peer goes away and has not begun with the call")
                self.finish(stream)
        self._retire()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._room.set()

    def answered_ping(self) -> None:
        if self._sign is not None:
            self._sign.set()
            self._sign = None

    def lost(self, why: str) -> None:
        self.usable = False
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.end(Code.UNAVAILABLE, why)
        self._room.set()

    def _retire(self) -> None:
        """What is under way may end, what is new takes another connection."""
        self.usable = False
        self._room.set()
        if not self._calls:
            self.leave("nothing is under way any more")


class Channel:
    """One peer. It may be made before there is a loop."""

    def __init__(self, net: Net, address: str, *, user_agent: str = "grpc-edgesite") -> None:
        """``address`` is "host:port" or "unix:///path"."""
        self._net, self.address = net, address
        authority = "localhost" if address.startswith("unix:") else address
        self._ahead = ((b":method", b"POST"), (b":scheme", b"http"))
        self._behind = (
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", user_agent.encode()),
        )
        self._link: _Link | None = None
        self._connecting = anyio.Lock()
        self._closed = False

    async def close(self) -> None:
        """End the connection and all calls on it; none can be made any more."""
        self._closed = True
        if self._link is not None:
            self._link.leave("the connection was closed here")
            with anyio.move_on_after(CLOSE_S):
                await self._link.wait_gone()

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
        loop = asyncio.get_running_loop()
        ends_at = None if timeout_s is None else loop.time() + timeout_s
        link = await self._connected_by(timeout_s)
        stream, call = link.begin(self._headers(path, timeout_s, metadata), request, streamed=False)
        timer = None
        if ends_at is not None:
            timer = loop.call_at(ends_at, call.end, Code.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s")
        try:
            await call.wait()
        except BaseException:
            if finish_s:
                with anyio.move_on_after(finish_s, shield=True):
                    await call.wait()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            link.finish(stream)
        if call.failure is not None:
            raise call.failure
        if not call.messages:
            raise GrpcError(Code.INTERNAL, "the answer is empty")
        return call.messages[0]

    async def stream(
        self, path: str, request: bytes, *, metadata: Mapping[str, str] | None = None
    ) -> AsyncGenerator[bytes]:
        """Give the answers of a server stream until it ends. Raises GrpcError."""
        link = await self._connected()
        stream, call = link.begin(self._headers(path, None, metadata), request, streamed=True)
        try:
            while True:
                while call.messages:
                    yield call.messages.popleft()
                if call.failure is not None:
                    raise call.failure
                if call.ended:
                    return
                link.read(stream, call)
                with anyio.move_on_after(QUIET_S):
                    await call.wait()
                    continue
                await link.check()
        finally:
            link.finish(stream)

    async def _connected_by(self, timeout_s: float | None) -> _Link:
        """The same within a deadline. Raises GrpcError."""
        if (link := self._link) is not None and link.usable and not link.is_full and not self._closed:
            return link
        with anyio.move_on_after(timeout_s):
            return await self._connected()
        raise GrpcError(Code.DEADLINE_EXCEEDED, f"no answer within {timeout_s:g} s")

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

    def _headers(self, path: str, timeout_s: float | None, metadata: Mapping[str, str] | None) -> HeaderList:
        headers = [*self._ahead, (b":path", path.encode()), *self._behind]
        if timeout_s is not None:
            headers.append((b"grpc-timeout", timeout_text(timeout_s).encode()))
        headers += [(name.encode(), value.encode()) for name, value in (metadata or {}).items()]
        return headers
