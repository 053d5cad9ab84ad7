"""What a client has subscribed to and still has to get, from its connection to its next.

    deliver ──> waiting ──> sent ──> (QoS 2: released) ──> acknowledged

Packet ids are given when a message is queued, not when it is sent, and one of QoS 2 is sent only once it is stored: so a restart sends it under the
same id, and a client that has it already knows it. What a durable session holds is told to the `Journal` at once.

Bounds  `Limits.queued` messages (`Limits.queued_offline` without a connection) and `Limits.queued_bytes`; beyond, what comes is dropped and counted.
Source  OASIS, MQTT Version 5.0, sections 4.1, 4.3, 4.4 and 4.9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from edgesite.wire.mqtt.messages import Message, Parcel
from edgesite.wire.mqtt.packets import V5, Ack, Kind, Reason, Subscription, Will

if TYPE_CHECKING:
    from edgesite.wire.mqtt.connection import Connection

__all__ = ["FOREVER", "Counts", "Grant", "Journal", "Limits", "NoJournal", "Session", "weight_of"]

FOREVER: Final = float("inf")
_PURGE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a broker bears. Sizes in bytes, times in seconds."""

    packet_bytes: int = 4 << 20
    connections: int = 1000
    sessions: int = 10_000  #: the one that is offline longest goes for a new one
    subscriptions: int = 1000  #: of one session
    granted_bytes: int = 64 << 20  #: of all subscriptions; one session may have a sixteenth
    received: int = 1_000_000  #: ids of QoS 2 that clients have not released, of all
    inflight: int = 100  #: unacknowledged messages each way; a client may want fewer
    queued: int = 1000
    queued_offline: int = 1000
    queued_bytes: int = 8 << 20
    held_bytes: int = 64 << 20  #: of all sessions
    retained: int = 10_000
    retained_bytes: int = 16 << 20
    offered: int = 100_000  #: retained messages that wait for clients to have room, of all
    aliases: int = 32
    connect_s: float = 10.0  #: until CONNECT has come and is answered
    out_bytes: int = 256 << 10  #: given to a connection at once


@dataclass(slots=True)
class Counts:
    """What has happened; only ever grows, but for the last four."""

    received: int = 0
    sent: int = 0
    dropped_full: int = 0  #: a queue was full
    dropped_large: int = 0  #: more than the client takes
    dropped_expired: int = 0
    dropped_early: int = 0  #: QoS 0 for a client that is not here
    denied: int = 0  #: by the ACL
    refused: int = 0  #: connections
    broken: int = 0  #: connections ended for what they sent
    retained_refused: int = 0
    held_bytes: int = 0
    offered: int = 0  #: retained messages that wait for clients to have room
    granted_bytes: int = 0
    unreleased: int = 0  #: ids of QoS 2


def weight_of(pattern: str) -> int:
    """About how many bytes of memory a subscription takes."""
    return 500 + len(pattern) + 250 * pattern.count("/")


class Grant(msgspec.Struct, frozen=True):
    """A subscription of a session."""

    wanted: Subscription
    id: int = 0  #: subscription id, 0 for none


class Journal(Protocol):
    """Where durable sessions and retained messages are kept. Calls return at once; ``sequence`` counts them: when the broker is told that
    a number is stored, so is all before it. 0: there is nothing to wait for."""

    sequence: int

    def session(self, session: Session) -> None: ...

    def away(self, client_id: str, is_away: bool) -> None:
        """The time of a session that ends some time without a connection begins, or is over."""
        ...

    def forget(self, client_id: str) -> None:
        """All of a session goes."""
        ...

    def subscribed(self, client_id: str, grant: Grant) -> None: ...

    def unsubscribed(self, client_id: str, pattern: str) -> None: ...

    def queued(self, client_id: str, parcel: Parcel) -> None: ...

    def released(self, client_id: str, packet_id: int) -> None: ...

    def done(self, client_id: str, packet_id: int) -> None: ...

    def received(self, client_id: str, packet_id: int) -> None:
        """A message of QoS 2 was taken from this client."""
        ...

    def completed(self, client_id: str, packet_id: int) -> None:
        """The client has released it."""
        ...

    def retained(self, message: Message) -> None:
        """An empty payload forgets its topic."""
        ...


