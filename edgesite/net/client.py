"""HTTP/1.1 client with a keep-alive pool, over ``ctx.net``.

    client = HttpClient(ctx.net, "127.0.0.1:6443", tls=context)
    answer = await client.request("GET", "/version")
    async with client.stream("GET", "/api/v1/pods?watch=1") as answer:
        async for chunk in answer: ...

Units   Bytes; deadlines are the caller's (``anyio.fail_after``).
Errors  OSError: could not connect. ClosedByPeer, ProtocolError (both OSErrors): the exchange broke. UpgradeRefused.
State   Idle connections, at most ``idle``; `close` ends them. An exchange that is cancelled cuts its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from edgesite.net import address as addresses
from edgesite.net.client_connection import ClientConnection
from edgesite.net.errors import ClosedByPeer, NetError, ProtocolError
from edgesite.net.headers import HeaderBlock, Headers, encode_headers

if TYPE_CHECKING:
    import ssl

    from edgesite.context import Net

__all__ = ["Answer", "ClosedByPeer", "HttpClient", "ProtocolError", "StreamAnswer", "UpgradeRefused"]

P = TypeVar("P", bound=asyncio.Protocol)
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_BODY_BYTES: Final = 256 * 1024 * 1024
_STALE_S: Final = 90.0  #: idle connections are not used after this time: servers drop theirs about then


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


class UpgradeRefused(NetError):
    """The server answered a request for an upgrade with something else than 101."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the server refused the upgrade with status {answer.status}")
        self.answer = answer


class StreamAnswer:
    """An answer whose body is read as it comes."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end. Raises ClosedByPeer, ProtocolError."""
        return await self._connection.receive()

    async def read_all(self, limit_bytes: int = _BODY_BYTES) -> bytes:
        """Return the rest. Raises ClosedByPeer; ProtocolError, also beyond the limit."""
        parts: list[bytes] = []
        size = 0
        while piece := await self._connection.receive():
            size += len(piece)
            if size > limit_bytes:
                raise ProtocolError(f"the answer is longer than {limit_bytes} bytes")
            parts.append(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._connection.receive():
            yield piece


class HttpClient:
    """Requests to one address."""

    def __init__(
        self,
        net: Net,
        address: str,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | Callable[[], str] | None = None,
        idle: int = 8,
    ) -> None:
        """``headers`` go with every request; ``token`` is sent as a bearer token, asked for each time if callable."""
        self._net = net
        self._address = address
        self._tls = tls
        self._server_hostname = server_hostname
        self._token = token
        self._most_idle = idle
        at = addresses.parse(address)
        host = (
            server_hostname or "localhost" if at.kind != "tcp" else addresses.join(server_hostname or at.host, at.port)
        )
        self._host = host
        self._headers = encode_headers(headers)
        self._idle: list[ClientConnection] = []
        self._closed = False

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close idle connections; later exchanges do not keep theirs. Idempotent."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            if connection.transport is not None:
                connection.transport.close()

    async def request(self, method: str, target: str, headers: HeaderBlock | None = None, body: bytes = b"") -> Answer:
        """Send a request and return the whole answer, whatever its status. Raises OSError."""
        async with self.stream(method, target, headers, body) as answer:
            return Answer(answer.status, answer.headers, await answer.read_all())

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: HeaderBlock | None = None, body: bytes = b""
    ) -> AsyncGenerator[StreamAnswer]:
        """Send a request and read the answer as it comes. Leaving before its end cuts the connection. Raises OSError."""
        head = self._head(method, target, headers, body)
        connection = await self._exchange(method, head, body)
        try:
            yield StreamAnswer(connection)
        finally:
            self._release(connection)

    async def connect_upgrade(
        self, target: str, headers: HeaderBlock, factory: Callable[[], P], *, method: str = "GET"
    ) -> tuple[asyncio.Transport, P, Headers]:
        """Ask for an upgrade (``headers`` holds Upgrade; Connection is added) and hand the connection to a new protocol.
        Raises OSError, UpgradeRefused."""
        block = encode_headers(headers) + b"Connection: Upgrade\r\n"
        connection = await self._connect()
        try:
            await connection.send(self._head(method, target, block, b""), b"", head_only=False)
            await connection.receive_head()
            if connection.status != 101:
                body = await StreamAnswer(connection).read_all(65_536)
                raise UpgradeRefused(Answer(connection.status, connection.headers, body))
            protocol = factory()
            return connection.hand_over(protocol), protocol, connection.headers
        finally:
            connection.abort()  # nothing to cut once it is handed over

    def _head(self, method: str, target: str, headers: HeaderBlock | None, body: bytes) -> bytes:
        lines = encode_headers(headers)
        if self._token is not None and b"authorization:" not in lines.lower():
            token = self._token if isinstance(self._token, str) else self._token()
            lines += encode_headers({"Authorization": f"Bearer {token}"})
        if body or method in ("POST", "PUT", "PATCH"):
            lines += b"Content-Length: %d\r\n" % len(body)
        first = f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n".encode("latin-1")
        if first.count(b"\r") != 2 or first.count(b"\n") != 2 or first.count(b" ") != 3:
            raise ValueError("a request target holds no spaces and no line breaks")
        return first + self._headers + lines + b"\r\n"

    async def _exchange(self, method: str, head: bytes, body: bytes) -> ClientConnection:
        """Send on an idle connection or a new one. An idle one may be stale: an idempotent request is then sent anew."""
        while True:
            connection = self._take_idle() or await self._connect()
            try:
                await connection.send(head, body, head_only=method == "HEAD")
                await connection.receive_head()
            except ClosedByPeer:
                connection.abort()
                if not (connection.reused and connection.untouched and method in _IDEMPOTENT):
                    raise
            except BaseException:
                connection.abort()
                raise
            else:
                return connection

    def _take_idle(self) -> ClientConnection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now - connection.idle_since < _STALE_S:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> ClientConnection:
        _, connection = await self._net.connect(
            ClientConnection, self._address, tls=self._tls, server_hostname=self._server_hostname
        )
        return connection

    def _release(self, connection: ClientConnection) -> None:
        if self._closed or not connection.reusable or len(self._idle) >= self._most_idle:
            if connection.transport is not None:
                connection.transport.abort()
            return
        connection.reused = True
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
