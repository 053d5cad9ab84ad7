"""One connection of a client: which packet may come when, and what is answered.

    FRESH ──CONNECT──> ASKING (who it is) ──> OPEN ──> CLOSED

The driver gives bytes to `receive`, sends what `take` gives, closes when `is_over` and nothing is left, and says `writable` as its transport has
room. Answers that tell of something stored wait until the journal has it (`answer`).

Errors  None leaves `receive`: who breaks the protocol is told why where its version has words for it, and the connection is over.
Bounds  A packet before CONNECT is answered: `FIRST_BYTES`. What comes while ASKING: as much as one packet may have.
Source  OASIS, MQTT Version 5.0, sections 3.1, 3.3, 3.14, 4.3, 4.9, 4.13; version 3.1.1, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.packets import (
    V5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Kind,
    Packet,
    Ping,
    ProtocolError,
    Publish,
    Reason,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)

if TYPE_CHECKING:
    from edgesite.wire.mqtt.broker import Broker
    from edgesite.wire.mqtt.session import Session

__all__ = ["Connection", "Peer", "State"]

FIRST_BYTES: Final = 256 << 10
ALIAS_CHARS: Final = 64 << 10  #: and those of one topic, of a connection
#: What version 3.1.1 has for a refusal of CONNECT; all else is 3, "server unavailable".
_RETURN_CODES: Final = {
    Reason.VERSION: 1,
    Reason.CLIENT_ID: 2,
    Reason.BAD_LOGIN: 4,
    Reason.NOT_AUTHORIZED: 5,
}


class State(Enum):
    FRESH = "fresh"
    ASKING = "asking"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connects, as far as the transport knows."""

    address: str = ""
    is_local: bool = False  #: from this host
    certificate_name: str = ""  #: common name of a verified client certificate