class NoJournal:
    """Nothing is kept."""

    sequence = 0

    def session(self, session: Session) -> None: ...
    def away(self, client_id: str, is_away: bool) -> None: ...
    def forget(self, client_id: str) -> None: ...
    def subscribed(self, client_id: str, grant: Grant) -> None: ...
    def unsubscribed(self, client_id: str, pattern: str) -> None: ...
    def queued(self, client_id: str, parcel: Parcel) -> None: ...
    def released(self, client_id: str, packet_id: int) -> None: ...
    def done(self, client_id: str, packet_id: int) -> None: ...
    def received(self, client_id: str, packet_id: int) -> None: ...
    def completed(self, client_id: str, packet_id: int) -> None: ...
    def retained(self, message: Message) -> None: ...


class Owner(Protocol):
    """The broker, as far as a session sees it."""

    limits: Limits
    counts: Counts
    journal: Journal
    stored_upto: int
    unstored: dict[Session, None]  #: sessions whose next message is not stored yet

    def session_due(self, session: Session, now: float) -> None: ...

    def retained_at(self, topic: str, session: Session, now: float) -> Message | None:
        """What is retained there, if this client may read it."""
        ...


class Session:
    """One client's state. ``expiry_s`` 0 ends with the connection; above, the session is durable."""

    __slots__ = (
        "_journal",
        "_next_id",
        "_owner",
        "_purged_at",
        "_retained",
        "_sent",
        "_waiting",
        "client_id",
        "connection",
        "due_at",
        "ends_at",
        "expiry_s",
        "granted_bytes",
        "grants",
        "held",
        "held_bytes",
        "received",
        "user",
        "will",
        "will_at",
    )

    def __init__(self, owner: Owner, client_id: str, user: str, expiry_s: float) -> None:
        self._owner = owner
        self.client_id = client_id
        self.user = user
        self.expiry_s = expiry_s
        self.grants: dict[str, Grant] = {}
        self.granted_bytes = 0
        self.held: dict[int, Parcel] = {}  # QoS 1 and 2 by packet id, oldest first
        self.held_bytes = 0
        self.received: set[int] = set()  # ids of QoS 2 messages from the client that it has not released
        self.connection: Connection | None = None
        self.will: Will | None = None
        self.will_at: float | None = None
        self.ends_at: float | None = None
        self.due_at: float | None = None
        self._waiting: deque[Parcel] = deque()
        self._retained: deque[tuple[str, Grant]] = (
            deque()
        )  # topics whose retained message it shall get, when there is room
        self._sent = 0
        self._next_id = 1
        self._purged_at = -FOREVER
        self._journal: Journal = owner.journal if expiry_s > 0 else _NOWHERE

    @property
    def is_durable(self) -> bool:
        return self.expiry_s > 0

    @property
    def journal(self) -> Journal:
        """The broker's, or one that keeps nothing if the session is not durable."""
        return self._journal

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def expire_after(self, expiry_s: float) -> None:
        """Change how long it lives without a connection; it can only be made durable before anything is in it."""
        self.expiry_s = expiry_s
        if expiry_s > 0:
            self._journal = self._owner.journal
            self._journal.session(self)
        elif self._journal is not _NOWHERE:
            self._journal.forget(self.client_id)
            self._journal = _NOWHERE

    def due(self, now: float) -> None:
        self._owner.session_due(self, now)

    # To the client

    def deliver(self, message: Message, qos: int, retain: bool, ids: tuple[int, ...], now: float) -> bool:
        """Take a message for the client; False if it was dropped."""
        connection, limits, counts = self.connection, self._owner.limits, self._owner.counts
        if not qos:
            if connection is None:
                counts.dropped_early += 1
                return False
            parcel = Parcel(message, 0, retain, ids)
            if not self._waiting and connection.has_room:
                self._send(connection, parcel, now)
                return True
        limit = limits.queued_offline if connection is None else limits.queued
        size = message.size
        if not self._has_room(limit, size) and not (self._purge(now) and self._has_room(limit, size)):
            counts.dropped_full += 1
            return False
        self._count(size)
        if not qos:
            self._waiting.append(parcel)
            return True
        parcel = Parcel(message, qos, retain, ids, self._free_id())
        self.held[parcel.packet_id] = parcel
        self._journal.queued(self.client_id, parcel)
        if qos == 2:
            parcel.sequence = self._journal.sequence
        self._waiting.append(parcel)
        if connection is not None:
            self._drain(now)
        return True

    def _has_room(self, limit: int, size: int) -> bool:
        limits = self._owner.limits
        return (
            self._sent + len(self._waiting) < limit
            and self.held_bytes + size <= limits.queued_bytes
            and self._owner.counts.held_bytes + size <= limits.held_bytes
        )

    def _purge(self, now: float) -> bool:
        """Let go what has expired while the client is away; False if that is nothing, or was looked for just now."""
        if self.connection is not None or now - self._purged_at < _PURGE_S:
            return False
        self._purged_at = now
        expired = [one for one in self.held.values() if one.has_expired(now) and not one.is_released]
        for parcel in expired:
            self._owner.counts.dropped_expired += 1
            self._end(parcel)
        self._sent = len(self.held)
        return bool(expired)

    def offer_retained(self, topics: Iterable[str], grant: Grant, now: float) -> None:
        """Deliver what these topics retain, at the pace of the client: each as it is when its turn comes, so never an older one after a
        newer one."""
        for topic in topics:
            if self._owner.counts.offered >= self._owner.limits.offered:
                self._owner.counts.dropped_full += 1
                break
            self._owner.counts.offered += 1
            self._retained.append((topic, grant))
        self.pump(now)

    def pump(self, now: float) -> None:
        """Send what waits, as far as the connection and its window have room."""
        self._drain(now)
        connection = self.connection
        while self._retained and connection is not None and not self._waiting and connection.has_room:
            topic, grant = self._retained.popleft()
            self._owner.counts.offered -= 1
            message = self._owner.retained_at(topic, self, now)
            if message is not None:
                ids = (grant.id,) if grant.id else ()
                self.deliver(message, min(message.qos, grant.wanted.qos), True, ids, now)

    def _drain(self, now: float) -> None:
        connection = self.connection
        while self._waiting and connection is not None and connection.has_room:
            parcel = self._waiting[0]
            if parcel.qos and self._sent >= connection.window:
                return
            if parcel.sequence > self._owner.stored_upto:
                self._owner.unstored[self] = None
                return
            self._waiting.popleft()
            if parcel.has_expired(now):  # also what may have been sent before: a command must not come too late
                self._owner.counts.dropped_expired += 1
                self._end(parcel)
                continue
            if not parcel.qos:
                self._count(-parcel.message.size)
            self._send(connection, parcel, now)

    def _send(self, connection: Connection, parcel: Parcel, now: float) -> None:
        data = parcel.encoded(connection.version, now)
        if len(data) > connection.takes_bytes:
            self._owner.counts.dropped_large += 1
            if parcel.qos:
                self._end(parcel)
            return
        if parcel.qos:
            parcel.is_sent = True
            self._sent += 1
        self._owner.counts.sent += 1
        connection.write(data)

    def acknowledged(self, ack: Ack, now: float) -> None:
        """PUBACK, PUBREC or PUBCOMP has come. What belongs to nothing is left alone, as a repetition."""
        parcel = self.held.get(ack.packet_id)
        connection = self.connection
        if connection is None:
            return
        if ack.kind == Kind.PUBREC:
            self._recorded(connection, ack, parcel)
        elif parcel is not None and parcel.is_sent and (parcel.qos == 1) == (ack.kind == Kind.PUBACK):
            if parcel.qos == 2 and not parcel.is_released:
                return
            self._sent -= 1
            self._end(parcel)
        self.pump(now)

    def _recorded(self, connection: Connection, ack: Ack, parcel: Parcel | None) -> None:
        if parcel is None or parcel.qos != 2 or not parcel.is_sent:
            if ack.code < 0x80:
                code = Reason.ID_UNKNOWN if connection.version == V5 else Reason.SUCCESS
                connection.answer(Ack(Kind.PUBREL, ack.packet_id, code), 0)
            return
        if ack.code >= 0x80:
            self._sent -= 1
            self._end(parcel)
            return
        if not parcel.is_released:
            parcel.is_released = True
            self._journal.released(self.client_id, parcel.packet_id)
            parcel.sequence = self._journal.sequence
        connection.answer(Ack(Kind.PUBREL, ack.packet_id), parcel.sequence)

    def _end(self, parcel: Parcel) -> None:
        self._count(-parcel.message.size)
        if parcel.qos:
            self.held.pop(parcel.packet_id, None)
            self._journal.done(self.client_id, parcel.packet_id)

    def _count(self, size: int) -> None:
        self.held_bytes += size
        self._owner.counts.held_bytes += size

    def _free_id(self) -> int:
        while self._next_id in self.held:
            self._next_id = self._next_id % 65535 + 1
        found = self._next_id
        self._next_id = found % 65535 + 1
        return found

    # Connections come and go

    def attach(self, connection: Connection, now: float) -> None:
        """A connection goes on with this session: send again what is not acknowledged."""
        self.connection = connection
        self.ends_at = None
        self._tell_away(False)
        self._sent = 0
        self._waiting.clear()
        for parcel in self.held.values():
            if parcel.is_released:
                self._sent += 1
                connection.answer(Ack(Kind.PUBREL, parcel.packet_id), parcel.sequence)
            else:
                self._waiting.append(parcel)
        self.pump(now)

    def detach(self, now: float) -> None:
        """The connection is gone; what has QoS 0 goes with it."""
        self.connection = None
        for parcel in self._waiting:
            if not parcel.qos:
                self._count(-parcel.message.size)
        self._waiting.clear()
        self._owner.counts.offered -= len(self._retained)
        self._retained.clear()
        self._sent = len(self.held)
        self.ends_at = now + self.expiry_s
        self._tell_away(True)

    def _tell_away(self, is_away: bool) -> None:
        if 0 < self.expiry_s < FOREVER:
            self._journal.away(self.client_id, is_away)

    def restore(self, parcel: Parcel) -> None:
        """Put back what the journal held; oldest first, before any connection."""
        parcel.is_sent = True  # it may have been
        self.held[parcel.packet_id] = parcel
        self._sent = len(self.held)
        self._count(parcel.message.size)

    def receive(self, packet_id: int) -> None:
        """The client has sent this one of QoS 2."""
        self.received.add(packet_id)
        self._owner.counts.unreleased += 1

    def complete(self, packet_id: int) -> bool:
        """The client has released it; False if it is not known."""
        if packet_id not in self.received:
            return False
        self.received.discard(packet_id)
        self._owner.counts.unreleased -= 1
        return True

    def count_granted(self, pattern: str, sign: int) -> None:
        """A subscription has come (1) or gone (-1)."""
        size = sign * weight_of(pattern)
        self.granted_bytes += size
        self._owner.counts.granted_bytes += size

    def drop(self) -> None:
        """The session is over."""
        self._owner.counts.unreleased -= len(self.received)
        self.received.clear()
        self._owner.counts.granted_bytes -= self.granted_bytes
        self.granted_bytes = 0
        self._owner.counts.held_bytes -= self.held_bytes
        self.held_bytes = 0
        self.held.clear()
        self._waiting.clear()
        self._journal.forget(self.client_id)


_NOWHERE: Final = NoJournal()
