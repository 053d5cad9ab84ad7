"""`QuicServer`: one UDP port, many connections; what strangers may cost is bounded.

    server = QuicServer(configuration, greet, limits=…, reset_key=…, random_bytes=…, log=…)
    transport, _ = await net.datagrams(lambda: server, local="0.0.0.0:10001")
    server.close()

A client first proves its address by a Retry, which costs us no state; then it gets ``handshake_s`` to show its certificate and
greeting. ``greet(socket, hello, peer)`` decides: it returns a refusal, or None and owns the socket from then on. Answers to
strangers (Retry, version negotiation, stateless resets) are never larger than what caused them, and limited in rate.

Units   Seconds of the event loop's clock, datagrams a second.
Errors  None: what is no QUIC is counted in ``dropped``.
State   Connections by each of their ids; handshakes under way.
Source  RFC 9000 sections 5.2.2, 6, 8.1, 10.3. KubeEdge's drafts: gQUIC Q039 to Q044, whose packets name their version in text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.retry import QuicRetryTokenHandler

from edgesite.net import pem
from edgesite.net.errors import ProtocolError
from edgesite.net.http_messages import PeerInfo
from edgesite.net.quic.core import CID_BYTES, Connection, reset_token
from edgesite.net.quic.framing import VERSION, Answer, Hello
from edgesite.net.quic.socket import WINDOW_BYTES, QuicSocket
from edgesite.net.udp import send_all

if TYPE_CHECKING:
    from edgesite.net.websocket import Message, SocketClosed

__all__ = ["QuicLimits", "QuicPeer", "QuicServer"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_RESET_BYTES: Final = 43  #: as an ordinary small packet; a reset must be smaller than what causes it
_LEAST_RESET_BYTES: Final = 21
_LINGER_S: Final = 3.0  #: for the peer to read a refusal
_DRAFT_SAID_S: Final = 600.0
_VERSION_NEGOTIATION: Final = 0x80


@dataclass(frozen=True, slots=True)
class QuicLimits:
    """Bounds of a server."""

    connections: int = 1000
    handshakes: int = 256  #: under way at the same time; more are not begun, and the client asks again
    handshake_s: float = 10.0  #: from the proof of its address to its greeting
    answers_per_s: float = 500.0  #: to strangers
    message_bytes: int = 16 * 1024 * 1024


class QuicPeer(PeerInfo):
    """Who is at the other end, by its verified certificate."""

    __slots__ = ("_der", "_facts")

    def __init__(self, certificate_der: bytes, address: str) -> None:
        """Raises ValueError."""
        self._der = certificate_der
        self._facts = pem.facts(certificate_der)
        self.address = address
        self.in_process = False

    @property
    def common_name(self) -> str:
        return self._facts.common_name

    @property
    def organizations(self) -> tuple[str, ...]:
        return self._facts.organizations

    @property
    def certificate_der(self) -> bytes | None:
        return self._der


Greet = Callable[[QuicSocket, Hello, QuicPeer], Answer | None]


class _Bucket:
    """At most so many answers a second, and a burst of one second's."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._tokens, self._at = rate, rate, now

    def take(self, now: float) -> bool:
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class QuicServer(asyncio.DatagramProtocol):
    """See the module docstring. ``random_bytes`` makes the ids of Retries and the noise of resets."""

    def __init__(
        self,
        made: QuicConfiguration,
        greet: Greet,
        *,
        limits: QuicLimits,
        reset_key: bytes,
        random_bytes: Callable[[int], bytes],
        log: Log,
    ) -> None:
        self.configuration = made  #: may be replaced: the next connections are made with it
        self.dropped = 0  #: datagrams that belong to nobody, or came too fast
        self._greet = greet
        self._limits = limits
        self._reset_key = reset_key
        self._random_bytes = random_bytes
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._retry = QuicRetryTokenHandler()
        self._answers = _Bucket(limits.answers_per_s, self._loop.time())
        self._by_id: dict[bytes, QuicSocket] = {}
        self._ids: dict[QuicSocket, set[bytes]] = {}
        self._handshakes: dict[QuicSocket, asyncio.TimerHandle] = {}
        self._draft_said = -_DRAFT_SAID_S

    @property
    def connections(self) -> int:
        """How many there are, handshakes included."""
        return len(self._ids)

    def close(self) -> None:
        """Say goodbye to all, and close the port. Idempotent."""
        for socket in tuple(self._ids):
            socket.close_nowait(0, "the server stops")
        if self._transport is not None:
            self._transport.close()

    # -- the port ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for socket in tuple(self._ids):
            socket.lose("the port was closed")

    def error_received(self, exc: Exception) -> None:
        """An ICMP message about some peer: its own timers tell."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.datagrams_received((data,), addr)

    def datagrams_received(self, datagrams: Sequence[bytes], addr: Any) -> None:
        """See `edgesite.net.udp`. What is for one connection is handed on together."""
        at, count = 0, len(datagrams)
        while at < count:
            data = datagrams[at]
            at += 1
            if len(data) <= CID_BYTES or data[0] & 0x80:
                self._long(data, addr)
                continue
            cid = data[1 : 1 + CID_BYTES]  # short header: the way of all but handshakes
            first = at - 1
            while at < count and datagrams[at][1 : 1 + CID_BYTES] == cid and not datagrams[at][0] & 0x80:
                at += 1
            self._short(cid, datagrams[first:at], addr)

    def _short(self, cid: bytes, datagrams: Sequence[bytes], addr: Any) -> None:
        socket = self._by_id.get(cid)
        if socket is not None:
            socket.datagrams(datagrams, addr)
            return
        for data in datagrams:
            if not self._is_draft(data, addr):
                self._reset(data, addr)

    def _long(self, data: bytes, addr: Any) -> None:
        if self._is_draft(data, addr):
            return
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CID_BYTES)
        except ValueError:
            self.dropped += 1
            return
        self._long_header(header, data, addr)

    def _long_header(self, header: QuicHeader, data: bytes, addr: Any) -> None:
        if header.packet_type == QuicPacketType.VERSION_NEGOTIATION:
            self.dropped += 1
        elif header.version not in self.configuration.supported_versions:
            self._negotiate(header, data, addr)
        elif (socket := self._by_id.get(header.destination_cid)) is not None:
            socket.datagrams((data,), addr)
        elif header.packet_type == QuicPacketType.INITIAL and len(data) >= SMALLEST_MAX_DATAGRAM_SIZE:
            self._initial(header, data, addr)
        else:
            self.dropped += 1

    def _to_stranger(self, data: bytes, addr: Any) -> None:
        if self._transport is not None and self._answers.take(self._loop.time()):
            self._transport.sendto(data, addr)
        else:
            self.dropped += 1

    def _negotiate(self, header: QuicHeader, data: bytes, addr: Any) -> None:
        if len(data) < SMALLEST_MAX_DATAGRAM_SIZE:
            self.dropped += 1
            return
        versions = self.configuration.supported_versions
        answer = encode_quic_version_negotiation(
            source_cid=header.destination_cid, destination_cid=header.source_cid, supported_versions=versions
        )
        self._to_stranger(answer, addr)

    def _is_draft(self, data: bytes, addr: Any) -> bool:
        """Whether a KubeEdge edge knocks with its own QUIC. It gets no answer that it would understand: it is told in our log."""
        first = data[0] if data else 0
        version = data[1:5] if first & 0x80 else data[9:13] if first & 0x01 and first & 0x08 else b""
        if len(version) != 4 or version[:2] != b"Q0" or not version[2:].isdigit():
            return False
        self.dropped += 1
        now = self._loop.time()
        if now - self._draft_said >= _DRAFT_SAID_S:
            self._draft_said = now
            self._log.warning(
                "%s speaks QUIC's draft %s, as KubeEdge's edgecore does with modules.edgeHub.quic: it is not served here; let it"
                " use modules.edgeHub.websocket (port 10000)",
                addr[0],
                version.decode("ascii"),
            )
        return True

    def _reset(self, data: bytes, addr: Any) -> None:
        """Tell a peer that its connection is not known here, if its packet was large enough."""
        size = min(_RESET_BYTES, len(data) - 1)
        if size < _LEAST_RESET_BYTES:
            self.dropped += 1
            return
        token = reset_token(self._reset_key, data[1 : 1 + CID_BYTES])
        noise = bytearray(self._random_bytes(size - len(token)))
        noise[0] = 0x40 | noise[0] & 0x3F
        self._to_stranger(bytes(noise) + token, addr)

    # -- new connections -----------------------------------------------------------------------------------------

    def _initial(self, header: QuicHeader, data: bytes, addr: Any) -> None:
        now = self._loop.time()
        if not header.token:
            source_cid = self._random_bytes(CID_BYTES)
            token = self._retry.create_token(
                address=addr,
                original_destination_connection_id=header.destination_cid,
                retry_source_connection_id=source_cid,
                now=now,
            )
            answer = encode_quic_retry(
                version=header.version or 0,
                source_cid=source_cid,
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=token,
            )
            self._to_stranger(answer, addr)
            return
        try:
            original = self._retry.validate_token(
                address=addr, destination_cid=header.destination_cid, token=header.token, now=now
            )
        except ValueError:
            self.dropped += 1  # forged, or from before a restart: the client begins anew by itself
            return
        if len(self._handshakes) >= self._limits.handshakes or len(self._ids) >= self._limits.connections:
            self.dropped += 1
            return
        self._begin(original, header.destination_cid).datagrams((data,), addr)

    def _begin(self, original: bytes, destination: bytes) -> QuicSocket:
        connection = Connection(
            self.configuration,
            window_bytes=WINDOW_BYTES,
            reset_key=self._reset_key,
            original_destination_connection_id=original,
            retry_source_connection_id=destination,
        )
        socket = QuicSocket(connection, self._write, max_message_bytes=self._limits.message_bytes)
        self._ids[socket] = set()
        for cid in (destination, connection.host_cid):
            self._learn(socket, cid, True)
        socket.on_cid = lambda cid, known: self._learn(socket, cid, known)
        socket.on_close = lambda closed: self._forget(socket, closed)
        socket.on_message = lambda message: self._hello(socket, message)
        self._handshakes[socket] = self._loop.call_later(
            self._limits.handshake_s, socket.close_nowait, 0, "no greeting in time"
        )
        return socket

    def _write(self, datagrams: Sequence[bytes], addr: Any) -> None:
        if self._transport is not None:
            send_all(self._transport, datagrams, addr)

    def _learn(self, socket: QuicSocket, cid: bytes, known: bool) -> None:
        ids = self._ids.get(socket)
        if ids is None:
            return
        if known:
            self._by_id[cid] = socket
            ids.add(cid)
        else:
            self._by_id.pop(cid, None)
            ids.discard(cid)

    def _forget(self, socket: QuicSocket, closed: SocketClosed) -> None:
        """A connection is over before its greeting, or was refused."""
        self._log.debug("a connection over QUIC from %s came to nothing: %s", _host(socket), closed)
        self._drop(socket)

    def _drop(self, socket: QuicSocket) -> None:
        timer = self._handshakes.pop(socket, None)
        if timer is not None:
            timer.cancel()
        for cid in self._ids.pop(socket, ()):
            self._by_id.pop(cid, None)

    def _hello(self, socket: QuicSocket, message: Message) -> None:
        """The greeting came: the peer's certificate is verified by now."""
        try:
            hello = Hello.from_bytes(message.data)
            peer = QuicPeer(socket.connection.peer_certificate, _host(socket))
        except (ProtocolError, ValueError) as exc:
            self._refuse(socket, Answer(400, str(exc)))
            return
        if hello.version != VERSION:
            self._refuse(socket, Answer(426, f"version {VERSION} of the link is spoken here, not {hello.version}"))
            return
        socket.on_message = None
        refusal = self._greet(socket, hello, peer)
        if refusal is not None:
            self._refuse(socket, refusal)
            return
        self._handshakes.pop(socket).cancel()
        socket.allow_messages()
        owners = socket.on_close

        def on_close(closed: SocketClosed) -> None:
            self._drop(socket)
            if owners is not None:
                owners(closed)

        socket.on_close = on_close
        socket.send_nowait(Answer(200).to_bytes(), text=True, lane=0)

    def _refuse(self, socket: QuicSocket, answer: Answer) -> None:
        """Tell why, and leave the peer the time to read it."""
        socket.on_message = lambda message: None
        socket.send_nowait(answer.to_bytes(), text=True, lane=0)
        timer = self._handshakes.get(socket)
        if timer is not None:
            timer.cancel()
        self._handshakes[socket] = self._loop.call_later(_LINGER_S, socket.close_nowait, 0, answer.reason)


def _host(socket: QuicSocket) -> str:
    address = socket.peer_address
    return str(address[0]) if address else ""
