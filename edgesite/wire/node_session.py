"""The cloud's side of one node's connection, without I/O.

    messages of cloud modules ──> send ──> lanes ──> take_frame ──> transport
    transport ──> receive_frame ──> events: Received, Answer, Sent, Delivered, Removed, Refused, Denied, Greeted, Holdings, Opened, Closed

Object messages have one slot per object (`edgesite.wire.deliveries`): of several waiting versions the newest is sent, and a
version that is not newer than what the edge has is not sent at all. Each is sent again until the edge acknowledges it.
Everything else is sent once, and before objects.

To a peer of ours `take_frame` joins messages into frames, whose numbers are acknowledged all together, and tells changes of
objects as deltas where it knows what the edge holds. A message that the transport would not carry is refused here, before it could
cut the link: its object waits for its next version, who asked gets an error.

Nothing but answers leaves before the peer's first keepalive: only then is it known who it is. A peer of ours then tells
what it holds, and objects wait for that too (``hold_s`` at most). A digest is enough if it is what was recorded.

Units   ``now`` is monotonic seconds.
Errors  Bad input never raises: it is counted in ``refused``.
Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/session and /dispatcher; the greeting is our own (`edgesite.wire.greeting`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from msgspec.structs import replace

from edgesite.wire import frames, greeting, resource
from edgesite.wire.deliveries import Deliveries
from edgesite.wire.delivery import ObjectRef, is_node_removal, needs_ack, object_of
from edgesite.wire.delta import DELTA, Bases
from edgesite.wire.events import Answer, Closed, Delivered, Denied, Event, Greeted, Holdings, Opened, Received, Refused
from edgesite.wire.fifo import Fifo
from edgesite.wire.frames import Frame, Lane
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation, too_large
from edgesite.wire.numbers import Outstanding
from edgesite.wire.slots import SessionCounts, SessionLimits

__all__ = ["NodeSession", "SessionLimits"]


#: answers that an edge keeps, so that their objects must be followed; nodes and leases change too often for that
_KEPT_ANSWERS: Final = frozenset(
    {"configmap", "secret", "persistentvolume", "persistentvolumeclaim", "volumeattachment"}
)


_SPREAD_STEP_S: Final = 1.0  #: and more than twice of what it was: then it is told again
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
        "_agreed", "_answered", "_bases", "_deliveries", "_digest", "_hold_until", "_jitter", "_lost_at", "_maker",
        "_numbers", "_offered", "_once", "_spread_s", "_told_s", "_version_at_edge", "closed", "counts", "dropped", "events",
        "limits", "node", "own_peer", "refused",
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
        self.dropped = 0  #: messages sent once that were pushed out, or are too large
        self.counts = counts if counts is not None else SessionCounts()
        self._maker = maker
        self._version_at_edge = version_at_edge
        self._jitter = jitter
        self._digest = digest
        self._spread_s = spread_s
        self._told_s = 0.0  # the spread that the peer knows
        self._offered = features
        self._agreed: frozenset[str] = frozenset()
        self._bases = bases if bases is not None else Bases(0)
        self._numbers: Outstanding | None = None  # once frames are agreed on
        self._lost_at = now + self.limits.keepalive_s
        self._hold_until: float | None = now + self.limits.hold_s
        self._once: Fifo[Message] = Fifo()
        self._deliveries: Deliveries | None = None  # most nodes at rest have none
        self._answered: dict[str, ObjectRef] | None = None  # msg_id of an answer -> the object in it

    def set_limits(self, limits: SessionLimits) -> None:
        """Go on by other limits. A longer time of silence holds at once, a shorter one from when the peer is heard next."""
        self._lost_at += max(0.0, limits.keepalive_s - self.limits.keepalive_s)
        self.limits = limits

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
            return
        deliveries = self._deliveries = self._deliveries or self._make_deliveries()
        if deliveries.is_stale(message, ref, is_held=self._hold_until is not None):
            self.counts.stale += 1
            if message.operation != Operation.DELETE and deliveries.has_ended(ref):
                self.events.append(Denied(ref))  # objects do not come back, unless the API has lost its past
        else:
            deliveries.put(message, ref)

    def _make_deliveries(self) -> Deliveries:
        made = Deliveries(
            self.events,
            version_at_edge=self._version_at_edge,
            jitter=self._jitter,
            limits=self.limits,
            counts=self.counts,
        )
        self._introduce(made)
        return made

    def _introduce(self, deliveries: Deliveries) -> None:
        bases = self._bases if DELTA in self._agreed else None
        deliveries.greeted(own_peer=bool(self.own_peer), numbers=self._numbers, bases=bases)

    def _send_once(self, message: Message, ref: ObjectRef | None) -> None:
        if len(self._once) >= self.limits.once:
            self._once.popleft()
            self.dropped += 1
        self._once.append(message)
        if ref is not None and ref.version and message.operation == Operation.RESPONSE and ref.type in _KEPT_ANSWERS:
            answered = self._answered = self._answered if self._answered is not None else {}
            answered[message.msg_id] = ref
            if len(answered) > self.limits.once:
                del answered[next(iter(answered))]

    # -- to the transport ----------------------------------------------------------------------------------------

    def take(self, now: float, lane: Lane | None = None) -> Message | None:
        """Return the next message to write, in wire form; None if nothing may leave now."""
        if self.closed:
            return None
        if self._once and lane in (None, Lane.URGENT if self._once[0].operation in _GREETINGS else Lane.BULK):
            message = self._once.popleft()
            wire = resource.trim_node(message.resource)
            return message if wire == message.resource else replace(message, resource=wire)
        if self._deliveries is None:
            return None
        return self._deliveries.take(now, lane, is_held=self._hold_until is not None)

    def take_frame(self, now: float, lane: Lane | None = None) -> Frame | None:
        """Return what to write next; None if nothing may leave now. A transport with lanes asks for each of them."""
        if not self._once and (self._deliveries is None or not self._deliveries.is_waiting):
            return None
        if self._numbers is None:
            return self._take_text(now, lane)
        most = (
            self.limits.message_bytes - 2 * self.limits.frame_bytes
        )  # beside it: the rows before it, the frame's head
        rows: list[frames.Row] = []
        size = 0
        while len(rows) < self.limits.frame_messages and size < self.limits.frame_bytes:
            message = self.take(now, lane)
            if message is None:
                break
            row = frames.encode_row(message, 0) if self._deliveries is None else self._deliveries.row(message)
            if len(row) > most:
                self._leave_out(message, len(row))
                continue
            rows.append(row)
            size += len(row)
        if not rows:
            return None
        deflate = greeting.DEFLATE in self._agreed
        return Frame(frames.encode(self._numbers.floor, 0, (), self._maker.now_ms(), rows, deflate=deflate), text=False)

    def _take_text(self, now: float, lane: Lane | None) -> Frame | None:
        while (message := self.take(now, lane)) is not None:
            data = message.to_json()
            if len(data) <= self.limits.message_bytes:
                return Frame(data, text=True)
            self._leave_out(message, len(data))
        return None

    def _leave_out(self, message: Message, size: int) -> None:
        """A message is too large for the transport, which would end the link over it, again and again."""
        reason = f"its message has {size} bytes, more than {self.limits.message_bytes}"
        if self._deliveries is not None and self._deliveries.unsendable(message.msg_id, reason):
            return
        self.dropped += 1
        path = resource.parse(message.resource)
        ref = self._answered.pop(message.msg_id, None) if self._answered is not None else None
        self.events.append(Refused(ref or ObjectRef("", 0, path.type, path.namespace, path.name), reason))
        if self.own_peer and message.parent_msg_id:  # KubeEdge's v1.12 would store an error as if it were the object
            error = replace(
                message, operation=Operation.ERROR.value, content=too_large(reason), resource_version="", type=""
            )
            self._once.appendleft(error)

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
            if self._deliveries is not None:
                self._deliveries.acknowledged(msg_id)
        self._tell_spread()

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
            self._on_error(message, now)
        elif message.operation == greeting.HOLDINGS:
            self._on_holdings(message)
        else:
            self.events.append(Received(message))

    def _on_keepalive(self, message: Message) -> None:
        features = greeting.features_of(message)
        if self.own_peer is None or (
            features is not None and not self.own_peer
        ):  # it may have taken longer than we wait
            self.own_peer = features is not None
            self._agreed = greeting.agree(features or frozenset(), self._offered)
            if greeting.FRAMES in self._agreed:
                self._numbers = Outstanding()
            if self._deliveries is not None:
                self._introduce(self._deliveries)
            self.events.append(Greeted(self.own_peer, features or frozenset()))
            if greeting.HOLDINGS not in self._agreed:
                self._end_hold()
        if self.own_peer:
            content = None if features is None else self._greeting()
            self._once.appendleft(
                self._maker.make("cloudhub", "resource", Operation.KEEPALIVE, "node", content, parent=message.msg_id)
            )

    def _greeting(self) -> dict[str, object]:
        self._told_s = self._spread_s()
        return greeting.greeting(self._offered, spread_s=self._told_s)

    def _tell_spread(self) -> None:
        """Who came among the first was told of few nodes."""
        if self._told_s * 2 + _SPREAD_STEP_S < self._spread_s():
            self._once.append(self._maker.make("cloudhub", "resource", Operation.KEEPALIVE, "node", self._greeting()))

    def _on_response(self, message: Message) -> None:
        parent = message.parent_msg_id
        if self._deliveries is not None and self._deliveries.acknowledged(parent):
            return
        answered = self._answered.pop(parent, None) if self._answered is not None else None
        if answered is not None:
            self.events.append(Delivered(answered))
        elif parent:
            self.events.append(Answer(message))  # to a call of a cloud module, or a repeated acknowledgement

    def _on_error(self, message: Message, now: float) -> None:
        if self._deliveries is None or not self._deliveries.denied(message, now):
            self.events.append(Answer(message))

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
        """Ask the edge to take these objects whatever it knows of them: it then tells again what it holds. False if it cannot; they
        may be sent to it all the same."""
        uids = list(uids)
        if self._deliveries is not None:
            self._deliveries.forget(uids)
        if self.closed or greeting.FORGET not in self._agreed:
            return False
        content = {greeting.FORGET: uids}
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
        due = math.inf if self._deliveries is None else self._deliveries.due_from
        return min(self._lost_at, due, math.inf if self._hold_until is None else self._hold_until)

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
        if self._deliveries is not None:
            self._deliveries.handle_timer(now)

    def close(self, reason: str) -> None:
        """End the session; what was not acknowledged is found again from the recorded versions."""
        if not self.closed:
            self.closed = True
            self.events.append(Closed(reason))

    @property
    def may_gather(self) -> bool:
        """Whether what waits may be joined by more before it leaves: objects alone, less than a frame, and others are on their way."""
        return bool(self.own_peer and not self._once and self._deliveries is not None and self._deliveries.may_gather)

    def is_in_flight(self, msg_id: str) -> bool:
        """Whether this is a message about an object that the edge has yet to acknowledge."""
        return self._deliveries is not None and self._deliveries.is_in_flight(msg_id)

    @property
    def backlog(self) -> int:
        """Objects that the edge has not acknowledged yet."""
        return 0 if self._deliveries is None else self._deliveries.backlog
