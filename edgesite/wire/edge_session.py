"""The edge's side of the connection to the cloud, without I/O.

    modules of the edge ──> send ──> lanes ──> take_frame ──> transport
    transport ──> receive_frame ──> events: Received, Answer, Greeted, Forget

A message that came must be acknowledged by whoever stored it: `send` the acknowledgement (`MessageMaker.ack`). The same message
coming again soon is left out; coming again after that, it is handed on again, for who had it may have died with it; coming
again once it is acknowledged, it is acknowledged again at once and has no other effect.

`take` picks what leaves next: keepalives, then acknowledgements, then requests in order, these at most ``rate`` a second.
To a cloud of ours `take_frame` joins messages into frames, acknowledges by number all that is stored, and sends no keepalive
where something else has just told that we live; ``own_rate`` holds instead of ``rate``, for that cloud stops reading when it
has enough.

A request that the transport would not carry is answered here with an error, before it could cut the link.

Requests to which no answer came before the end are handed back by `close`, so that nobody waits for one.

Units   ``now`` is monotonic seconds.
Source  KubeEdge v1.12.7, edge/pkg/edgehub (keepalive, rate limit, acknowledgements).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from edgesite.wire import frames, greeting
from edgesite.wire.delivery import ObjectRef, is_refused_for_good
from edgesite.wire.events import Answer, Event, Forget, Greeted, Received
from edgesite.wire.frames import Frame, Lane
from edgesite.wire.message import OK, Message, MessageMaker, Operation, too_large
from edgesite.wire.numbers import Stored
from edgesite.wire.renewal import RENEW, Renewals

__all__ = ["EdgeLimits", "EdgeSession"]


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Times in seconds and bounds of a session."""

    heartbeat_s: float = 15.0
    silence: float = 3.0  #: heartbeats without a word of a cloud that answers them, after which it is lost
    unanswered: float = (
        6.0  #: heartbeats without a word of a cloud of KubeEdge, all of which answer it, after a lease was asked for
    )
    rate: float = 30.0  #: requests a second; 0 means no limit
    own_rate: float = 0.0  #: the same to a cloud of ours
    burst: int = 60
    storing_s: float = 4.0  #: how long a message may take to be stored before its repetition is handed on
    backlog: int = 1024  #: requests that may wait
    remembered: int = 1024  #: ids of messages that came
    frame_messages: int = 64  #: in one frame
    frame_bytes: int = 32 * 1024  #: beyond which nothing more is put into a frame
    message_bytes: int = frames.MESSAGE_BYTES  #: of a message of the transport


_ANSWERED: Final = frozenset({"query", "insert", "update", "patch", "delete", "null", RENEW})
_LEASE: Final = "/lease/"
_FOR_CALLERS: Final = frozenset({"resource", "func", "user"})