class Connection:
    """See the module docstring."""

    __slots__ = (
        "_aliases",
        "_broker",
        "_decoder",
        "_deferred",
        "_early",
        "_keep_alive_s",
        "_last",
        "_out",
        "_out_bytes",
        "_taken",
        "_unanswered",
        "_writable",
        "connect",
        "due_at",
        "is_over",
        "peer",
        "session",
        "state",
        "takes_bytes",
        "why",
        "window",
    )

    def __init__(self, broker: Broker, peer: Peer, now: float) -> None:
        self.peer = peer
        self.state = State.FRESH
        self.connect = Connect()
        self.session: Session | None = None
        self.window = broker.limits.inflight
        self.takes_bytes: float = 1 << 32
        self.is_over = False
        self.why = ""  #: it is over
        self.due_at: float | None = None
        self._broker = broker
        self._decoder = Decoder(min(FIRST_BYTES, broker.limits.packet_bytes))
        self._deferred = 0
        self._early = b""
        self._keep_alive_s = 0.0
        self._last = now
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._taken: set[int] = (
            set()
        )  # ids of QoS 2 that came here and are not released: only these count for this connection
        self._unanswered = 0  # PUBLISH of QoS 1 whose PUBACK waits for the journal
        self._writable = True
        self._aliases: dict[int, str] = {}

    @property
    def version(self) -> int:
        return self.connect.version

    @property
    def client_id(self) -> str:
        return self.connect.client_id

    @property
    def user(self) -> str:
        return "" if self.session is None else self.session.user

    @property
    def is_asking(self) -> bool:
        """Whether it waits to be admitted."""
        return self.state is State.ASKING

    @property
    def held(self) -> int:
        """Bytes that could not be worked on yet."""
        return self._decoder.held + len(self._early)

    # The driver's side

    def receive(self, data: bytes, now: float) -> None:
        """Bytes have come."""
        if self.is_asking:
            self._early += data
            if len(self._early) > self._broker.limits.packet_bytes:
                self.fail(ProtocolError(Reason.TOO_LARGE, "too much before CONNECT was answered"), now)
            return
        self._last = now
        try:
            for packet in self._decoder.feed(data):
                if not self._handle(packet, now):
                    return
        except ProtocolError as exc:
            self.fail(exc, now)

    def take(self) -> bytes:
        """What shall be sent now."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._out_bytes = 0
        return data

    def set_writable(self, writable: bool, now: float) -> None:
        """The transport has room again, or no longer."""
        self._writable = writable
        if writable:
            self.flushed(now)

    def flushed(self, now: float) -> None:
        """What was taken has gone to the transport: there may be room for more."""
        if self.session is not None and self._writable:
            self.session.pump(now)

    def lost(self, now: float, why: str = "the connection was lost") -> None:
        """The transport is gone."""
        self._end(now, why, with_will=True)

    # For the session

    @property
    def has_room(self) -> bool:
        return self._writable and self._out_bytes < self._broker.limits.out_bytes and self.state is State.OPEN

    def write(self, data: bytes) -> None:
        if not self._out:
            self._broker.dirty[self] = None
        self._out.append(data)
        self._out_bytes += len(data)

    def answer(self, packet: Packet, sequence: int) -> None:
        """Send a packet, once the journal has ``sequence``; and not before those that wait already."""
        if self._deferred or sequence > self._broker.stored_upto:
            self._deferred += 1
            self._broker.defer(self, sequence, packet)
        else:
            self._write_answer(packet)

    def release(self, packet: Packet) -> None:
        """What a deferred answer told of is stored."""
        self._deferred -= 1
        if isinstance(packet, Ack) and packet.kind == Kind.PUBACK:
            self._unanswered -= 1
        if self.state is State.OPEN:
            self._write_answer(packet)

    def _write_answer(self, packet: Packet) -> None:
        self.write(encode(packet, self.version))

    # Timers

    def due(self, now: float) -> None:
        """See `timers.Timed`: nothing may have come for one and a half times the keep-alive."""
        if self.state in (State.FRESH, State.ASKING):
            self.fail(ProtocolError(Reason.NOT_AUTHORIZED, "CONNECT did not come, or was not answered, in time"), now)
        elif self.state is State.OPEN:
            at = self._last + 1.5 * self._keep_alive_s
            if at <= now:
                self.fail(ProtocolError(Reason.KEEP_ALIVE, "nothing came for longer than the keep-alive"), now)
            else:
                self._broker.timers.set(self, at)

    # Coming in

    def opened(self, session: Session, is_present: bool, assigned: str, now: float) -> None:
        """The broker took it: answer CONNECT, go on with the session."""
        limits, given = self._broker.limits, self.connect.properties or {}
        self.session = session
        self.state = State.OPEN
        self._decoder.max_bytes = limits.packet_bytes
        self._keep_alive_s = self.connect.keep_alive_s
        self._last = now
        self._broker.timers.set(self, now + 1.5 * self._keep_alive_s if self._keep_alive_s else None)
        found = None
        if self.version == V5:
            self.window = min(given.get(props.RECEIVE_MAXIMUM, 65535), limits.inflight)
            self.takes_bytes = given.get(props.MAXIMUM_PACKET, self.takes_bytes)
            found = {
                props.RECEIVE_MAXIMUM: limits.inflight,
                props.MAXIMUM_PACKET: limits.packet_bytes,
                props.TOPIC_ALIAS_MAXIMUM: limits.aliases,
            }
            if assigned:
                found[props.ASSIGNED_ID] = assigned  # type: ignore[assignment]
        self.write(encode(Connack(0, is_present, found), self.version))
        session.attach(self, now)
        early, self._early = self._early, b""
        if early:
            self.receive(early, now)

    def refuse(self, reason: Reason, text: str, now: float) -> None:
        """The broker does not take it."""
        self._broker.counts.refused += 1
        code = reason if self.version == V5 else _RETURN_CODES.get(reason, 3)
        self.write(encode(Connack(int(code)), self.version))
        self._end(now, text, with_will=False)

    def fail(self, why: ProtocolError, now: float) -> None:
        """The connection is over for what came, or did not come."""
        if self.state is State.CLOSED:
            return
        self._broker.counts.broken += 1
        if self.state is State.OPEN and self.version == V5:
            self.write(encode(Disconnect(int(why.reason)), V5))
        elif self.state is State.FRESH and why.reason is Reason.VERSION:
            self.write(encode(Connack(1), 4))
        self._end(now, str(why), with_will=True)

    def leave(self, reason: Reason, text: str, now: float) -> None:
        """The broker ends it."""
        if self.state is State.OPEN and self.version == V5:
            self.write(encode(Disconnect(int(reason)), V5))
        self._end(now, text, with_will=reason is not Reason.SHUTTING_DOWN)

    def _end(self, now: float, why: str, *, with_will: bool) -> None:
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.is_over = True
        self.why = why
        self._early = b""
        self._broker.dirty[self] = None
        self._broker.ended(self, now, with_will=with_will)

    # Packets

    def _handle(self, packet: Packet, now: float) -> bool:
        """Take one packet; False if the next one has to wait, or none is wanted any more."""
        if isinstance(packet, Publish) and self.state is State.OPEN:
            self._publish(packet, now)
        elif isinstance(packet, Connect):
            if self.state is not State.FRESH:
                raise ProtocolError(Reason.PROTOCOL_ERROR, "a second CONNECT")
            self.connect = packet
            self._broker.asked(self, now)
        elif self.state is not State.OPEN or self.session is None:
            raise ProtocolError(Reason.PROTOCOL_ERROR, "CONNECT comes first")
        elif isinstance(packet, Ack):
            self._ack(packet, self.session, now)
        elif isinstance(packet, Ping) and packet.kind == Kind.PINGREQ:
            self.write(b"\xd0\x00")
        elif isinstance(packet, Subscribe):
            codes, sequence = self._broker.subscribe(self, self.session, packet, now)
            self.answer(Suback(packet.packet_id, codes), sequence)
            self._broker.offer_retained(self.session, now)
        elif isinstance(packet, Unsubscribe):
            codes, sequence = self._broker.unsubscribe(self.session, packet.filters)
            self.answer(Unsuback(packet.packet_id, codes), sequence)
        elif isinstance(packet, Disconnect):
            self._disconnect(packet, self.session, now)
        else:
            raise ProtocolError(Reason.PROTOCOL_ERROR, "a packet that a client does not send")
        if self.is_asking:
            self._early = self._decoder.rest()
        return self.state is State.OPEN

    def _publish(self, packet: Publish, now: float) -> None:
        session = self.session
        assert session is not None
        if packet.properties is not None:
            self._resolve_alias(packet)
            if props.SUBSCRIPTION_ID in packet.properties:
                raise ProtocolError(Reason.PROTOCOL_ERROR, "a client sends no subscription ids")
        qos, packet_id, is_5 = packet.qos, packet.packet_id, self.version == V5
        if not qos:
            self._broker.published(self, session, packet, now)
            return
        kind = Kind.PUBACK if qos == 1 else Kind.PUBREC
        if qos == 2 and packet_id in session.received:
            self.answer(Ack(kind, packet_id), session.journal.sequence)
            return
        if is_5 and self._unanswered + len(self._taken) >= self._broker.limits.inflight:
            raise ProtocolError(Reason.RECEIVE_MAXIMUM, "more unacknowledged messages than were allowed")
        if qos == 2 and self._broker.counts.unreleased >= self._broker.limits.received:
            raise ProtocolError(Reason.QUOTA, "too many messages of QoS 2 that clients have not released")
        before = self._broker.journal.sequence
        code = self._broker.published(self, session, packet, now)
        if qos == 2 and code < 0x80:
            session.receive(packet_id)
            self._taken.add(packet_id)
            session.journal.received(session.client_id, packet_id)
        after = self._broker.journal.sequence
        sequence = after if after != before else 0
        if qos == 1 and (self._deferred or sequence > self._broker.stored_upto):
            self._unanswered += 1
        self.answer(Ack(kind, packet_id, int(code) if is_5 else 0), sequence)

    def _resolve_alias(self, packet: Publish) -> None:
        assert packet.properties is not None
        alias = packet.properties.get(props.TOPIC_ALIAS)
        if alias is None:
            return
        if not 0 < alias <= self._broker.limits.aliases:
            raise ProtocolError(Reason.BAD_ALIAS, f"topic alias {alias}")
        if packet.topic:
            if sum(map(len, self._aliases.values())) > ALIAS_CHARS:
                raise ProtocolError(Reason.QUOTA, "topic aliases for too long topics")
            self._aliases[alias] = packet.topic
        elif alias in self._aliases:
            packet.topic = self._aliases[alias]
        else:
            raise ProtocolError(Reason.PROTOCOL_ERROR, f"topic alias {alias} stands for nothing")

    def _ack(self, packet: Ack, session: Session, now: float) -> None:
        if packet.kind != Kind.PUBREL:
            session.acknowledged(packet, now)
            return
        code = Reason.SUCCESS
        self._taken.discard(packet.packet_id)
        if session.complete(packet.packet_id):
            session.journal.completed(session.client_id, packet.packet_id)
        elif self.version == V5:
            code = Reason.ID_UNKNOWN
        # Of one that is not known the end may not be stored yet, and the client uses its id anew once it has this answer.
        self.answer(Ack(Kind.PUBCOMP, packet.packet_id, int(code)), session.journal.sequence)

    def _disconnect(self, packet: Disconnect, session: Session, now: float) -> None:
        expiry = (packet.properties or {}).get(props.SESSION_EXPIRY)
        if expiry is not None:
            if not session.expiry_s and expiry:
                raise ProtocolError(Reason.PROTOCOL_ERROR, "a session that was to end cannot be kept")
            session.expire_after(self._broker.expiry_of(expiry))
        self._end(now, "the client disconnected", with_will=packet.code != 0)
