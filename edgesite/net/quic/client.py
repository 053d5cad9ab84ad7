"""Connecting over QUIC, and staying connected while our own address changes.

    socket = await connect(net, "cloud:10001", Hello("edge-1"), credentials, max_message_bytes=…)
    tasks.start_soon(socket.keep_path)       # until the connection is over

A server behind which nobody listens any more is noticed at the next packet: by its machine's ICMP answer when nothing else comes
within ``_REFUSED_S``, by a stateless reset when it has started anew. Where nothing comes at all, another UDP socket is tried,
for our address may be another one now; the session above decides when the server is lost.

Units   Seconds of the event loop's clock.
Errors  Refused (the server answered, and said no), SocketClosed, OSError from connect. The caller sets the deadline.
State   The UDP socket, replaced by `ClientSocket.keep_path`.
Source  RFC 9000 sections 9 and 10.3.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.net import address as addresses
from edgesite.net.errors import NetError
from edgesite.net.quic.core import NO_COMMON_ALPN, Connection, Credentials, configuration
from edgesite.net.quic.framing import Answer, Hello
from edgesite.net.quic.socket import WINDOW_BYTES, QuicClosed, QuicSocket
from edgesite.net.udp import send_all

if TYPE_CHECKING:
    from edgesite.context import Net

__all__ = ["ClientSocket", "Refused", "connect"]

_IDLE_S: Final = 60.0
_REFUSED_S: Final = 3.0
_SILENT_S: Final = 3.0  #: with something unanswered, after which another UDP socket is tried
_SILENT_MOST_S: Final = 24.0


class Refused(NetError):
    """The server does not want us."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"refused with status {answer.status}: {answer.reason}")
        self.answer = answer


class _Port(asyncio.DatagramProtocol):
    """A UDP socket of a connection."""

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport | None = None
        self.owner: ClientSocket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams_received((data,), addr)

    def datagrams_received(self, datagrams: Sequence[bytes], addr: Any) -> None:
        """See `edgesite.net.udp`."""
        if self.owner is not None:
            self.owner.datagrams(datagrams, addr)

    def error_received(self, exc: Exception) -> None:
        if self.owner is not None and isinstance(exc, ConnectionRefusedError):
            self.owner.on_refused()

    def close(self) -> None:
        self.owner = None
        if self.transport is not None:
            self.transport.close()


class ClientSocket(QuicSocket):
    """A `QuicSocket` with a UDP socket of its own, connected to the server."""

    def __init__(self, net: Net, address: str, connection: Connection, port: _Port, *, max_message_bytes: int) -> None:
        super().__init__(connection, self._to_port, max_message_bytes=max_message_bytes)
        self._net, self._address = net, address
        self._server = port.transport.get_extra_info("peername") if port.transport is not None else None
        self._port = port
        self._refused_at: float | None = None
        self._unanswered = anyio.Event()
        self.on_close = self._on_close
        port.owner = self

    def connect(self) -> None:
        """Begin the handshake."""
        self.start(self._server)

    def datagrams(self, datagrams: Sequence[bytes], address: Any) -> None:
        known = list(itertools.takewhile(lambda data: not self.connection.is_reset(data), datagrams))
        if known:  # a goodbye may be among them
            super().datagrams(known, self._server)
        if len(known) < len(datagrams):
            self.lose("the server does not know this connection: it has started anew")

    def on_refused(self) -> None:
        """The server's machine says that nobody listens. Others can say so too: it decides only before the handshake."""
        if not self.heard_at:
            self.lose("connection refused: nobody listens on the server's UDP port")
        elif self._refused_at is None:
            self._refused_at = self.heard_at
            self._loop.call_later(_REFUSED_S, self._look_after_refusal)

    def _look_after_refusal(self) -> None:
        refused_at, self._refused_at = self._refused_at, None
        if self.heard_at == refused_at:
            self.lose("nobody listens on the server's UDP port any more")

    async def keep_path(self) -> None:
        """Take another UDP socket when nothing comes through this one; returns when the connection is over."""
        patience_s = _SILENT_S
        while self.closed is None:
            if not self.connection.unanswered:
                self._unanswered = anyio.Event()
                await self._unanswered.wait()
                continue
            heard_at = self.heard_at
            await anyio.sleep(patience_s)
            if self.heard_at != heard_at:
                patience_s = _SILENT_S
            elif self.closed is None and self.connection.unanswered:
                patience_s = min(patience_s * 2, _SILENT_MOST_S)
                await self._move()

    async def _move(self) -> None:
        try:
            _, port = await self._net.datagrams(_Port, remote=self._address)
        except OSError:
            return  # no network at all now: the old one serves as well
        if self.closed is not None:
            port.close()
            return
        self._port.close()
        self._port, port.owner = port, self
        self.connection.change_connection_id()
        self.ping()

    def _to_port(self, datagrams: Sequence[bytes], _: Any) -> None:
        transport = self._port.transport
        if transport is not None and not transport.is_closing():
            send_all(transport, datagrams)
        if not self._unanswered.is_set() and self.connection.unanswered:
            self._unanswered.set()

    def _on_close(self, closed: object) -> None:
        self._unanswered.set()
        self._port.close()


async def connect(
    net: Net,
    address: str,
    hello: Hello,
    credentials: Credentials,
    *,
    max_message_bytes: int,
    server_name: str | None = None,
    idle_s: float = _IDLE_S,
) -> ClientSocket:
    """Connect and greet; the connection ends when nothing comes for ``idle_s``. Raises Refused, SocketClosed, OSError, ValueError (credentials that cannot be used)."""
    name = server_name or addresses.parse(address).host
    made = configuration(credentials, server_name=name, idle_s=idle_s)
    _, port = await net.datagrams(_Port, remote=address)
    connection = Connection(made, window_bytes=WINDOW_BYTES)
    socket = ClientSocket(net, address, connection, port, max_message_bytes=max_message_bytes)
    try:
        socket.on_ready = lambda: socket.send_nowait(hello.to_bytes(), text=True, lane=0)
        socket.connect()
        answer = Answer.from_bytes((await socket.recv()).data)
        if answer.status != 200:
            raise Refused(answer)
    except QuicClosed as exc:
        raise _explained(exc) from exc
    except BaseException:
        socket.close_nowait()
        raise
    socket.allow_messages()
    return socket


def _explained(closed: QuicClosed) -> QuicClosed:
    if closed.code == NO_COMMON_ALPN:
        return QuicClosed(closed.code, "the server speaks another version of the link")
    return closed
