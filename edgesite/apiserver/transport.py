"""The in-process road to the API server: its own handler, called without a socket. Implements `edgesite.client.transport.Transport`.

Errors  OSError for a stream that was cut.
State   One bounded buffer for each open stream; its reader and its writer share the loop.
Source  –
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.net.errors import ClosedByPeer, WouldBlock
from edgesite.net.http import Frame, Headers, Request, Response

if TYPE_CHECKING:
    from edgesite.apiserver.authn import User
    from edgesite.apiserver.server import ApiServer
    from edgesite.net.http import HeaderBlock

__all__ = ["InProcessTransport"]

BUFFER_BYTES: Final = 4 * 1024 * 1024  #: of a stream whose reader is behind


class _Peer:
    """This very process."""

    address = ""
    in_process = True
    common_name = ""
    organizations: tuple[str, ...] = ()
    certificate_der: bytes | None = None


_PEER: Final = _Peer()


@lru_cache(maxsize=256)
def _parsed(headers: bytes) -> Mapping[str, str]:
    lines = (line.partition(":") for line in headers.decode("latin-1").splitlines())
    return {name.lower(): value.strip() for name, _, value in lines}


def _as_mapping(headers: HeaderBlock | None) -> Mapping[str, str]:
    if headers is None:
        return {}
    return _parsed(headers) if isinstance(headers, bytes) else {name.lower(): value for name, value in headers.items()}


class LocalStream:
    """A streamed answer: the writer that the handler has and what its reader iterates over."""

    def __init__(
        self,
        status: int,
        headers: HeaderBlock | None,
        on_close: Callable[[], None] | None,
        on_drain: Callable[[], None] | None,
        *,
        bounded: bool,
    ) -> None:
        self.status = status
        self.headers = _as_mapping(headers)
        self._limit = BUFFER_BYTES if bounded else sys.maxsize
        self.on_close = on_close
        self.on_drain = on_drain
        self.closed = False
        self._cut = False
        self._left = False
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # the writer

    def write_nowait(self, data: bytes | Frame) -> None:
        """Raises ClosedByPeer, WouldBlock."""
        if self.closed:
            raise ClosedByPeer("the reader left")
        if self._size > self._limit:
            raise WouldBlock("the reader is too slow")
        self._put(data)

    async def write(self, data: bytes | Frame) -> None:
        """Raises ClosedByPeer."""
        if self.closed:
            raise ClosedByPeer("the reader left")
        self._put(data)
        await self.drain()

    async def drain(self) -> None:
        """Raises ClosedByPeer."""
        while self._size > self._limit and not self.closed:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        if self.closed:
            raise ClosedByPeer("the reader left")

    def close(self) -> None:
        self.closed = True
        self._wake()

    def abort(self) -> None:
        self._cut = True
        self.close()

    def _put(self, data: bytes | Frame) -> None:
        payload = data.payload if isinstance(data, Frame) else data
        if payload:
            self._chunks.append(payload)
            self._size += len(payload)
            self._wake()

    def _wake(self) -> None:
        for future in (self._waiter, self._room if self.closed else None):
            if future is not None and not future.done():
                future.set_result(None)

    # the reader

    def __aiter__(self) -> LocalStream:
        return self

    async def __anext__(self) -> bytes:
        """Raises OSError when the answer was cut."""
        while not self._chunks:
            if self._cut:
                raise ConnectionResetError("the API server cut the answer")
            if self.closed:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._chunks.popleft()
        was_full = self._size > self._limit
        self._size -= len(chunk)
        if was_full and self._size <= self._limit:
            self._make_room()
        return chunk

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self.on_drain is not None and not self.closed:
            self.on_drain()

    def leave(self) -> None:
        """The reader is gone."""
        self._chunks.clear()
        self._size = 0
        if not self.closed:
            self.closed = True
            if self.on_close is not None:
                self.on_close()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


class LocalRequest(Request):
    """A request of a user who needs no authentication, a module of this process; without one it is authenticated as any other."""

    __slots__ = ("_bounded", "opened", "user")

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        user: User | None,
        *,
        bounded: bool = True,
    ) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        super().__init__(None, method, target, Headers(raw), body, _PEER)  # type: ignore[arg-type]
        self.user = user
        self._bounded = bounded  # whether a slow reader holds the writer up
        self.opened: asyncio.Future[LocalStream] = asyncio.get_running_loop().create_future()

    def open_stream(
        self,
        status: int = 200,
        headers: HeaderBlock | None = None,
        *,
        on_close: Callable[[], None] | None = None,
        on_drain: Callable[[], None] | None = None,
    ) -> Any:
        stream = LocalStream(status, headers, on_close, on_drain, bounded=self._bounded)
        if not self.opened.done():
            self.opened.set_result(stream)
        return stream


class _Whole:
    """A whole answer as a stream."""

    def __init__(self, response: Response) -> None:
        self.status = response.status
        self.headers = _as_mapping(response.headers)
        self._body = response.body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body


class InProcessTransport:
    """Calls the handler as a given user, or as whom the headers of a request show."""

    def __init__(self, server: ApiServer, user: User | None) -> None:
        self._server = server
        self._user = user

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, Mapping[str, str], bytes]:
        request = LocalRequest(method, target, headers, body, self._user, bounded=False)
        answer = self._server.handle(request)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, Response):
            return answer.status, _as_mapping(answer.headers), answer.body
        stream = request.opened.result()
        try:
            return stream.status, stream.headers, b"".join([chunk async for chunk in stream])
        finally:
            stream.leave()

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncIterator[LocalStream | _Whole]:
        """Open a streamed answer; leaving the block ends it."""
        request = LocalRequest(method, target, headers, body, self._user)
        answer = self._server.handle(request)
        if isinstance(answer, Response):
            yield _Whole(answer)
        elif answer is None:
            stream = request.opened.result()
            try:
                yield stream
            finally:
                stream.leave()
        else:
            async with self._beside(request, answer) as begun:
                yield begun

    @asynccontextmanager
    async def _beside(self, request: LocalRequest, answer: Any) -> AsyncIterator[LocalStream | _Whole]:
        """Let the handler's coroutine run next to the reader of what it streams."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            outcome: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
            tasks.start_soon(_carry_out, answer, outcome)
            either: list[asyncio.Future[Any]] = [outcome, request.opened]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            stream: LocalStream | None = request.opened.result() if request.opened.done() else None
            try:
                yield stream or _Whole(outcome.result() or Response(500))
            except Exception as exc:  # told outside of the group, which would wrap it
                failure = exc
            finally:
                if stream is not None:
                    stream.leave()
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure


async def _carry_out(answer: Any, outcome: asyncio.Future[Response | None]) -> None:
    try:
        outcome.set_result(await answer)
    except Exception as exc:
        if not outcome.done():
            outcome.set_exception(exc)
    finally:
        if not outcome.done():
            outcome.cancel()
