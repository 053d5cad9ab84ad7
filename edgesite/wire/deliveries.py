"""The objects that are on their way to one node: one slot per object, of several waiting versions the newest.

    put ──> lanes ──> take ──> in flight ──> acknowledged | refused | overdue: sent again, later after others

`take` picks repetitions first, then deletes, then the rest in order of arrival. At most ``window`` objects and ``window_bytes`` are
in flight, deletes not counted; a KubeEdge peer gets one at a time, for its receive queue drops messages when it is full. An edge that says
it can store nothing now (`edgesite.wire.message.busy`) is left alone, each time for longer, and then gets one object, until it stores that.

Units   ``now`` is monotonic seconds.
State   In memory; what is lost with it is found again from the recorded versions.
Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/session and /dispatcher.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from edgesite.wire import frames, resource
from edgesite.wire.delivery import ObjectRef, is_refused_for_good, is_urgent
from edgesite.wire.delta import Bases, NoDelta, make_patch
from edgesite.wire.endings import Endings
from edgesite.wire.events import Delivered, Denied, Event, Refused, Removed, Sent
from edgesite.wire.fifo import Fifo
from edgesite.wire.frames import Lane
from edgesite.wire.message import Message, Operation, busy_for, error_status
from edgesite.wire.numbers import Outstanding
from edgesite.wire.slots import SessionCounts, SessionLimits, Slot, State

__all__ = ["Deliveries"]


class Deliveries:
    """Made by a session for its first object. What happens goes to ``events``; the rest of what it is given is the session's."""

    # fmt: off
    __slots__ = (
        "_bases", "_busy_rounds", "_busy_until", "_bytes", "_counts", "_deletes", "_due_from", "_endings", "_events", "_in_flight", "_jitter",
        "_limits", "_numbers", "_others", "_own_peer", "_repeats", "_slots", "_version_at_edge",
    )
    # fmt: on

    def __init__(
        self,
        events: Fifo[Event],
        *,
        version_at_edge: Callable[[str], int | None],
        jitter: Callable[[], float],
        limits: SessionLimits,
        counts: SessionCounts,
    ) -> None:
        self._events = events
        self._version_at_edge = version_at_edge
        self._jitter = jitter
        self._limits = limits
        self._counts = counts
        self._own_peer = False
        self._bases: Bases | None = None
        self._numbers: Outstanding | None = None
        self._bytes = 0  # in flight
        self._slots: dict[str, Slot] = {}
        self._deletes: dict[str, None] = {}  # uids in order
        self._others: dict[str, None] = {}
        self._repeats: dict[str, None] = {}
        self._in_flight: dict[str, str] = {}  # msg_id -> uid
        self._endings = Endings()
        self._due_from = math.inf  # no slot is due before
        self._busy_rounds = 0  # how often in a row the edge could store nothing
        self._busy_until = -math.inf

    def greeted(self, *, own_peer: bool, numbers: Outstanding | None, bases: Bases | None) -> None:
        """It is known who the peer is. ``numbers`` where frames are agreed on, ``bases`` where deltas are."""
        self._own_peer = own_peer
        self._numbers = numbers
        self._bases = bases

    # -- into the lanes ------------------------------------------------------------------------------------------

    def is_stale(self, message: Message, ref: ObjectRef, *, is_held: bool) -> bool:
        """Whether the edge has this or better, or will have. ``is_held``: what it has is not known yet, which `take` looks at again."""
        slot = self._slots.get(ref.uid)
        if message.operation == Operation.DELETE:
            return slot is not None and slot.newest[0].operation == Operation.DELETE
        if self._endings.is_useless(ref):
            return True
        if slot is not None:
            waiting, waiting_ref = slot.newest
            return waiting.operation == Operation.DELETE or 0 < ref.version <= waiting_ref.version
        if is_held:
            return False
        have = self._version_at_edge(ref.uid)
        return have is not None and 0 < ref.version <= have

    def has_ended(self, ref: ObjectRef) -> bool:
        """Whether the edge has confirmed the object's end on this connection."""
        return self._endings.has_ended(ref.uid)

    def forget(self, uids: Iterable[str]) -> None:
        """What the edge was told of these objects no longer counts."""
        for uid in uids:
            self._endings.forget(uid)

    def put(self, message: Message, ref: ObjectRef) -> None:
        """Queue a state of an object."""
        if message.operation == Operation.DELETE:
            self._endings.deleting(resource.trim_node(message.resource), ref.uid)
        slot = self._slots.get(ref.uid)
        if slot is None:
            slot = self._slots[ref.uid] = Slot(message, ref)
        elif slot.state is State.IN_FLIGHT:
            self._counts.coalesced += slot.newer is not None
            slot.newer = (message, ref)
            return
        else:
            self._counts.coalesced += 1
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

    def _promote(self, uid: str, slot: Slot) -> None:
        """What waits behind the slot's message takes its place; without one the object is done with."""
        if slot.newer is None:
            del self._slots[uid]
            return
        slot.message, slot.ref = slot.newer
        slot.newer = None
        slot.attempts = slot.rounds = 0
        slot.whole = False
        self._enter_lane(uid, slot)

    # -- out of them ---------------------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether there is something in a lane."""
        return bool(self._others or self._deletes or self._repeats)

    @property
    def backlog(self) -> int:
        """Objects that the edge has not acknowledged yet."""
        return len(self._slots)

    @property
    def may_gather(self) -> bool:
        """Whether what waits may be joined by more before it leaves: less than a frame, and others are on their way."""
        if self._deletes or self._repeats:
            return False
        return bool(self._in_flight) and len(self._others) < self._limits.frame_messages

    def take(self, now: float, lane: Lane | None, *, is_held: bool) -> Message | None:
        """Return the next message to write, in wire form; None if nothing may leave now."""
        while self._repeats and lane is not Lane.URGENT and now >= self._busy_until:
            uid = next(iter(self._repeats))
            del self._repeats[uid]
            slot = self._slots.get(uid)
            if slot is not None and slot.state is State.IN_FLIGHT:
                self._due(slot, now + self._limits.resend_s)
                self._counts.repeated += 1
                return self._to_wire(slot.message)
        while not is_held and not self._rests(now) and (waiting := self._lane(lane)):
            uid = next(iter(waiting))
            del waiting[uid]
            slot = self._slots[uid]
            slot.have = self._version_at_edge(uid)
            if not slot.is_delete and slot.have is not None and 0 < slot.ref.version <= slot.have:
                del self._slots[uid]
                self._counts.stale += 1
                continue
            slot.state, slot.attempts = State.IN_FLIGHT, 1
            self._due(slot, now + self._limits.resend_s)
            if not self._own_peer and not slot.is_delete and slot.have is None:
                self._events.append(Sent(slot.ref))
            self._in_flight[slot.message.msg_id] = uid
            self._counts.sent += 1
            return self._to_wire(slot.message)
        return None

    def _rests(self, now: float) -> bool:
        """Whether the edge is left alone, or has yet to answer to the one object by which it is tried."""
        return self._busy_rounds > 0 and (now < self._busy_until or bool(self._in_flight))

    def _lane(self, lane: Lane | None) -> dict[str, None] | None:
        """The objects of which one may leave now."""
        has_room = len(self._in_flight) < (self._limits.window if self._own_peer else self._limits.foreign_window)
        if self._deletes and lane is not Lane.BULK and (self._own_peer or has_room):
            return self._deletes
        if lane is not Lane.URGENT and has_room and self._bytes < self._limits.window_bytes:
            return self._others
        return None

    def _to_wire(self, message: Message) -> Message:
        wire = resource.trim_node(message.resource)
        operation = message.operation
        if operation == Operation.INSERT and self._endings.is_deleting(wire):
            # A Go edge ignores the insert of a name that it still has.
            operation = Operation.UPDATE.value
        if wire == message.resource and operation == message.operation:
            return message
        return replace(message, resource=wire, operation=operation)

    def row(self, message: Message) -> frames.Row:
        """A message that was taken as a row of a frame."""
        uid = self._in_flight.get(message.msg_id)
        if uid is None or self._numbers is None:
            return frames.encode_row(message, 0)
        slot = self._slots[uid]
        number = self._numbers.number(message.msg_id)
        row = frames.encode_row(message, number, self._delta(slot, message))
        self._bytes += len(row) - slot.size
        slot.size = len(row)
        return row

    def _delta(self, slot: Slot, message: Message) -> dict[str, Any] | None:
        """The message as a change of what the edge holds, if that is known."""
        have = slot.have
        if not have or slot.whole or self._bases is None or slot.is_delete:
            return None
        base = self._bases.find(slot.ref.uid, have)
        if base is None or not isinstance(message.content, dict):
            return None
        try:
            return {"base": str(have), "uid": slot.ref.uid, "patch": make_patch(base, message.content)}
        except NoDelta:
            return None

    # -- what becomes of them ------------------------------------------------------------------------------------

    def is_in_flight(self, msg_id: str) -> bool:
        return msg_id in self._in_flight

    def acknowledged(self, msg_id: str) -> bool:
        """The edge has stored a message; False if it is none that is in flight."""
        uid = self._landed(msg_id)
        if uid is None:
            return False
        if self._busy_rounds:
            self._is_well()
        slot = self._slots[uid]
        if slot.is_delete:
            self._endings.deleted(resource.trim_node(slot.message.resource), uid)
            self._events.append(Removed(slot.ref))
        else:
            if self._bases is not None and isinstance(slot.message.content, dict):
                self._bases.keep(uid, slot.ref.version, slot.message.content)
            self._events.append(Delivered(slot.ref))
        self._promote(uid, slot)
        return True

    def denied(self, answer: Message, now: float) -> bool:
        """The edge has answered with an error; False if to none that is in flight. What could not be stored is sent again when it
        is due, or once the edge is no longer busy; what could not be read is not."""
        uid = self._in_flight.get(answer.parent_msg_id)
        if uid is None:
            return False
        slot = self._slots[uid]
        status = error_status(answer.content) or {}
        if status.get("reason") == "Conflict" and not slot.whole:  # it does not hold the base of a delta
            slot.whole = True
            self._repeats[uid] = None
        elif (rest_s := busy_for(status)) is not None:
            self._is_busy(uid, slot, now, rest_s)
        elif is_refused_for_good(answer):
            if status.get("reason") == "Gone":
                self._give_up(uid, slot, Denied(slot.ref))
            else:
                self._endings.unreadable(slot.ref)
                self._give_up(uid, slot, Refused(slot.ref, str(status.get("message") or "")))
        return True

    def _is_busy(self, uid: str, slot: Slot, now: float, rest_s: float) -> None:
        """The edge can store nothing now, and wants at least ``rest_s`` of rest; what else is on its way there is told the same."""
        limits = self._limits
        if now >= self._busy_until:
            wait = min(limits.retry_s * 2.0**self._busy_rounds, limits.busy_most_s)
            self._busy_rounds += 1
            self._busy_until = now + max(wait, min(rest_s, limits.busy_most_s)) * (1 + 0.2 * self._jitter())
        self._landed(slot.message.msg_id)
        self._repeats.pop(uid, None)
        if slot.newer is not None:
            slot.message, slot.ref = slot.newer
            slot.newer = None
        slot.state, slot.attempts = State.RESTING, 0
        self._due(slot, self._busy_until)

    def _is_well(self) -> None:
        """The edge stores again: nothing rests for it any longer."""
        self._busy_rounds, self._busy_until = 0, -math.inf
        for uid, slot in self._slots.items():
            if slot.state is State.RESTING:
                self._enter_lane(uid, slot)

    def unsendable(self, msg_id: str, reason: str) -> bool:
        """A message that was taken cannot be sent; this version of its object is not tried again. False if it is not in flight."""
        uid = self._in_flight.get(msg_id)
        if uid is None:
            return False
        slot = self._slots[uid]
        self._endings.unreadable(slot.ref)
        self._give_up(uid, slot, Refused(slot.ref, reason))
        return True

    def _give_up(self, uid: str, slot: Slot, event: Event) -> None:
        self._landed(slot.message.msg_id)
        self._repeats.pop(uid, None)
        self._events.append(event)
        self._promote(uid, slot)

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

    # -- time ----------------------------------------------------------------------------------------------------

    @property
    def due_from(self) -> float:
        """No slot is due before."""
        return self._due_from

    def _due(self, slot: Slot, at: float) -> None:
        slot.due = at
        self._due_from = min(self._due_from, at)

    def handle_timer(self, now: float) -> None:
        """Send again what is overdue."""
        if now < self._due_from:
            return
        self._due_from = self._busy_until if now < self._busy_until else math.inf
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
        elif slot.attempts < self._limits.attempts:
            slot.attempts += 1
            slot.due = now + self._limits.resend_s
            self._repeats[uid] = None
        else:
            self._landed(slot.message.msg_id)
            wait = min(self._limits.retry_s * 2**slot.rounds, self._limits.retry_most_s)
            slot.state, slot.rounds, slot.due = State.RESTING, slot.rounds + 1, now + wait * (1 + 0.2 * self._jitter())
