"""The cloud's side of one node's connection, without I/O.

    messages of cloud modules ──> send ──> lanes ──> take_frame ──> transport
    transport ──> receive_frame ──> events: Received, Answer, Sent, Delivered, Removed, Refused, Denied, Greeted, Holdings, Opened, Closed

Object messages have one slot per object: of several waiting versions the newest is sent, and a version that is not newer than
what the edge has is not sent at all. Each is sent again until the edge acknowledges it. Everything else is sent once.

`take` picks what leaves next: answers and other messages that are sent once, then repetitions, then deletes, then the rest
in order of arrival. At most ``window`` objects and ``window_bytes`` are in flight, deletes not counted; a KubeEdge peer gets one
at a time, for its receive queue drops messages when it is full.

To a peer of ours `take_frame` joins messages into frames, whose numbers are acknowledged all together, and tells changes of
objects as deltas where it knows what the edge holds.

Nothing but answers leaves before the peer's first keepalive: only then is it known who it is. A peer of ours then tells
what it holds, and objects wait for that too (``hold_s`` at most). A digest is enough if it is what was recorded.

Units   ``now`` is monotonic seconds.
Errors  Bad input never raises: it is counted in ``refused``.
Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/session and /dispatcher; the greeting is our own (`edgesite.wire.greeting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from msgspec.structs import replace

from edgesite.wire import frames, greeting, resource
from edgesite.wire.delivery import (
    ObjectRef,
    is_node_removal,
    is_refused_for_good,
    is_urgent,
    needs_ack,
    object_of,
)
from edgesite.wire.delta import DELTA, Bases, NoDelta, make_patch
from edgesite.wire.endings import Endings
from edgesite.wire.events import (
    Answer,
    Closed,
    Delivered,
    Denied,
    Event,
    Greeted,
    Holdings,
    Opened,
    Received,
    Refused,
    Removed,
    Sent,
)
from edgesite.wire.fifo import Fifo
from edgesite.wire.frames import Frame, Lane
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation, error_status
from edgesite.wire.numbers import Outstanding
from edgesite.wire.slots import SessionCounts, SessionLimits, Slot, State

__all__ = ["NodeSession", "SessionLimits"]


#: answers that an edge keeps, so that their objects must be followed; nodes and leases change too often for that
_KEPT_ANSWERS: Final = frozenset(
    {"configmap", "secret", "persistentvolume", "persistentvolumeclaim", "volumeattachment"}
)


_GREETINGS: Final = frozenset({Operation.KEEPALIVE.value, greeting.HOLDINGS})


class NodeSession:
    """One connection of one node. After each call drain ``events``, `take_frame` until None (draining again), and arm a timer
    for `next_timer`.

    ``version_at_edge(uid)`` tells which version the edge is known to have (None: none), ``digest()`` is that of all of them;
    whoever drains ``events`` updates what they read. ``jitter`` gives numbers from 0 to 1. ``spread_s()`` is how far apart nodes
    shall come back after a loss of all links. ``features`` are what we offer; ``bases`` is shared by all sessions.
    """

    # fmt: off
    __slots__ = (
        "_agreed", "_answered", "_bases", "_bytes", "_deletes", "_digest", "_due_from", "_endings", "_hold_until",
        "_in_flight", "_jitter", "_lost_at", "_maker", "_numbers", "_offered", "_once", "_others", "_repeats",
        "_slots", "_spread_s", "_version_at_edge", "closed", "counts", "dropped", "events", "limits", "node",
        "own_peer", "refused",
    )
    # fmt: on

    def __init__(
        self,
        node: str,
        maker: MessageMaker,
        *,
        now: float,
        version_at_edge: Callable[[str], int | None],
        jitter: Callable[[], float],
        limits: SessionLimits | None = None,
        digest: Callable[[], str] = lambda: "",
        spread_s: Callable[[], float] = lambda: 0.0,
        features: frozenset[str] = greeting.FEATURES,
        bases: Bases | None = None,
        counts: SessionCounts | None = None,
    ) -> None:
        self.node = node
        self.limits = limits or SessionLimits()
        self.closed = False
        self.own_peer: bool | None = None  #: None until known
        self.events: Fifo[Event] = Fifo()
        self.refused = 0  #: bad messages of the peer
        self.dropped = 0  #: messages sent once that were pushed out
        self.counts = counts if counts is not None else SessionCounts()
        self._maker = maker
        self._version_at_edge = version_at_edge
        self._jitter = jitter
        self._digest = digest
        self._spread_s = spread_s
        self._offered = features
        self._agreed: frozenset[str] = frozenset()
        self._bases = bases if bases is not None else Bases(0)
        self._numbers: Outstanding | None = None  # once frames are agreed on
        self._bytes = 0  # in flight
        self._lost_at = now + self.limits.keepalive_s
        self._hold_until: float | None = now + self.limits.hold_s
        self._once: Fifo[Message] = Fifo()
        self._slots: dict[str, Slot] = {}
        self._deletes: dict[str, None] = {}  # uids in order
        self._others: dict[str, None] = {}
        self._repeats: dict[str, None] = {}
        self._in_flight: dict[str, str] = {}  # msg_id -> uid
        self._answered: dict[str, ObjectRef] = {}  # msg_id of an answer -> the object in it
        self._endings = Endings()
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
        elif self._is_stale(message, ref):
            self.counts.stale += 1
        else:
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
        if self._endings.is_useless(ref):
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
            self._endings.deleting(resource.trim_node(message.resource), ref.uid)
        slot = self._slots.get(ref.uid)
        if slot is None:
            slot = self._slots[ref.uid] = Slot(message, ref)
        elif slot.state is State.IN_FLIGHT:
            self.counts.coalesced += slot.newer is not None
            slot.newer = (message, ref)
            return
        else:
            self.counts.coalesced += 1
            slot.message, slot.ref, slot.state = message, ref, State.WAITING
            slot.attempts = slot.rounds = 0
        self._enter_lane(ref.uid, slot)

    def _enter_lane(self, uid: str, slot: Slot) -> None:
        slot.state = State.WAITING
        if is_urgent(slot.message):
            self._others.pop(uid, None)
            self._deletes.setdefault(uid)
        elif uid not in self._deletes:
            self._others.setdefault(uid)

    # -- to the transport ----------------------------------------------------------------------------------------

    def take(self, now: float, lane: Lane | None = None) -> Message | None:
        """Return the next message to write, in wire form; None if nothing may leave now."""
        if self.closed:
            return None
        if self._once and lane in (None, Lane.URGENT if self._once[0].operation in _GREETINGS else Lane.BULK):
            return self._to_wire(self._once.popleft())
        while self._repeats and lane is not Lane.URGENT:
            uid = next(iter(self._repeats))
            del self._repeats[uid]
            slot = self._slots.get(uid)
            if slot is not None and slot.state is State.IN_FLIGHT:
                self._due(slot, now + self.limits.resend_s)
                self.counts.repeated += 1
                return self._to_wire(slot.message)
        if self._hold_until is not None:
            return None
        window = self.limits.window if self.own_peer else self.limits.foreign_window
        while True:
            has_room = len(self._in_flight) < window
            waiting = self._deletes if lane is not Lane.BULK and (self.own_peer or has_room) else None
            if not waiting and lane is not Lane.URGENT and has_room and self._bytes < self.limits.window_bytes:
                waiting = self._others
            if not waiting:
                return None
            uid = next(iter(waiting))
            del waiting[uid]
            slot = self._slots[uid]
            slot.have = self._version_at_edge(uid)
            if not slot.is_delete and slot.have is not None and 0 < slot.ref.version <= slot.have:
                del self._slots[uid]
                self.counts.stale += 1
                continue
            slot.state, slot.attempts = State.IN_FLIGHT, 1
            self._due(slot, now + self.limits.resend_s)
            if not self.own_peer and not slot.is_delete and slot.have is None:
                self.events.append(Sent(slot.ref))
            self._in_flight[slot.message.msg_id] = uid
            self.counts.sent += 1
            return self._to_wire(slot.message)

    def take_frame(self, now: float, lane: Lane | None = None) -> Frame | None:
        """Return what to write next; None if nothing may leave now. A transport with lanes asks for each of them."""
        if not (self._once or self._others or self._deletes or self._repeats):
            return None
        if self._numbers is None:
            message = self.take(now, lane)
            return None if message is None else Frame(message.to_json(), text=True)
        rows: list[frames.Row] = []
        size = 0
        while len(rows) < self.limits.frame_messages and size < self.limits.frame_bytes:
            message = self.take(now, lane)
            if message is None:
                break
            rows.append(self._row(message, self._numbers))
            size += len(rows[-1])
        if not rows:
            return None
        deflate = greeting.DEFLATE in self._agreed
        return Frame(frames.encode(self._numbers.floor, 0, (), self._maker.now_ms(), rows, deflate=deflate), text=False)

    def _row(self, message: Message, numbers: Outstanding) -> frames.Row:
        uid = self._in_flight.get(message.msg_id)
        if uid is None:
            return frames.encode_row(message, 0)
        slot = self._slots[uid]
        number = numbers.number(message.msg_id)
        row = frames.encode_row(message, number, self._delta(slot, message))
        self._bytes += len(row) - slot.size
        slot.size = len(row)
        return row

    def _delta(self, slot: Slot, message: Message) -> dict[str, Any] | None:
        """The message as a change of what the edge holds, if that is known."""
        have = slot.have
        if not have or slot.whole or DELTA not in self._agreed or slot.is_delete:
            return None
        base = self._bases.find(slot.ref.uid, have)
        if base is None or not isinstance(message.content, dict):
            return None
        try:
            return {"base": str(have), "uid": slot.ref.uid, "patch": make_patch(base, message.content)}
        except NoDelta:
            return None

    def _landed(self, msg_id: str) -> str | None:
        """A message is no longer in flight; returns the uid of its object."""
        uid = self._in_flight.pop(msg_id, None)
        if self._numbers is not None:
            self._numbers.drop(msg_id)
        if uid is not None:
            slot = self._slots[uid]
            self._bytes -= slot.size
            slot.size = 0
        return uid

    def _to_wire(self, message: Message) -> Message:
        wire = resource.trim_node(message.resource)
        operation = message.operation
        if operation == Operation.INSERT and self._endings.is_deleting(wire):
            # A Go edge ignores the insert of a name that it still has.
            operation = Operation.UPDATE.value
        if wire == message.resource and operation == message.operation:
            return message
        return replace(message, resource=wire, operation=operation)

    # -- from the transport --------------------------------------------------------------------------------------

    def receive_frame(self, data: bytes, now: float, *, text: bool) -> None:
        """Take what the transport brought."""
        try:
            batch = None if text else frames.decode(data)
            messages = (Message.from_json(data),) if batch is None else batch.messages
        except InvalidMessage:
            self.refused += 1
            return
        for message in messages:  # refusals come before the acknowledgement of what follows them
            self.receive(message, now)
        if batch is None or self._numbers is None or self.closed:
            return
        self._lost_at = now + self.limits.keepalive_s
        for msg_id in self._numbers.acknowledged(batch.upto, batch.more):
            uid = self._landed(msg_id)
            if uid is not None:
                self._acknowledged(uid)

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
            self._agreed = greeting.agree(features or frozenset(), self._offered)
            if greeting.FRAMES in self._agreed:
                self._numbers = Outstanding()
            self.events.append(Greeted(self.own_peer, features or frozenset()))
            if greeting.HOLDINGS not in self._agreed:
                self._end_hold()
        if self.own_peer:
            self._once.appendleft(
                self._maker.make(
                    "cloudhub",
                    "resource",
                    Operation.KEEPALIVE,
                    "node",
                    None if features is None else greeting.greeting(self._offered, spread_s=self._spread_s()),
                    parent=message.msg_id,
                )
            )

    def _on_response(self, message: Message) -> None:
        uid = self._landed(message.parent_msg_id)
        if uid is None:
            answered = self._answered.pop(message.parent_msg_id, None)
            if answered is not None:
                self.events.append(Delivered(answered))
            elif message.parent_msg_id:
                self.events.append(Answer(message))  # to a call of a cloud module, or a repeated acknowledgement
            return
        self._acknowledged(uid)

    def _acknowledged(self, uid: str) -> None:
        slot = self._slots[uid]
        if slot.is_delete:
            self._endings.deleted(resource.trim_node(slot.message.resource), uid)
            self.events.append(Removed(slot.ref))
        else:
            if DELTA in self._agreed and isinstance(slot.message.content, dict):
                self._bases.keep(uid, slot.ref.version, slot.message.content)
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
        slot = self._slots[uid]
        status = error_status(message.content) or {}
        if status.get("reason") == "Conflict" and not slot.whole:  # it does not hold the base of a delta
            slot.whole = True
            self._repeats[uid] = None
            return
        if not is_refused_for_good(message):
            return
        self._landed(message.parent_msg_id)
        self._repeats.pop(uid, None)
        if status.get("reason") == "Gone":
            self.events.append(Denied(slot.ref))
        else:
            self._endings.unreadable(slot.ref)
            self.events.append(Refused(slot.ref, str(status.get("message") or "")))
        if slot.newer is None:
            del self._slots[uid]
        else:
            self._promote(uid, slot)

    def _promote(self, uid: str, slot: Slot) -> None:
        assert slot.newer is not None
        slot.message, slot.ref = slot.newer
        slot.newer = None
        slot.attempts = slot.rounds = 0
        slot.whole = False
        self._enter_lane(uid, slot)

    def _on_holdings(self, message: Message) -> None:
        try:
            told = greeting.parse_holdings(message)
        except InvalidMessage:
            self.refused += 1
            return
        if isinstance(told, str):
            if told == self._digest():
                self._end_hold()
            else:
                self._once.appendleft(self._maker.make("cloudhub", "resource", greeting.HOLDINGS, "node"))
            return
        self._hold_until = None
        self.events.extend((Holdings(told), Opened()))

    def forget(self, uids: Iterable[str]) -> bool:
        """Ask the edge to take these objects whatever it knows of them: it then tells again what it holds. False if it cannot."""
        if self.closed or greeting.FORGET not in self._agreed:
            return False
        content = {greeting.FORGET: list(uids)}
        self._once.append(self._maker.make("cloudhub", "resource", greeting.HOLDINGS, "node", content))
        return True

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

    def _due(self, slot: Slot, at: float) -> None:
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

    def _overdue(self, uid: str, slot: Slot, now: float) -> None:
        if slot.state is State.RESTING:
            self._enter_lane(uid, slot)
        elif slot.newer is not None:
            self._landed(slot.message.msg_id)
            self._promote(uid, slot)
        elif slot.attempts < self.limits.attempts:
            slot.attempts += 1
            slot.due = now + self.limits.resend_s
            self._repeats[uid] = None
        else:
            self._landed(slot.message.msg_id)
            wait = min(self.limits.retry_s * 2**slot.rounds, self.limits.retry_most_s)
            slot.state, slot.rounds, slot.due = State.RESTING, slot.rounds + 1, now + wait * (1 + 0.2 * self._jitter())

    def close(self, reason: str) -> None:
        """End the session; what was not acknowledged is found again from the recorded versions."""
        if not self.closed:
            self.closed = True
            self.events.append(Closed(reason))

    @property
    def may_gather(self) -> bool:
        """Whether what waits may be joined by more before it leaves: objects alone, less than a frame, and others are on their way."""
        if self._once or self._deletes or self._repeats or not self.own_peer:
            return False
        return bool(self._in_flight) and len(self._others) < self.limits.frame_messages

    @property
    def backlog(self) -> int:
        """Objects that the edge has not acknowledged yet."""
        return len(self._slots)
