"""The cloud's side of one node's connection, without I/O.

    messages of cloud modules ──> send ──> lanes ──> take ──> transport
    transport ──> receive ──> events: Received, Answer, Sent, Delivered, Removed, Greeted, Holdings, Opened, Closed

Object messages have one slot per object: of several waiting versions the newest is sent, and a version that is not newer than
what the edge has is not sent at all. Each is sent again until the edge acknowledges it. Everything else is sent once.

`take` picks what leaves next: answers and other messages that are sent once, then repetitions, then deletes, then the rest
in order of arrival. At most ``window`` objects are in flight; a KubeEdge peer gets one at a time, for its receive queue drops
messages when it is full.

Nothing but answers leaves before the peer's first keepalive: only then is it known who it is. A peer of ours then tells
what it holds, and objects wait for that too (``hold_s`` at most).

Units   ``now`` is monotonic seconds.
Errors  Bad input never raises: it is counted in ``refused``.
Source  KubeEdge v1.12.7, reference/hub-and-metadata.md sections 4.1 to 4.4; the greeting is our own (`edgesite.wire.greeting`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from edgesite.wire import greeting, resource
from edgesite.wire.delivery import (
    ObjectRef,
    is_node_removal,
    is_refused_for_good,
    is_urgent,
    needs_ack,
    object_of,
)
from edgesite.wire.events import (
    Answer,
    Closed,
    Delivered,
    Event,
    Greeted,
    Holdings,
    Opened,
    Received,
    Refused,
    Removed,
    Sent,
)
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation, error_status

__all__ = ["NodeSession", "SessionLimits"]


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Times in seconds and bounds of a session."""

    keepalive_s: float = 30.0  #: silence after which the peer is lost
    resend_s: float = 5.0
    attempts: int = 5  #: then others go first, and the message waits
    retry_s: float = 1.0  #: first such wait; doubles
    retry_most_s: float = 60.0
    hold_s: float = 3.0  #: how long objects wait for the peer to tell who it is and what it holds
    window: int = 256  #: objects in flight to a peer of ours
    foreign_window: int = 1  #: and to any other
    once: int = 4096  #: waiting messages that are sent once; beyond it the oldest is dropped


class _State(IntEnum):
    WAITING = 0  #: in a lane
    IN_FLIGHT = 1
    RESTING = 2  #: not acknowledged in all attempts; comes back at ``due``


@dataclass(slots=True)
class _Slot:
    message: Message
    ref: ObjectRef
    state: _State = _State.WAITING
    newer: tuple[Message, ObjectRef] | None = None  #: replaces ``message`` when it is acknowledged or due
    attempts: int = 0  #: sendings in this round
    rounds: int = 0
    due: float = 0.0

    @property
    def is_delete(self) -> bool:
        return self.message.operation == Operation.DELETE

    @property
    def is_timed(self) -> bool:
        return self.state is not _State.WAITING

    @property
    def newest(self) -> tuple[Message, ObjectRef]:
        return self.newer or (self.message, self.ref)


#: answers that an edge keeps, so that their objects must be followed; nodes and leases change too often for that
_KEPT_ANSWERS: Final = frozenset(
    {"configmap", "secret", "persistentvolume", "persistentvolumeclaim", "volumeattachment"}
)
_DELETED_KEPT: Final = 256  #: uids of removed objects that are remembered