class EdgeSession:
    """One connection to the cloud. After each call drain ``events``, `take_frame` until None, and arm a timer for `next_timer`.
    ``features`` are what we offer."""

    def __init__(
        self,
        maker: MessageMaker,
        *,
        now: float,
        limits: EdgeLimits | None = None,
        features: frozenset[str] = greeting.FEATURES,
    ) -> None:
        self.limits = limits or EdgeLimits()
        self.closed = False
        self.reason = ""  #: why it closed by itself
        self.own_peer = False  #: the cloud has greeted
        self.spread_s = 0.0  #: over which time the cloud wants its edges to come back when it has lost them all
        self.agreed: frozenset[str] = frozenset()  #: features of both ends
        self.events: deque[Event] = deque()
        self.left_out: deque[Message] = deque()  #: answers of ours to what was too large; drain after `take_frame`
        self._maker = maker
        self._offered = features
        self._stored = Stored()
        self._renewals = Renewals()
        self._held: tuple[ObjectRef, ...] = ()  # until the cloud has asked for it, or anything else
        self._keepalive_at = now
        self._greeted = False
        self._heard_at = now
        self._asked_at: float | None = None  # for a lease, since when nothing was heard
        self._acks: deque[Message] = deque()
        self._requests: deque[Message] = deque()
        self._waiting: dict[str, Message] = {}  # requests written, msg_id -> request
        self._seen: dict[str, Message | float] = {}  # msg_id -> its acknowledgement, or when it was handed on
        self._tokens = float(self.limits.burst)
        self._tokens_at = now

    def set_limits(self, limits: EdgeLimits, now: float) -> None:
        """Go on by other limits; the time of silence begins anew with a longer or shorter heartbeat."""
        self.limits = limits
        self._tokens = min(self._tokens, float(limits.burst))
        self._heard_at = max(self._heard_at, now - limits.heartbeat_s)
        self._keepalive_at = min(self._keepalive_at, now + limits.heartbeat_s)

    @property
    def has_room(self) -> bool:
        """Whether another request may be queued. Acknowledgements always may."""
        return len(self._requests) < self.limits.backlog

    def send(self, message: Message, now: float) -> None:
        """Queue a message for the cloud; a closed session ignores it. Look at `has_room` first."""
        if self.closed:
            return
        if is_refused_for_good(message) and not self.own_peer:
            # KubeEdge's cloud takes no refusal: it would repeat the message for ever, and hold up all others meanwhile.
            message = replace(message, operation=Operation.RESPONSE.value, content=OK)
        if message.operation == Operation.RESPONSE:
            if self._stored.stored(message.parent_msg_id):
                return
            if message.parent_msg_id in self._seen:
                self._seen[message.parent_msg_id] = message
            self._acks.append(message)
        elif message.operation == Operation.ERROR:
            self._seen.pop(message.parent_msg_id, None)  # it could not be stored: coming again, it is new
            if is_refused_for_good(message):
                self._stored.stored(message.parent_msg_id)
            self._acks.append(message)
        else:
            if RENEW in self.agreed:
                message = self._renewals.request(message)
            self._requests.append(replace(message, sync=False) if message.sync else message)

    def tell_holdings(self, objects: Iterable[ObjectRef], *, whole: bool = False) -> None:
        """Tell the cloud what is stored here; it goes out after the greeting. Not ``whole``: a digest may do."""
        self._held = tuple(objects)
        if greeting.DIGEST in self.agreed and not whole:
            digest = greeting.digest_of((one.uid, one.version) for one in self._held)
            self._acks.append(self._maker.make("websocket", "resource", greeting.HOLDINGS, "node", {"digest": digest}))
        else:
            self._tell_all_holdings()

    def _tell_all_holdings(self) -> None:
        content = greeting.holdings_content(self._held)
        self._acks.append(self._maker.make("websocket", "resource", greeting.HOLDINGS, "node", content))
        self._held = ()

    # -- to the transport ----------------------------------------------------------------------------------------

    def take(self, now: float, lane: Lane | None = None) -> Message | None:
        """Return the next message to write; None if nothing may leave now."""
        if self.closed:
            return None
        if lane is not Lane.BULK:
            if now >= self._keepalive_at:
                return self._keepalive(now)
            if self._acks:
                return self._acks.popleft()
        if lane is Lane.URGENT or not self._requests or not self._may_request(now):
            return None
        request = self._requests.popleft()
        if request.operation in _ANSWERED and not request.parent_msg_id:
            self._waiting[request.msg_id] = request
            if self._asked_at is None and _LEASE in request.resource:
                self._asked_at = now
            if len(self._waiting) > self.limits.backlog:  # a Go cloud leaves some requests without an answer
                self.give_up(next(iter(self._waiting)))
        return request

    def take_frame(self, now: float, lane: Lane | None = None) -> Frame | None:
        """Return what to write next; None if nothing may leave now. A transport with lanes asks for each of them."""
        if greeting.FRAMES not in self.agreed:
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
            row = frames.encode_row(message, 0)
            if len(row) > most:
                self._leave_out(message, len(row))
                continue
            rows.append(row)
            size += len(row)
        with_numbers = lane is not Lane.BULK  # beside the refusals, which the cloud must see first
        if not rows and not (with_numbers and self._stored.is_news):
            return None
        self._keepalive_at = now + self.limits.heartbeat_s
        upto, more = 0, []
        if with_numbers:
            self._stored.is_news = False
            upto, more = self._stored.upto, self._stored.more()
        deflate = greeting.DEFLATE in self.agreed
        return Frame(frames.encode(0, upto, more, self._maker.now_ms(), rows, deflate=deflate), text=False)

    def _take_text(self, now: float, lane: Lane | None) -> Frame | None:
        while (message := self.take(now, lane)) is not None:
            data = message.to_json()
            if len(data) <= self.limits.message_bytes:
                return Frame(data, text=True)
            self._leave_out(message, len(data))
        return None

    def _leave_out(self, message: Message, size: int) -> None:
        """A message is too large for the transport, which would end the link over it. Whoever sent it may be waiting."""
        self.give_up(message.msg_id)
        reason = f"the message has {size} bytes, more than {self.limits.message_bytes}"
        self.left_out.append(self._maker.error(message, too_large(reason)))

    def _keepalive(self, now: float) -> Message:
        self._keepalive_at = now + self.limits.heartbeat_s
        content = "ping" if self._greeted else greeting.greeting(self._offered)
        self._greeted = True
        return self._maker.make("websocket", "resource", Operation.KEEPALIVE, "node", content)

    @property
    def _rate(self) -> float:
        return self.limits.own_rate if self.own_peer else self.limits.rate

    def _may_request(self, now: float) -> bool:
        if not self._rate:
            return True
        gained = (now - self._tokens_at) * self._rate
        self._tokens = min(float(self.limits.burst), self._tokens + gained)
        self._tokens_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    # -- from the transport --------------------------------------------------------------------------------------

    def receive_frame(self, data: bytes, now: float, *, text: bool) -> None:
        """Take what the transport brought. Raises InvalidMessage."""
        if text:
            self.receive(Message.from_json(data), now)
            return
        batch = frames.decode(data)
        self._heard_at = now
        self._stored.floor(batch.floor)
        for message, number in zip(batch.messages, batch.numbers, strict=True):
            if number:
                self._stored.came(message.msg_id, number)
                if not self._stored.is_waiting(message.msg_id):
                    continue  # it is stored: told again with the next frame
            self.receive(message, now)

    def receive(self, message: Message, now: float) -> None:
        """Take a message of the cloud."""
        if self.closed or message.is_empty:
            return
        self._heard_at, self._asked_at = now, None
        if message.operation == Operation.KEEPALIVE:
            features = greeting.features_of(message)
            if features is not None:
                self.spread_s = greeting.spread_of(message)
            if features is not None and not self.own_peer:
                self.own_peer = True
                self.agreed = features & self._offered
                self.events.append(Greeted(own=True, features=features))
        elif message.operation == greeting.HOLDINGS:
            if forgotten := greeting.forgotten_in(message):
                self.events.append(Forget(forgotten))
            else:
                self._tell_all_holdings()
        elif message.parent_msg_id and message.group in _FOR_CALLERS:
            request = self._waiting.pop(message.parent_msg_id, None)
            self.events.append(Answer(self._renewals.answer(request, message)))
        else:
            known = self._seen.get(message.msg_id)
            if isinstance(known, Message):
                self._acks.append(replace(known, msg_id=self._maker.new_id(), timestamp_ms=self._maker.now_ms()))
            elif known is None or now - known >= self.limits.storing_s:
                self._remember(message.msg_id, now)
                self.events.append(Received(message))

    def _remember(self, msg_id: str, now: float) -> None:
        self._seen[msg_id] = now
        if len(self._seen) > self.limits.remembered:
            del self._seen[next(iter(self._seen))]

    def give_up(self, msg_id: str) -> None:
        """Nobody waits any more for the answer to this request."""
        self._waiting.pop(msg_id, None)
        self._renewals.given_up(msg_id)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `handle_timer` is due, after which more may be taken; None once closed."""
        if self.closed:
            return None
        times = [self._keepalive_at, self._lost_at]
        if self._requests and self._tokens < 1 and self._rate:
            times.append(self._tokens_at + (1 - self._tokens) / self._rate + 1e-3)
        return min(times)

    @property
    def _lost_at(self) -> float:
        """When to give up the cloud, if it stays silent."""
        if self.own_peer:
            return self._heard_at + self.limits.silence * self.limits.heartbeat_s
        if self._asked_at is None:
            return math.inf
        return self._asked_at + self.limits.unanswered * self.limits.heartbeat_s

    def handle_timer(self, now: float) -> None:
        """Give up a cloud that has fallen silent: one that answers keepalives, or one of KubeEdge that has not answered for a lease."""
        if not self.closed and now >= self._lost_at:
            self.reason = f"nothing heard for {now - self._heard_at:.0f} s"
            self.closed = True

    def close(self) -> list[Message]:
        """End the session; returns the requests that got no answer, those never written too."""
        self.closed = True
        unanswered = [*self._waiting.values(), *self._requests]
        self._waiting.clear()
        self._requests.clear()
        self._acks.clear()
        return unanswered
