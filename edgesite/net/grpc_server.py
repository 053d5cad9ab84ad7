"""A gRPC server: small services that programs on this host call, over HTTP/2 without TLS.

    async with GrpcServer({"/v1beta1.Registration/Register": register}, {"/…/ListAndWatch": list_and_watch}) as server:
        await server.listen(ctx.net, "unix:///…/kubelet.sock")

A handler gets the request's bytes and returns the answer's; one of a stream is an async generator of answers, held up by who reads
slowly. It raises GrpcError to refuse. Each call runs in a task of its own, which is cancelled at the caller's deadline or when the
caller is gone.

Units   Seconds, bytes.
Errors  OSError from `listen`. What a peer does wrong ends its connection; a handler that fails otherwise is logged and answered INTERNAL.
State   The connections and the calls on them.
Source  grpc.io: "gRPC over HTTP2".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskGroup

from edgesite.context import Listener, Net
from edgesite.net.grpc_messages import Code, GrpcError, Unframer, framed, read_timeout, write_status
from edgesite.net.http2 import ErrorCodes, HeaderList, Http2Protocol

__all__ = ["GrpcServer", "Handler", "StreamHandler"]

logger = logging.getLogger(__name__)
Handler = Callable[[bytes], Awaitable[bytes]]
StreamHandler = Callable[[bytes], AsyncGenerator[bytes]]
REQUEST_BYTES: Final = 4 << 20
HELD_BYTES: Final = 64 << 20  #: of requests that are not complete, over all connections
CONNECTIONS: Final = 64
_HEAD: Final = ((b":status", b"200"), (b"content-type", b"application/grpc"))


class _Call:
    """One call, while its request comes and while it is answered."""

    __slots__ = ("held", "path", "requests", "running", "scope", "timeout_s", "unframer")

    def __init__(self, headers: HeaderList) -> None:
        said = dict(headers)
        self.path = said.get(b":path", b"").decode("latin-1")
        self.timeout_s = read_timeout(said.get(b"grpc-timeout", b""))
        self.unframer = Unframer(REQUEST_BYTES, "the request")
        self.requests: list[bytes] = []
        self.held = 0
        self.scope = anyio.CancelScope()
        self.running = False


class _Peer(Http2Protocol):
    """One connection and the calls on it."""

    def __init__(self, server: GrpcServer) -> None:
        super().__init__(client=False)
        self._server = server
        self._calls: dict[int, _Call] = {}

    # What the connection tells

    def came(self) -> None:
        if not self._server.enter(self):
            self.leave("there are too many connections", ErrorCodes.ENHANCE_YOUR_CALM)

    def headers(self, stream: int, headers: HeaderList, ended: bool) -> None:
        if stream not in self._calls:
            self._calls[stream] = _Call(headers)
        if ended:
            self._begin(stream)

    def data(self, stream: int, data: bytes, ended: bool) -> None:
        self.consumed(stream, len(data))
        call = self._calls.get(stream)
        if call is None or call.running:
            return
        call.held += len(data)
        try:
            self._server.hold(len(data))
            for message in call.unframer.feed(data):
                call.requests.append(message)
                if len(call.requests) > 1:
                    raise GrpcError(Code.UNIMPLEMENTED, "more than one message in a request")
        except GrpcError as exc:
            self._refuse(stream, exc)
            return
        if ended:
            self._begin(stream)

    def reset(self, stream: int, code: int) -> None:
        self._forget(stream)

    def lost(self, why: str) -> None:
        logger.debug("a gRPC connection is over: %s", why)
        self._server.leave(self)
        for stream in tuple(self._calls):
            self._forget(stream)

    # Calls

    def _begin(self, stream: int) -> None:
        call = self._calls.get(stream)
        if call is None or call.running:
            return
        if not call.requests or not call.unframer.is_between:
            self._refuse(stream, GrpcError(Code.INVALID_ARGUMENT, "the request is not one message"))
            return
        call.running = True
        self._server.start(self._run, stream, call)

    async def _run(self, stream: int, call: _Call) -> None:
        with call.scope:
            if call.timeout_s is not None:
                call.scope.deadline = anyio.current_time() + call.timeout_s
            try:
                if (streamed := self._server.streams.get(call.path)) is not None:
                    await self._give(stream, streamed, call.requests[0])
                else:
                    await self._answer(stream, await self._server.answer(call.path, call.requests[0]))
            except GrpcError as exc:
                self._refuse(stream, exc)
            except Exception:
                logger.exception("%s failed", call.path)
                self._refuse(stream, GrpcError(Code.INTERNAL, "the call failed here"))
        if call.scope.cancelled_caught and stream in self._calls:
            self._refuse(stream, GrpcError(Code.DEADLINE_EXCEEDED, "the caller's deadline has passed"))

    async def _answer(self, stream: int, answer: bytes) -> None:
        self.respond(stream, _HEAD)
        self.send(stream, framed(answer), trailers=write_status(Code.OK))
        self._done(stream)

    async def _give(self, stream: int, handler: StreamHandler, request: bytes) -> None:
        self.respond(stream, _HEAD)
        self.write()
        async with aclosing(handler(request)) as answers:
            async for answer in answers:
                self.useful()
                self.send(stream, framed(answer))
                if not await self.room(stream):
                    return
        self.send(stream, b"", trailers=write_status(Code.OK))
        self._done(stream)

    def _refuse(self, stream: int, why: GrpcError) -> None:
        """End a call with a status, also in the middle of a stream of answers, or of a request."""
        if stream in self._calls:
            self.fail(stream, _HEAD, write_status(why.code, why.text))
            self._done(stream)
            self.cancel(stream, ErrorCodes.NO_ERROR)
            self.write()

    def _done(self, stream: int) -> None:
        self.useful()
        if (call := self._calls.pop(stream, None)) is not None:
            self._server.release(call.held)

    def _forget(self, stream: int) -> None:
        """Nobody waits for this call any more."""
        if (call := self._calls.pop(stream, None)) is not None:
            self._server.release(call.held)
            call.scope.cancel()


class GrpcServer:
    """Serves between the start and the end of its block."""

    def __init__(self, handlers: Mapping[str, Handler], streams: Mapping[str, StreamHandler] | None = None) -> None:
        self._handlers, self.streams = handlers, streams or {}
        self._tasks: TaskGroup = anyio.create_task_group()
        self._peers: dict[_Peer, None] = {}
        self._listeners: list[Listener] = []
        self._held = 0

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with anyio.CancelScope(shield=True):
            for listener in self._listeners:
                await listener.close()
        for peer in tuple(self._peers):
            peer.leave("this server ends")
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(kind, exc, trace)

    async def listen(self, net: Net, address: str) -> Listener:
        """Take connections. Raises OSError."""
        with anyio.CancelScope(shield=True):  # cut off in the middle, it would leave a socket that nobody closes
            listener = await net.listen(lambda: _Peer(self), address)
            self._listeners.append(listener)
        return listener

    def protocol(self) -> asyncio.Protocol:
        """Return the protocol of one more connection, for whoever listens by themselves."""
        return _Peer(self)

    # For connections

    def enter(self, peer: _Peer) -> bool:
        if len(self._peers) >= CONNECTIONS:
            return False
        self._peers[peer] = None
        return True

    def leave(self, peer: _Peer) -> None:
        self._peers.pop(peer, None)

    def start(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        self._tasks.start_soon(function, *args)

    def hold(self, count: int) -> None:
        """Count what has come of a request. Raises GrpcError when all requests together are too much."""
        self._held += count
        if self._held > HELD_BYTES:
            raise GrpcError(Code.RESOURCE_EXHAUSTED, "the requests under way are too large")

    def release(self, count: int) -> None:
        self._held -= count

    async def answer(self, path: str, request: bytes) -> bytes:
        """Let the handler of ``path`` answer. Raises GrpcError, and what the handler raises."""
        if (handler := self._handlers.get(path)) is None:
            raise GrpcError(Code.UNIMPLEMENTED, f"unknown method {path}")
        return await handler(request)
