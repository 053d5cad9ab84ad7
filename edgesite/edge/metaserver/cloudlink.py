"""Requests to the API through the cloud, and watches there, over the link of this node.

    phase      OFFLINE    no link
               UNKNOWN    a link, and nothing heard yet of the other end
               OWN        a cloud of ours: requests go up whole, watches come as numbered events
               KUBEEDGE   KubeEdge's: requests go up as Applications

A write has one outcome, whatever happens to the link: it is sent again under its id until its time is up, and the cloud neither begins it later
nor twice. To know when that is by the cloud's clock, each answer tells it.

Units   Seconds of the monotonic clock.
Errors  ApiError: 503 without a link, 504 when there is no answer in time; `LinkLost` where a watch ends with its link.
State   The phase; the clock of the cloud; open watches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.edgehub.link import CONNECTED, DISCONNECTED, GREETED, Link
from edgesite.kube.errors import ApiError, unavailable
from edgesite.wire import metaserver
from edgesite.wire.application import ASKED, Application
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, error_status
from edgesite.wire.metaserver import ApiAnswer, ApiRequest, Events, WatchRef, WatchRequest

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metaserver.scopekey import ScopeKey

__all__ = ["CloudLink", "LinkLost", "Phase", "WatchStream", "offline"]

ANSWER_S: Final = 10.0  #: KubeEdge's, for reads and writes
DOUBTED_S: Final = 1.0  #: for reads while the link may be dead
MARGIN_S: Final = 1.0  #: between when a write may be begun last and when its caller is told that it was not
GREETING_S: Final = 3.0  #: in which a cloud of ours has greeted
TELL_S: Final = 1.0  #: for the hub to take what is told while we end
AT_ONCE: Final = 128
_HUB: Final = "websocket"
_DRIFT: Final = 2e-4  #: by which two monotonic clocks may run apart, and more
_TRIES: Final = 4  #: of a write over one link
_AGAIN_S: Final = 0.25
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Phase(Enum):
    OFFLINE = "offline"
    UNKNOWN = "unknown"
    OWN = "own"
    KUBEEDGE = "kubeedge"


class LinkLost(Exception):
    """The link ended, or what came over it has a gap: go on from where you are."""


def offline(node: str) -> ApiError:
    """What is refused because the cloud is out of reach. Without a time to come back at: clients of Go would wait for it ten times."""
    return unavailable(f"node {node} is offline: there is no link to the cloud, nothing was changed", None)


@dataclass(frozen=True, slots=True)
class _CloudClock:
    """``ms`` of the cloud's clock have passed at ``at`` of ours, or some more."""

    epoch: str
    ms: int
    at: float

    def at_least(self, when: float) -> int:
        """What the cloud's clock shows at ``when``, at least."""
        return self.ms + int((when - self.at) * 1000 * (1 - _DRIFT))


class WatchStream:
    """Events of one watch; iterate over it. ApiError when the cloud ends it, LinkLost with the link."""

    def __init__(self, link: CloudLink, ref: WatchRef) -> None:
        self._link = link
        self._ref = ref
        self._taken = self._credited = 0
        self._waiting: deque[Events] = deque()
        self._filled = anyio.Event()
        self._lost = False

    def put(self, events: Events) -> None:
        if len(self._waiting) > 2 * metaserver.WINDOW:  # the cloud does not keep to what was agreed
            self.lose()
            return
        self._waiting.append(events)
        self._filled.set()

    def lose(self) -> None:
        self._lost = True
        self._filled.set()

    async def next(self) -> Events:
        """Raises ApiError, LinkLost."""
        while not self._waiting:
            if self._lost:
                raise LinkLost
            self._filled = anyio.Event()
            await self._filled.wait()
        events = self._waiting.popleft()
        self._taken += 1
        if events.ref.number != self._taken:
            raise LinkLost
        if events.error is not None:
            raise ApiError.from_status(events.error)
        return events

    async def credit(self) -> None:
        """Let the cloud go on: what was taken is dealt with."""
        if self._taken - self._credited >= metaserver.WINDOW // 2:
            self._credited = self._taken
            await self._link.tell(metaserver.CREDIT, WatchRef(self._ref.link, self._ref.id, self._taken).content())


