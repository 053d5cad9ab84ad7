"""A gRPC server for unary calls: small services that programs on this host call, over HTTP/2 without TLS.

    async with GrpcServer({"/v1beta1.Registration/Register": register}) as server:
        await server.listen(ctx.net, "unix:///…/kubelet.sock")

A handler gets the request's bytes and returns the answer's; it raises GrpcError to refuse. Each call runs in a task of its own.

Units   Seconds, bytes.
Errors  OSError from `listen`. What a peer does wrong ends its connection; a handler that fails otherwise is logged and answered INTERNAL.
State   The connections and the calls on them.
Source  grpc.io: "gRPC over HTTP2".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import quote

import anyio
from anyio.abc import TaskGroup

from edgesite.context import Listener, Net
from edgesite.net.grpc import Code, GrpcError
from edgesite.wire.hpack import indexed, literal
from edgesite.wire.http2 import Body, Event, Headers, Http2Error
from edgesite.wire.http2_server import ServerConnection

__all__ = ["GrpcServer", "Handler"]

logger = logging.getLogger(__name__)
Handler = Callable[[bytes], Awaitable[bytes]]
REQUEST_BYTES: Final = 4 << 20
CONNECTIONS: Final = 64
_PREFIX: Final = 5
_HEAD: Final = indexed(":status", "200") + literal("content-type", "application/grpc")


@dataclass(slots=True)
class _Call:
    path: str
    buffer: bytearray = field(default_factory=bytearray)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    running: bool = False


class _Peer(asyncio.Protocol):
    """One connection and the calls on it."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server
        self._http2 = ServerConnection()
        self._calls: dict[int, _Call] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.enter(self):
            self._transport.abort()
            return
        self._send()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._http2.receive(data):
                self._take(event)
        except Http2Error as exc:
            logger.debug("a gRPC peer does not speak HTTP/2 as it should: %s", exc)
            self.close()
            return
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.leave(self)
        for call in self._calls.values():
            call.scope.cancel()
        self._calls.clear()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _take(self, event: Event) -> None:
        match event:
            case Headers():
                if event.stream not in self._calls:
                    self._calls[event.stream] = _Call(dict(event.headers).get(":path", ""))
            case Body():
                if (call := self._calls.get(event.stream)) is not None and not call.running:
                    call.buffer += event.data
                    if len(call.buffer) > REQUEST_BYTES + _PREFIX:
                        self._answer(event.stream, GrpcError(Code.RESOURCE_EXHAUSTED, "the request is too large"))
                        return
            case _:
                if (call := self._calls.pop(event.stream, None)) is not None:
                    call.scope.cancel()
                return
        if event.ended and (call := self._calls.get(event.stream)) is not None and not call.running:
            call.running = True
            self._server.start(self._run, event.stream, call)

    async def _run(self, stream: int, call: _Call) -> None:
        answer: bytes | GrpcError = GrpcError(Code.CANCELLED, "")
        with call.scope:
            answer = await self._server.answer(call.path, bytes(call.buffer))
        if stream in self._calls:
            self._answer(stream, answer)
            self._send()

    def _answer(self, stream: int, answer: bytes | GrpcError) -> None:
        del self._calls[stream]
        if isinstance(answer, bytes):
            body = b"\0" + len(answer).to_bytes(4, "big") + answer
            self._http2.respond(stream, _HEAD, body, literal("grpc-status", "0"))
            return
        text = quote(answer.text, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")
        trailers = literal("grpc-status", str(int(answer.code))) + literal("grpc-message", text)
        self._http2.respond(stream, b"", None, _HEAD + trailers)

    def _send(self) -> None:
        data = self._http2.take()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class GrpcServer:
    """Serves between the start and the end of its block."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._tasks: TaskGroup = anyio.create_task_group()
        self._peers: dict[_Peer, None] = {}
        self._listeners: list[Listener] = []

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
            peer.close()
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(kind, exc, trace)

    async def listen(self, net: Net, address: str) -> Listener:
        """Take connections. Raises OSError."""
        with anyio.CancelScope(shield=True):  # cut off in the middle, it would leave a socket that nobody closes
            listener = await net.listen(lambda: _Peer(self), address)
            self._listeners.append(listener)
        return listener

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

    async def answer(self, path: str, framed: bytes) -> bytes | GrpcError:
        """Let the handler of ``path`` answer; what it refuses is returned."""
        handler = self._handlers.get(path)
        if handler is None:
            return GrpcError(Code.UNIMPLEMENTED, f"unknown method {path}")
        if len(framed) < _PREFIX or framed[0] or int.from_bytes(framed[1:_PREFIX], "big") != len(framed) - _PREFIX:
            return GrpcError(Code.INVALID_ARGUMENT, "the request is not one uncompressed message")
        try:
            return await handler(framed[_PREFIX:])
        except GrpcError as exc:
            return exc
        except Exception:
            logger.exception("%s failed", path)
            return GrpcError(Code.INTERNAL, "the call failed here")
