"""One HTTP/1.1 connection of a server: requests to the handler, answers out in order. `Intake` receives.

A handler that answers at once costs no task: the answer is written while the bytes are taken in. While a request is being
answered, later ones wait, and the peer is not read from once any wait.

Units   Seconds of the event loop's clock; sizes in bytes.
Errors  None leave: a peer that breaks the rules is answered through `HttpServer.reject` and cut off.
State   Answering (at most one request), streaming, upgraded, lost.
Source  RFC 9112: persistence 9.3, pipelining 9.3.2, chunked 7.1; RFC 9110: Upgrade 7.8, HEAD 9.3.2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from edgesite.net.compression import gzip, wants_gzip
from edgesite.net.errors import ClosedByPeer
from edgesite.net.headers import HeaderBlock, encode_headers
from edgesite.net.http_intake import Intake
from edgesite.net.http_messages import BodyWriter, Request, Response

if TYPE_CHECKING:
    from anyio import TaskHandle

    from edgesite.net.http import HttpServer

__all__ = ["ServerConnection", "status_line"]

_STATUS: Final = {int(one): f"HTTP/1.1 {int(one)} {one.phrase}\r\n".encode("ascii") for one in HTTPStatus}
_BODILESS: Final = frozenset({204, 304})
_CLOSE: Final = b"connection: close\r\n"
_KEEP: Final = b"connection: keep-alive\r\n"
_COPY_BYTES: Final = 16 * 1024  #: bodies up to this size are joined with their head: one write is cheaper than the copy
_LINGER_S: Final = 1.0  #: how long a refused client may go on sending, so that a reset does not overtake the answer


def status_line(status: int) -> bytes:
    """Return the first line of an answer, line end included."""
    return _STATUS.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode("ascii")


class ServerConnection(Intake):
    """Drives the handler and the transport of one connection."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.limits)
        self._server = server
        self._handler = server.handler
        self._writer: BodyWriter | None = None
        self._task: TaskHandle[None, None] | None = None  # of the handler
        self._queue: deque[Request | Response] = deque()  # what is to be answered after the present request
        self.write_paused = False
        self._drained: list[asyncio.Future[None]] = []
        self._stall_timer: asyncio.TimerHandle | None = None

    # Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._server.admit(self):
            self._refuse(503, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.forget(self)
        self._transport = None
        self._parser = None  # it refers back to us
        self._leaving = True
        self._queue.clear()
        self._stop_timers()
        self.write_paused = False
        self._wake()
        if self._writer is not None:
            self._writer.lost()
            if self._task is not None:
                self._task.cancel()

    def eof_received(self) -> bool:
        """Let a half-closed client have the answers that it still waits for; one that streams has left."""
        self._leaving = True
        assert self._transport is not None
        waits = self._answering is not None and self._writer is None
        return waits and self._transport.get_extra_info("sslcontext") is None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._answering is not None

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    # Flow control towards the peer

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._stall_timer is None:
            self._watch_for_stall()

    def _watch_for_stall(self) -> None:
        delay_s, waits = self.limits.stall_timeout_s, self.buffered_bytes()
        self._stall_timer = self._loop.call_later(delay_s, self._on_stall_timer, waits)

    def _on_stall_timer(self, waited: int) -> None:
        """Cut a peer that has taken nothing since; one that is only slow goes on."""
        self._stall_timer = None
        if self.buffered_bytes() < waited:
            self._watch_for_stall()
        else:
            self.abort()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        self._wake()
        if self._writer is not None and self._writer.on_drain is not None:
            self._writer.on_drain()
        if self._queue:
            self._next()

    def _wake(self) -> None:
        waiters, self._drained = self._drained, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def drained(self) -> None:
        """Wait until the peer has taken most of what was written, or is gone. `Limits.stall_timeout_s` bounds it."""
        while self.write_paused:
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            await waiter

    def buffered_bytes(self) -> int:
        """How much was written and not yet taken by the peer."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._stall_timer = None

    # Answering

    def _take_request(self, request: Request) -> None:
        request.connection = self
        if self._answering is None and not self._queue and not self.write_paused:
            self._dispatch(request)
        elif len(self._queue) >= self.limits.pipelined:
            self._refuse(503, "too many requests wait on this connection")
        else:
            self._queue.append(request)
            self._pause_reading()

    def _dispatch(self, request: Request) -> None:
        self._answering = request
        result: Response | Awaitable[Response | None] | None
        try:
            result = self._handler(request)
        except Exception as exc:  # a handler may raise anything; its client gets a plain failure
            result = self._server.failed(request, exc)
        if isinstance(result, Response):
            self._respond(request, result)
        elif result is not None:
            self._task = self._server.spawn(self._run, request, result)
        elif self._answering is request and self._writer is None and self._upgraded is None:
            self._respond(request, self._server.failed(request, TypeError("the handler gave no answer")))

    async def _run(self, request: Request, awaitable: Awaitable[Response | None]) -> None:
        """Await a handler. A stream that it leaves open ends with it."""
        result: Response | None
        try:
            result = await awaitable
        except Exception as exc:
            result = self._server.failed(request, exc)
        self._task = None
        if self._answering is not request:
            return  # the answer was completed, or the connection is lost or upgraded
        writer = self._writer
        if writer is None:
            self._respond(request, result or self._server.failed(request, TypeError("the handler gave no answer")))
        elif result is None:
            if writer.outlives and not writer.closed:
                return
            writer.close()
        else:
            self.abort()  # failed half-way: the client must see that the body is incomplete
        self._next()

    def _respond(self, request: Request, response: Response) -> None:
        """Write a whole answer."""
        body = response.body
        if len(body) >= self.limits.gzip_bytes and wants_gzip(request, response, self.limits):
            self._server.spawn(self._respond_gzip, request, response)
            return
        self._write_answer(request, response, body, b"")

    async def _respond_gzip(self, request: Request, response: Response) -> None:
        body = await gzip(response.body, self._server.threads)
        self._write_answer(request, response, body, b"content-encoding: gzip\r\nvary: accept-encoding\r\n")
        self._next()

    def _write_answer(self, request: Request, response: Response, body: bytes, extra: bytes) -> None:
        try:
            block = encode_headers(response.headers)
        except ValueError as exc:
            response = self._server.failed(request, exc)
            block, body, extra = encode_headers(response.headers), response.body, b""
        keep = request.keep_alive and not self._server.closing
        if not keep:
            extra += _CLOSE
        elif not request.chunked_ok:
            extra += _KEEP
        status = response.status
        line = status_line(status) + self._server.date_line()
        if status in _BODILESS:
            self.put(b"%b%b%b\r\n" % (line, block, extra))
        elif request.method == "HEAD":
            self.put(b"%b%b%bcontent-length: %d\r\n\r\n" % (line, block, extra, len(body)))
        elif len(body) <= _COPY_BYTES:
            self.put(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (line, block, extra, len(body), body))
        else:
            self.put(b"%b%b%bcontent-length: %d\r\n\r\n" % (line, block, extra, len(body)))
            self.put(body)
        self._complete(keep)

    def _complete(self, keep: bool) -> None:
        """The answer is written whole."""
        self._answering = self._writer = None
        self._served += 1
        if not keep:
            self._queue.clear()
            self.close()
        elif self._timer is None and self._transport is not None:
            if self._in_message:
                self._deadline = self._loop.time() + self.limits.body_timeout_s
            self._arm(self.limits.idle_timeout_s if not self._in_message else self.limits.body_timeout_s)

    def _next(self) -> None:
        """Answer what waits."""
        while self._queue and self._answering is None and not self.write_paused:
            item = self._queue.popleft()
            if isinstance(item, Response):
                self._send_refusal(item)
                return
            self._dispatch(item)
        if self._queue or self._answering is not None or self._upgraded is not None:
            return
        if self._leaving:
            self.close()
        else:
            self._resume_reading()

    def _refuse(self, status: int, message: str) -> None:
        """Answer a peer that broke the rules, after the answers that it waits for; then cut it off."""
        if self._leaving:
            return
        self._leaving = True
        self._in_message = False
        self._body = []
        response = self._server.reject(status, message)
        if self._answering is None and not self._queue:
            self._send_refusal(response)
        else:
            self._queue.append(response)

    def _send_refusal(self, response: Response) -> None:
        if self._transport is None:
            return
        lines = encode_headers(response.headers) + _CLOSE
        body = response.body
        self.put(b"%b%bcontent-length: %d\r\n\r\n%b" % (status_line(response.status), lines, len(body), body))
        self._stop_timers()
        self._resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._timer = self._loop.call_later(_LINGER_S, self.close)

    # Streaming and upgrading

    def open_stream(
        self,
        request: Request,
        status: int,
        headers: HeaderBlock | None,
        on_close: Callable[[], None] | None,
        on_drain: Callable[[], None] | None,
    ) -> BodyWriter:
        """See `Request.open_stream`."""
        self._check(request)
        chunked = request.chunked_ok
        keep = chunked and request.keep_alive and not self._server.closing
        request.keep_alive = keep
        coding = b"transfer-encoding: chunked\r\n" if chunked else b""
        lines = encode_headers(headers) + (coding if keep else coding + _CLOSE)
        self._writer = BodyWriter(
            self, chunked=chunked, empty=request.method == "HEAD", on_close=on_close, on_drain=on_drain
        )
        self.put(b"%b%b%b\r\n" % (status_line(status), self._server.date_line(), lines))
        return self._writer

    def end_stream(self, last: bytes) -> None:
        """The writer is closed."""
        request = self._answering
        if self._transport is None or request is None:
            return
        self.put(last)
        self._complete(request.keep_alive and not self._server.closing)
        self._loop.call_soon(self._next)  # not from within the handler of this one

    def upgrade(
        self, request: Request, protocol: asyncio.Protocol, headers: HeaderBlock | None, status: int
    ) -> asyncio.Transport:
        """See `Request.upgrade`."""
        self._check(request)
        transport = self._transport
        assert transport is not None
        lines = self._server.date_line() + encode_headers(headers)
        self.put(b"%b%bconnection: Upgrade\r\n\r\n" % (status_line(status), lines))
        self._stop_timers()
        self._server.hand_over(self, protocol)
        self._upgraded = protocol
        self._answering = None
        self._transport = None
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        tail, self._tail = self._tail or [], None
        if self._reading_paused:
            transport.resume_reading()
        for data in tail:
            if data:
                protocol.data_received(data)
        return transport

    def _check(self, request: Request) -> None:
        if self.is_closing():
            raise ClosedByPeer("the client left")
        if self._answering is not request or self._writer is not None:
            raise RuntimeError("this request is answered already")