class CloudLink:
    """The way to the cloud. `take` is given what comes on the bus."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self.phase = Phase.OFFLINE
        self.lost_at = ctx.clock.monotonic()  #: when the last link ended
        self._changed = anyio.Event()
        self._link_id = ""
        self._clock: _CloudClock | None = None
        self._streams: dict[int, WatchStream] = {}
        self._numbers = 0
        self._places = anyio.CapacityLimiter(AT_ONCE)
        self._deadline = 0.0
        self._probing = False
        self._in_doubt = False  # the last question was not answered: the link may be dead, and nobody have noticed
        link = ctx.services.find(Link)  # type: ignore[type-abstract]
        if link is not None and link.connected:
            self._connected(own=link.own_peer)

    @property
    def connected(self) -> bool:
        if self.phase is Phase.OFFLINE:
            return False
        link = self._ctx.services.find(Link)  # type: ignore[type-abstract]
        return link is not None and link.connected  # it knows first

    # -- the link ------------------------------------------------------------------------------------------------

    def take(self, message: Message) -> bool:
        """Take a message of the hub; False if it is not for us."""
        if message.operation == "connect":
            if message.content == CONNECTED:
                link = self._ctx.services.find(Link)  # type: ignore[type-abstract]
                self._connected(own=link is not None and link.own_peer)
            elif message.content == GREETED and self.connected:
                self._become(Phase.OWN)
            elif message.content == DISCONNECTED:
                self._disconnected()
            return True
        if message.resource != metaserver.EVENTS:
            return False
        try:
            events = Events.of(message.object())
        except InvalidMessage as exc:
            self._ctx.log.warning("the cloud told of no events: %s", exc)
            return True
        stream = self._streams.get(events.ref.id) if events.ref.link == self._link_id else None
        if stream is not None:
            stream.put(events)
        return True

    def _connected(self, *, own: bool) -> None:
        self._lose_streams()
        self._in_doubt = False
        self._clock = None  # it may be another cloud
        self._link_id = self.maker.new_id()
        self._deadline = self._ctx.clock.monotonic() + GREETING_S
        self._become(Phase.OWN if own else Phase.UNKNOWN)

    def _disconnected(self) -> None:
        if self.phase is not Phase.OFFLINE:
            self.lost_at = self._ctx.clock.monotonic()
        self._become(Phase.OFFLINE)
        self._lose_streams()

    def _lose_streams(self) -> None:
        for stream in self._streams.values():
            stream.lose()
        self._streams.clear()

    def _become(self, phase: Phase) -> None:
        self.phase = phase
        self._changed.set()
        self._changed = anyio.Event()

    async def settled(self) -> Phase:
        """Wait until it is known who is at the other end, if anybody is; UNKNOWN if nothing is heard for long."""
        while self.phase is Phase.UNKNOWN:
            left_s = self._deadline - self._ctx.clock.monotonic()
            if left_s <= 0 and not self._probing:
                if not await self._probe():
                    break
                continue
            with anyio.move_on_after(left_s if left_s > 0 else ANSWER_S) as scope:
                await self._changed.wait()
            if scope.cancelled_caught and left_s <= 0:
                break
        return self.phase

    async def _probe(self) -> bool:
        """Ask what both kinds of clouds answer: one of ours has greeted before that. Returns whether there was an answer."""
        asked = Application(self._ctx.node_name, "/core/v1/namespaces/null/default", "get", b"{}").content()
        request = self.maker.make(metaserver.SOURCE_EDGE, metaserver.SOURCE_CLOUD, ASKED, ASKED, asked)
        link_id, self._probing = self._link_id, True
        try:
            await self.exchange(request, ANSWER_S)
        except ApiError as exc:
            if exc.code in (503, 504):
                return False
        finally:
            self._probing = False
            self._deadline = self._ctx.clock.monotonic() + GREETING_S
        if self.phase is Phase.UNKNOWN and self._link_id == link_id:
            self._become(Phase.KUBEEDGE)
        return True

    async def wait_connected(self) -> Phase:
        """Wait for a link, and who is at its other end."""
        while True:
            while not self.connected:
                await self._changed.wait()
            if (phase := await self.settled()) not in (Phase.OFFLINE, Phase.UNKNOWN):
                return phase
            with anyio.move_on_after(GREETING_S):
                await self._changed.wait()

    async def wait_change(self) -> None:
        """Wait until the phase changes."""
        await self._changed.wait()

    # -- requests ------------------------------------------------------------------------------------------------

    async def ask(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> ApiAnswer:
        """Have a request carried out by a cloud of ours. Raises ApiError."""
        if self._places.available_tokens < 1:
            raise ApiError(429, "TooManyRequests", "too many requests are under way on this node", None, 1)
        id_ = self.maker.new_id()
        async with self._places:
            if method in _READS:
                within_s = DOUBTED_S if self._in_doubt else ANSWER_S
                return await self._exchange(ApiRequest(id_, method, target, headers, body), within_s)
            return await self._write(ApiRequest(id_, method, target, headers, body))

    async def _write(self, request: ApiRequest) -> ApiAnswer:
        deadline = self._ctx.clock.monotonic() + ANSWER_S
        clock = self._clock
        if clock is None:
            await self.look_at_clock()
            clock = self._clock
        if clock is None:
            raise offline(self._ctx.node_name)
        until = (clock.epoch, clock.at_least(deadline - MARGIN_S))
        request = ApiRequest(request.id, request.method, request.target, request.headers, request.body, until)
        sent, tries = False, 0
        while (left_s := deadline - self._ctx.clock.monotonic()) > 0:
            if not self.connected:
                if not sent:
                    raise offline(self._ctx.node_name)
                with anyio.move_on_after(left_s):
                    await self.wait_connected()
                continue
            sent = True
            try:
                return await self._exchange(request, left_s)
            except ApiError as exc:
                if exc.code not in (503, 504):
                    raise
                tries += 1
                if exc.code == 503 and self.connected:  # or the link is back already
                    if tries >= _TRIES:
                        raise
                    await self._ctx.clock.sleep(_AGAIN_S)
        raise ApiError(
            504, "Timeout", "the cloud did not answer in time: the write is not carried out unless it has been already"
        )

    async def look_at_clock(self) -> None:
        """Learn what the cloud's clock shows. Raises ApiError."""
        await self._exchange(ApiRequest(self.maker.new_id(), "GET", "/version", {}), ANSWER_S)

    async def _exchange(self, request: ApiRequest, timeout_s: float) -> ApiAnswer:
        """Raises ApiError."""
        try:
            content = await self.call(metaserver.API, request.content(), timeout_s)
            answer = ApiAnswer.of(content)
        except InvalidMessage as exc:
            raise unavailable(f"the cloud's answer cannot be read: {exc}") from exc
        if answer.clock is not None:
            self._learn(*answer.clock)
        return answer

    def _learn(self, epoch: str, ms: int) -> None:
        """Keep the later of what was told, for the cloud's clock shows at least that."""
        now = self._ctx.clock.monotonic()
        known = self._clock
        if known is not None and known.epoch != epoch:
            self._lose_streams()  # its former run has taken them along, though the link held
        if known is None or known.epoch != epoch or known.at_least(now) < ms:
            self._clock = _CloudClock(epoch, ms, now)

    async def call(self, path: str, content: Any, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Ask the cloud. Raises ApiError, InvalidMessage."""
        request = self.maker.make(metaserver.SOURCE_EDGE, metaserver.SOURCE_CLOUD, metaserver.ASK, path, content)
        answer = await self.exchange(request, timeout_s)
        return answer.object()

    async def exchange(self, request: Message, timeout_s: float) -> Message:
        """Send a message and return its answer. Raises ApiError."""
        if not self.connected:
            raise offline(self._ctx.node_name)
        try:
            answer = await self._ctx.bus.call(_HUB, request, timeout_s=timeout_s)
        except TimeoutError:
            self._in_doubt = True
            raise ApiError(504, "Timeout", f"the cloud did not answer in {timeout_s:.0f} s") from None
        except LookupError:
            raise offline(self._ctx.node_name) from None
        self._in_doubt = False
        status = error_status(answer.content)
        if status is not None:
            raise ApiError.from_status(status)
        return answer

    async def tell(self, path: str, content: Any) -> None:
        """Send what is not answered; without a link it is dropped."""
        message = self.maker.make(metaserver.SOURCE_EDGE, metaserver.SOURCE_CLOUD, metaserver.TELL, path, content)
        try:
            await self._ctx.bus.send(_HUB, message)
        except LookupError:
            self._ctx.log.debug("no hub to send to: resource=%s", path)

    # -- watches -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watch(self, key: ScopeKey, since: int, token: str) -> AsyncGenerator[WatchStream]:
        """Watch at a cloud of ours. Raises ApiError, LinkLost."""
        self._numbers += 1
        ref = WatchRef(self._link_id, self._numbers)
        request = WatchRequest(
            ref,
            key.kind.group,
            key.kind.version,
            key.kind.resource,
            key.namespace,
            key.labels,
            key.fields,
            since,
            token,
        )
        stream = self._streams[ref.id] = WatchStream(self, ref)
        try:
            await self.call(metaserver.WATCH, request.content(), 3 * ANSWER_S)
            yield stream
        except InvalidMessage as exc:
            raise unavailable(f"the cloud's answer cannot be read: {exc}") from exc
        finally:
            self._streams.pop(ref.id, None)
            if self._link_id == ref.link and self.connected:
                with anyio.move_on_after(TELL_S, shield=True):
                    await self.tell(metaserver.STOP, ref.content())
