"""The core of an MQTT broker: sessions, subscriptions, routing, wills, what is retained.

    broker = Broker(limits, journal, access, random_bits)
    connection = broker.open(peer, now)           the transport's driver holds it
    connection.receive(data, now)                 …then for each of `broker.logins`: check, `admit` or `connection.refuse`
    broker.take_dirty()                           connections that have something to send, or are over
    broker.next_timer(), broker.handle_timer(now)
    broker.stored(sequence, now)                    the journal has what was told to it up to there
    broker.publish(...), broker.subscribe_local(...)      the host's own

Units   ``now`` is monotonic seconds.
Source  OASIS, MQTT Version 5.0, chapters 3 and 4; version 3.1.1 where it differs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import structs

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.access import Acl
from edgesite.wire.mqtt.connection import Connection, Peer, State
from edgesite.wire.mqtt.messages import Message, message_of
from edgesite.wire.mqtt.packets import V3_1, V5, Packet, Publish, Reason, Subscribe, Subscription, Will
from edgesite.wire.mqtt.retained import Budget, Retained
from edgesite.wire.mqtt.routing import Entry, Share, Target, deliveries
from edgesite.wire.mqtt.session import FOREVER, Counts, Grant, Journal, Limits, NoJournal, Session, weight_of
from edgesite.wire.mqtt.timers import Timers
from edgesite.wire.mqtt.topics import Tree, share_of

__all__ = ["Broker", "LocalSubscriber"]

_FOREVER: Final = 0xFFFFFFFF
ID_LENGTH: Final = 1024
DEFERRED: Final = 10_000
LOOKS: Final = 500_000  #: levels of what is retained that one SUBSCRIBE looks at: some tenths of a second
_PURGE_S: Final = 10.0


class LocalSubscriber(Protocol):
    """A part of the host that subscribes; it takes what it is given at once."""

    def deliver(self, message: Message, qos: int, retain: bool, ids: tuple[int, ...], now: float) -> bool: ...


class Broker:
    """See the module docstring."""

    def __init__(
        self,
        limits: Limits,
        random_bits: Callable[[int], int],
        *,
        journal: Journal | None = None,
        acl: Acl | None = None,
    ) -> None:
        self.limits = limits
        self.counts = Counts()
        self.journal: Journal = journal or NoJournal()
        self.acl = acl
        self.is_user: Callable[[str], bool] = lambda name: True  #: sessions of users who are no more yield to others
        self.timers = Timers()
        self.stored_upto = 0
        self.unstored: dict[Session, None] = {}
        self.dirty: dict[Connection, None] = {}
        self.logins: list[Connection] = []  #: have sent CONNECT; the driver takes them out
        self.connections: dict[Connection, None] = {}
        self.sessions: dict[str, Session] = {}
        self.retained = Retained(limits.retained, limits.retained_bytes)
        self._random_bits = random_bits
        self._purged_at = -FOREVER
        self._tree: Tree[Entry | Share] = Tree()
        self._shares: dict[tuple[str, str], Share] = {}
        self._deferred: deque[tuple[int, Connection, Packet]] = deque()
        self._offers: dict[str, Grant] = {}  # filters of retained messages to look for after SUBACK

    # The driver's side

    def open(self, peer: Peer, now: float) -> Connection | None:
        """A transport is there; None if there are too many."""
        if len(self.connections) >= self.limits.connections:
            self.counts.refused += 1
            return None
        connection = Connection(self, peer, now)
        self.connections[connection] = None
        self.timers.set(connection, now + self.limits.connect_s)
        return connection

    def take_dirty(self) -> list[Connection]:
        """Connections to look at: send what they have, close those that are over."""
        found = list(self.dirty)
        self.dirty.clear()
        return found

    def next_timer(self) -> float | None:
        return self.timers.next()

    def handle_timer(self, now: float) -> None:
        self.timers.run(now)

    def stored(self, sequence: int, now: float) -> None:
        """The journal is on disk up to there: what was waiting for it is answered."""
        self.stored_upto = max(self.stored_upto, sequence)
        while self._deferred and self._deferred[0][0] <= self.stored_upto:
            _, connection, packet = self._deferred.popleft()
            connection.release(packet)
        unstored, self.unstored = self.unstored, {}
        for session in unstored:
            session.pump(now)

    def close(self, now: float) -> None:
        """End all connections; durable sessions go on at the next start."""
        for connection in list(self.connections):
            connection.leave(Reason.SHUTTING_DOWN, "the broker ends", now)

    # Connections

    def asked(self, connection: Connection, now: float) -> None:
        """CONNECT has come."""
        connect = connection.connect
        if props.AUTH_METHOD in (connect.properties or {}):
            connection.refuse(Reason.BAD_AUTH_METHOD, "no enhanced authentication here", now)
        elif len(connect.client_id) > ID_LENGTH or (
            not connect.client_id and connect.version != V5 and (connect.version == V3_1 or not connect.clean_start)
        ):
            connection.refuse(Reason.CLIENT_ID, "the client id is missing or too long", now)
        else:
            connection.state = State.ASKING
            self.logins.append(connection)

    def admit(self, connection: Connection, user: str, now: float) -> None:
        """It may come in, as ``user`` ("" is nobody in particular); not with a client id under which another user has a session."""
        if connection.state is not State.ASKING:
            return
        connect = connection.connect
        old = self.sessions.get(connect.client_id)
        if old is not None and old.user not in ("", user) and self.is_user(old.user):
            connection.refuse(Reason.CLIENT_ID, "another user has a session with this client id", now)
            return
        assigned = ""
        if not connect.client_id:
            connect.client_id = assigned = f"auto-{self._random_bits(96):024x}"
        expiry_s = self._expiry(connection)
        if old is not None and old.connection is not None:
            old.connection.leave(Reason.TAKEN_OVER, "another connection has the same client id", now)
            old = self.sessions.get(connect.client_id)
        if old is not None and (connect.clean_start or old.user != user):
            self._finish(old, now)
            old = None
        session = old
        if session is None:
            session = self._new_session(connect.client_id, user, expiry_s, now)
        else:
            session.will = session.will_at = None
            if expiry_s != session.expiry_s:
                session.expire_after(expiry_s)
        session.will = connect.will
        self.timers.set(session, None)
        connection.opened(session, old is not None, assigned, now)

    def _new_session(self, client_id: str, user: str, expiry_s: float, now: float) -> Session:
        while len(self.sessions) >= self.limits.sessions:
            idle = [one for one in self.sessions.values() if one.connection is None]
            if not idle:
                break
            idle = [
                one for one in idle if one.user == user
            ] or idle  # nobody pushes out others with sessions of their own
            self._finish(min(idle, key=lambda one: one.ends_at if one.ends_at is not None else FOREVER), now)
        session = self.sessions[client_id] = Session(self, client_id, user, expiry_s)
        session.journal.session(session)
        return session

    def _expiry(self, connection: Connection) -> float:
        connect = connection.connect
        if connect.version != V5:
            return 0 if connect.clean_start else FOREVER
        return self.expiry_of((connect.properties or {}).get(props.SESSION_EXPIRY, 0))

    def expiry_of(self, told: int) -> float:
        return FOREVER if told == _FOREVER else float(told)

    def ended(self, connection: Connection, now: float, *, with_will: bool) -> None:
        """A connection is over."""
        self.connections.pop(connection, None)
        self.timers.set(connection, None)
        session = connection.session
        if session is None or session.connection is not connection:
            return
        session.detach(now)
        if not with_will:
            session.will = None
        if session.will is not None:
            session.will_at = now + (session.will.properties or {}).get(props.WILL_DELAY, 0)
        self.session_due(session, now)

    def session_due(self, session: Session, now: float) -> None:
        """What is due of a session without a connection: its will, its end."""
        if session.connection is not None:
            return
        if session.ends_at is not None and session.ends_at <= now:
            self._finish(session, now)
            return
        if session.will is not None and session.will_at is not None and session.will_at <= now:
            self._publish_will(session, now)
        marks = [at for at in (session.will_at, session.ends_at) if at is not None and at != FOREVER]
        self.timers.set(session, min(marks, default=None))

    def _finish(self, session: Session, now: float) -> None:
        """A session is over: its will, if it has one, its subscriptions and what it still had to get."""
        self.timers.set(session, None)
        self.sessions.pop(session.client_id, None)
        for pattern in list(session.grants):
            self._remove(session.client_id, pattern)
        session.drop()
        if session.will is not None:
            self._publish_will(session, now)

    def _publish_will(self, session: Session, now: float) -> None:
        will: Will | None = session.will
        session.will = session.will_at = None
        if will is None or not self._allows(session, will.topic, "write"):
            return
        given = will.properties
        self._spread(
            message_of(will.topic, will.payload, will.qos, will.retain, given, session.client_id, now), session, now
        )

    # Subscriptions

    def subscribe(
        self, connection: Connection, session: Session, packet: Subscribe, now: float
    ) -> tuple[list[int], int]:
        """Return the codes of a SUBACK, and the sequence after which they hold."""
        given = (packet.properties or {}).get(props.SUBSCRIPTION_ID, [0])
        codes = []
        for wanted in packet.filters:
            if connection.connect.is_bridge:  # gets nothing back that it sent, and retains what was retained
                wanted = structs.replace(wanted, no_local=True, retain_as_published=True)
            old = session.grants.get(wanted.filter)
            if old is None and not self._has_room(session, wanted.filter):
                codes.append(int(Reason.QUOTA if connection.version == V5 else Reason.UNSPECIFIED))
                continue
            grant = Grant(wanted, given[0])
            if old is None:
                session.count_granted(wanted.filter, 1)
            session.grants[wanted.filter] = grant
            self._put(session.client_id, session, grant)
            if grant != old:
                session.journal.subscribed(session.client_id, grant)
            codes.append(wanted.qos)
            is_shared = wanted.filter.startswith("$share/")
            if not is_shared and (wanted.retain_handling == 0 or (wanted.retain_handling == 1 and old is None)):
                self._offers[wanted.filter] = grant
        return codes, session.journal.sequence

    def _has_room(self, session: Session, pattern: str) -> bool:
        """Whether it may have one more subscription."""
        limits, size = self.limits, weight_of(pattern)
        return (
            len(session.grants) < limits.subscriptions
            and session.granted_bytes + size <= limits.granted_bytes // 16
            and self.counts.granted_bytes + size <= limits.granted_bytes
        )

    def offer_retained(self, session: Session, now: float) -> None:
        """Send what is retained to those who have just subscribed."""
        offers, self._offers = self._offers, {}
        budget = Budget(LOOKS)
        for pattern, grant in offers.items():
            if self.counts.offered >= self.limits.offered or not budget.left:
                self.counts.dropped_full += 1
                continue
            session.offer_retained((one.topic for one in self.retained.find(pattern, budget)), grant, now)

    def retained_at(self, topic: str, session: Session, now: float) -> Message | None:
        message = self.retained.get(topic)
        if message is None or not self._allows(session, topic, "read"):
            return None
        if message.expires_at is not None and message.expires_at <= now:
            self._forget_retained(topic)
            return None
        return message

    def unsubscribe(self, session: Session, filters: list[str]) -> tuple[list[int], int]:
        """Return the codes of an UNSUBACK, and the sequence after which they hold."""
        codes = []
        for pattern in filters:
            if session.grants.pop(pattern, None) is None:
                codes.append(int(Reason.NO_SUBSCRIPTION))
                continue
            session.count_granted(pattern, -1)
            self._remove(session.client_id, pattern)
            session.journal.unsubscribed(session.client_id, pattern)
            codes.append(0)
        return codes, session.journal.sequence

    def subscribe_local(self, name: str, pattern: str, target: LocalSubscriber) -> None:
        """Give the host what is published to a filter; not what it publishes itself. What is retained is not repeated."""
        self._tree.put(pattern, (name,), Entry(target, Grant(Subscription(pattern, 2, no_local=True))))

    def unsubscribe_local(self, name: str, pattern: str) -> None:
        self._tree.remove(pattern, (name,))

    def _put(self, client_id: str, session: Session, grant: Grant) -> None:
        shared = share_of(grant.wanted.filter)
        entry = Entry(session, grant)
        if shared is None:
            self._tree.put(grant.wanted.filter, client_id, entry)
            return
        share = self._shares.get(shared)
        if share is None:
            share = self._shares[shared] = Share()
            self._tree.put(shared[1], shared, share)
        share.members[client_id] = entry

    def _remove(self, client_id: str, pattern: str) -> None:
        shared = share_of(pattern)
        if shared is None:
            self._tree.remove(pattern, client_id)
        elif (share := self._shares.get(shared)) is not None:
            share.members.pop(client_id, None)
            if not share.members:
                del self._shares[shared]
                self._tree.remove(shared[1], shared)

    # Messages

    def published(self, connection: Connection, session: Session, packet: Publish, now: float) -> Reason:
        """A client published; return what to tell it."""
        self.counts.received += 1
        if not self._allows(session, packet.topic, "write"):
            self.counts.denied += 1
            return Reason.NOT_AUTHORIZED
        message = message_of(
            packet.topic,
            packet.payload,
            packet.qos,
            packet.retain,
            packet.properties,
            session.client_id,
            now,
        )
        return self._spread(message, session, now)

    def publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, now: float, origin: LocalSubscriber | None = None
    ) -> None:
        """Publish for the host; ``origin`` does not get it back. Raises ProtocolError for a topic that is none."""
        self._spread(Message(topic, payload, qos, retain), origin, now)

    def has_readers(self, topic: str, origin: LocalSubscriber) -> bool:
        """Whether anybody but ``origin`` has subscribed to a topic."""
        return any(isinstance(one, Share) or one.target is not origin for one in self._tree.find(topic))

    def _spread(self, message: Message, origin: Target | None, now: float) -> Reason:
        if message.retain:
            self._retain(message, now)
        found = self._tree.find(message.topic)
        if not found:
            return Reason.SUCCESS if message.retain else Reason.NO_SUBSCRIBERS
        acl = self.acl
        for target, qos, retain, ids in deliveries(found, message, origin, self._may_read):
            if acl is not None and isinstance(target, Session) and not self._allows(target, message.topic, "read"):
                self.counts.denied += 1
                continue
            target.deliver(message, qos, retain, ids, now)
        return Reason.SUCCESS

    def _retain(self, message: Message, now: float) -> None:
        if self.retained.put(message) or (self._purge_retained(now) and self.retained.put(message)):
            self.journal.retained(message)
        else:
            self.counts.retained_refused += 1

    def _purge_retained(self, now: float) -> bool:
        """Let go what is retained and has expired; False if that is nothing, or was looked for just now."""
        if now - self._purged_at < _PURGE_S:
            return False
        self._purged_at = now
        expired = [one.topic for one in self.retained.expired(now)]
        for topic in expired:
            self._forget_retained(topic)
        return bool(expired)

    def _forget_retained(self, topic: str) -> None:
        self.retained.remove(topic)
        self.journal.retained(Message(topic, b"", retain=True))

    def _may_read(self, target: Target, topic: str) -> bool:
        return self.acl is None or not isinstance(target, Session) or self._allows(target, topic, "read")

    def _allows(self, session: Session, topic: str, access: str) -> bool:
        acl = self.acl
        return acl is None or acl.allows(
            session.user, session.client_id, topic, "read" if access == "read" else "write"
        )

    # For connections and at the start

    @property
    def is_behind(self) -> bool:
        """Whether so many answers wait for the disk that clients are not to be read."""
        return len(self._deferred) >= DEFERRED

    def defer(self, connection: Connection, sequence: int, packet: Packet) -> None:
        """Answer with ``packet`` once ``sequence`` is stored, after all that waits already."""
        last = self._deferred[-1][0] if self._deferred else 0
        self._deferred.append((max(sequence, last), connection, packet))

    def restore(self, client_id: str, user: str, expiry_s: float, now: float, away_s: float = 0.0) -> Session:
        """Put back a session that the journal held; it has been without a connection for ``away_s``, and may end at once."""
        session = self.sessions[client_id] = Session(self, client_id, user, expiry_s)
        session.ends_at = now + max(0.0, expiry_s - away_s)
        self.session_due(session, now)
        return session

    def restore_grant(self, session: Session, grant: Grant) -> None:
        session.count_granted(grant.wanted.filter, 1)
        session.grants[grant.wanted.filter] = grant
        self._put(session.client_id, session, grant)

    def restore_retained(self, message: Message) -> None:
        self.retained.put(message)