class NodeSession:
    """One connection of one node. After each call drain ``events``, `take` until None (draining again), and arm a timer for
    `next_timer`.

    ``version_at_edge(uid)`` tells which version the edge is known to have (None: none); whoever drains ``events``
    updates what it reads. ``jitter`` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        node: str,
        maker: MessageMaker,
        *,
        now: float,
        version_at_edge: Callable[[str], int | None],
        jitter: Callable[[], float],
        limits: SessionLimits | None = None,
    ) -> None:
        self.node = node
        self.limits = limits or SessionLimits()
        self.closed = False
        self.own_peer: bool | None = None  #: None until known
        self.events: deque[Event] = deque()
        self.refused = 0  #: bad messages of the peer
        self.dropped = 0  #: messages sent once that were pushed out
        self._maker = maker
        self._version_at_edge = version_at_edge
        self._jitter = jitter
        self._lost_at = now + self.limits.keepalive_s
        self._hold_until: float | None = now + self.limits.hold_s
        self._once: deque[Message] = deque()
        self._slots: dict[str, _Slot] = {}
        self._deletes: dict[str, None] = {}  # uids in order
        self._others: dict[str, None] = {}
        self._repeats: dict[str, None] = {}
        self._in_flight: dict[str, str] = {}  # msg_id -> uid
        self._answered: dict[str, ObjectRef] = {}  # msg_id of an answer -> the object in it
        self._deleted: dict[str, None] = {}  # uids of objects that are gone
        self._unreadable: dict[str, int] = {}  # uid -> version that the edge could not read
        self._deleting: dict[str, str] = {}  # resources with a delete that is not confirmed -> uid
        self._due_from = math.inf  # no slot is due before

    # -- from the cloud's modules --------------------------------------------------------------------------------

    def send(self, message: Message, now: float) -> None:
        """Queue a message for the edge; its resource may have the node in front. A closed session ignores it."""
        if self.closed:
            return
        if is_node_removal(message):
            self.close(message.content if isinstance(message.content, str) else "the node was deleted")
            return
        ref = object_of(message)
        if ref is None or not needs_ack(message):
            self._send_once(message, ref)
        elif not self._is_stale(message, ref):
            self._put(message, ref)

    def _send_once(self, message: Message, ref: ObjectRef | None) -> None:
        if len(self._once) >= self.limits.once:
            self._once.popleft()
            self.dropped += 1
        self._once.append(message)
        if ref is not None and ref.version and message.operation == Operation.RESPONSE and ref.type in _KEPT_ANSWERS:
            self._answered[message.msg_id] = ref
            if len(self._answered) > self.limits.once:
                del self._answered[next(iter(self._answered))]

    def _is_stale(self, message: Message, ref: ObjectRef) -> bool:
        """Whether the edge has this or better, or will have."""
        slot = self._slots.get(ref.uid)
        if message.operation == Operation.DELETE:
            return slot is not None and slot.newest[0].operation == Operation.DELETE
        if ref.uid in self._deleted or 0 < ref.version <= self._unreadable.get(ref.uid, 0):
            return True
        if slot is not None:
            waiting, waiting_ref = slot.newest
            return waiting.operation == Operation.DELETE or 0 < ref.version <= waiting_ref.version
        if self._hold_until is not None:
            return False  # what the edge has is not known yet: looked at again in `take`
        return self._is_at_edge(ref)

    def _is_at_edge(self, ref: ObjectRef) -> bool:
        have = self._version_at_edge(ref.uid)
        return have is not None and 0 < ref.version <= have

    def _put(self, message: Message, ref: ObjectRef) -> None:
        if message.operation == Operation.DELETE:
            self._deleting[resource.trim_node(message.resource)] = ref.uid
        slot = self._slots.get(ref.uid)
        if slot is None:
            slot = self._slots[ref.uid] = _Slot(message, ref)
        elif slot.state is _State.IN_FLIGHT:
            slot.newer = (message, ref)
            return
        else:
            slot.message, slot.ref, slot.state = message, ref, _State.WAITING
            slot.attempts = slot.rounds = 0
        self._enter_lane(ref.uid, slot)

    def _enter_lane(self, uid: str, slot: _Slot) -> None:
        slot.state = _State.WAITING
        if is_urgent(slot.message):
            self._others.pop(uid, None)
            self._deletes.setdefault(uid)
        elif uid not in self._deletes:
            self._others.setdefault(uid)

    # -- to the transport ----------------------------------------------------------------------------------------

    def take(self, now: float) -> Message | None:
        """Return the next message to write, in wire form; None if nothing may leave now."""
        if self.closed:
            return None
        if self._once:
            return self._to_wire(self._once.popleft())
        while self._repeats:
            uid = next(iter(self._repeats))
            del self._repeats[uid]
            slot = self._slots.get(uid)
            if slot is not None and slot.state is _State.IN_FLIGHT:
                self._due(slot, now + self.limits.resend_s)
                return self._to_wire(slot.message)
        if self._hold_until is not None:
            return None
        window = self.limits.window if self.own_peer else self.limits.foreign_window
        while len(self._in_flight) < window:
            lane = self._deletes or self._others
            if not lane:
                return None
            uid = next(iter(lane))
            del lane[uid]
            slot = self._slots[uid]
            if not slot.is_delete and self._is_at_edge(slot.ref):
                del self._slots[uid]
                continue
            slot.state, slot.attempts = _State.IN_FLIGHT, 1
            self._due(slot, now + self.limits.resend_s)
            if not self.own_peer and not slot.is_delete and self._version_at_edge(uid) is None:
                self.events.append(Sent(slot.ref))
            self._in_flight[slot.message.msg_id] = uid
            return self._to_wire(slot.message)
        return None

    def _to_wire(self, message: Message) -> Message:
        wire = resource.trim_node(message.resource)
        operation = message.operation
        if operation == Operation.INSERT and wire in self._deleting:
            # A Go edge ignores the insert of a name that it still has.
            operation = Operation.UPDATE.value
        if wire == message.resource and operation == message.operation:
            return message
        return replace(message, resource=wire, operation=operation)

    # -- from the transport --------------------------------------------------------------------------------------

    def receive(self, message: Message, now: float) -> None:
        """Take a message of the peer. Whatever comes shows that the peer is alive."""
        if self.closed or message.is_empty:
            return
        self._lost_at = now + self.limits.keepalive_s
        if message.operation == Operation.KEEPALIVE:
            self._on_keepalive(message)
        elif message.operation == Operation.RESPONSE:
            self._on_response(message)
        elif message.operation == Operation.ERROR and message.parent_msg_id:
            self._on_error(message)
        elif message.operation == greeting.HOLDINGS:
            self._on_holdings(message)
        else:
            self.events.append(Received(message))

    def _on_keepalive(self, message: Message) -> None:
        features = greeting.features_of(message)
        if self.own_peer is None:
            self.own_peer = features is not None
            self.events.append(Greeted(self.own_peer, features or frozenset()))
            if not self.own_peer or greeting.HOLDINGS not in (features or ()):
                self._end_hold()
        if self.own_peer:
            self._once.appendleft(
                self._maker.make(
                    "cloudhub",
                    "resource",
                    Operation.KEEPALIVE,
                    "node",
                    greeting.greeting() if features is not None else None,
                    parent=message.msg_id,
                )
            )

    def _on_response(self, message: Message) -> None:
        uid = self._in_flight.pop(message.parent_msg_id, None)
        if uid is None:
            answered = self._answered.pop(message.parent_msg_id, None)
            if answered is not None:
                self.events.append(Delivered(answered))
            elif message.parent_msg_id:
                self.events.append(Answer(message))  # to a call of a cloud module, or a repeated acknowledgement
            return
        slot = self._slots[uid]
        if slot.is_delete:
            self._remember_deleted(uid, slot.message.resource)
            self.events.append(Removed(slot.ref))
        else:
            self.events.append(Delivered(slot.ref))
        if slot.newer is None:
            del self._slots[uid]
        else:
            self._promote(uid, slot)

    def _on_error(self, message: Message) -> None:
        """What could not be stored is sent again when it is due; what could not be read is not."""
        uid = self._in_flight.get(message.parent_msg_id)
        if uid is None:
            self.events.append(Answer(message))
            return
        if not is_refused_for_good(message):
            return
        del self._in_flight[message.parent_msg_id]
        slot = self._slots[uid]
        self._unreadable[uid] = slot.ref.version
        if len(self._unreadable) > _DELETED_KEPT:
            del self._unreadable[next(iter(self._unreadable))]
        self._repeats.pop(uid, None)
        self.events.append(Refused(slot.ref, str((error_status(message.content) or {}).get("message") or "")))
        if slot.newer is None:
            del self._slots[uid]
        else:
            self._promote(uid, slot)

    def _promote(self, uid: str, slot: _Slot) -> None:
        assert slot.newer is not None
        slot.message, slot.ref = slot.newer
        slot.newer = None
        slot.attempts = slot.rounds = 0
        self._enter_lane(uid, slot)

    def _remember_deleted(self, uid: str, path: str) -> None:
        wire = resource.trim_node(path)
        if self._deleting.get(wire) == uid:
            del self._deleting[wire]
        self._deleted[uid] = None
        if len(self._deleted) > _DELETED_KEPT:
            del self._deleted[next(iter(self._deleted))]

    def _on_holdings(self, message: Message) -> None:
        try:
            objects = greeting.parse_holdings(message)
        except InvalidMessage:
            self.refused += 1
            return
        self._hold_until = None
        self.events.extend((Holdings(objects), Opened()))

    def _end_hold(self) -> None:
        if self._hold_until is not None:
            self._hold_until = None
            self.events.append(Opened())

    # -- time ----------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `handle_timer` is due; None once closed."""
        if self.closed:
            return None
        return min(self._lost_at, self._due_from, math.inf if self._hold_until is None else self._hold_until)

    def _due(self, slot: _Slot, at: float) -> None:
        slot.due = at
        self._due_from = min(self._due_from, at)

    def handle_timer(self, now: float) -> None:
        """Give up a silent peer; send again what is overdue."""
        if self.closed:
            return
        if now >= self._lost_at:
            self.close(f"no keepalive for {self.limits.keepalive_s:g} s")
            return
        if self._hold_until is not None and now >= self._hold_until:
            if self.own_peer is None:
                self.own_peer = False
                self.events.append(Greeted(own=False))
            self._end_hold()
        if now < self._due_from:
            return
        self._due_from = math.inf
        for uid, slot in self._slots.items():
            if slot.is_timed and slot.due <= now:
                self._overdue(uid, slot, now)
            if slot.is_timed:
                self._due_from = min(self._due_from, slot.due)

    def _overdue(self, uid: str, slot: _Slot, now: float) -> None:
        if slot.state is _State.RESTING:
            self._enter_lane(uid, slot)
        elif slot.newer is not None:
            self._in_flight.pop(slot.message.msg_id, None)
            self._promote(uid, slot)
        elif slot.attempts < self.limits.attempts:
            slot.attempts += 1
            slot.due = now + self.limits.resend_s
            self._repeats[uid] = None
        else:
            self._in_flight.pop(slot.message.msg_id, None)
            wait = min(self.limits.retry_s * 2**slot.rounds, self.limits.retry_most_s)
            slot.state, slot.rounds, slot.due = _State.RESTING, slot.rounds + 1, now + wait * (1 + 0.2 * self._jitter())

    def close(self, reason: str) -> None:
        """End the session; what was not acknowledged is found again from the recorded versions."""
        if not self.closed:
            self.closed = True
            self.events.append(Closed(reason))

    @property
    def backlog(self) -> int:
        """Objects that the edge has not acknowledged yet."""
        return len(self._slots)
