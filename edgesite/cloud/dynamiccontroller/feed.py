"""One watch of a kind at the API, for all nodes that watch objects of it.

    API ──> Feed (the last events) ──> Subscription ──> node
                                  └──> Subscription ──> node

A feed begins at the revision that its first subscriber asks for, so that nobody misses what happened between a list and a watch. Who asks for an older
one has what lies between fetched once, for all. Events are kept within bounds; who is behind them has to list again (410).

What selectors let through is decided here: an object's labels and selectable fields are remembered from its last event. Where that is not known (the
object was not seen yet), the subscriber is told so, for it knows what it holds.

Units   Revisions are the API's, as numbers; times are seconds.
Errors  ApiError 410 to subscribers that are too far behind; the API's own errors when a watch cannot begin.
State   The last events of one kind, and labels and fields of the objects in them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube import json
from edgesite.kube.errors import ApiError, expired
from edgesite.kube.resources import BUILTIN, ResourceTable
from edgesite.kube.selectable import field_text, parse_fields, parse_labels
from edgesite.wire.delivery import version_number
from edgesite.wire.metaserver import LEFT, SEEN_OR_NEW, WINDOW, Events, WatchRef, WatchRequest

if TYPE_CHECKING:
    import logging
    import random

    from edgesite.client import Client, WatchEvent
    from edgesite.context import Clock
    from edgesite.kube.resources import Resource
    from edgesite.kube.selectors import FieldSelector, LabelSelector

    Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

__all__ = ["Feed", "Subscription"]

EVENTS_KEPT: Final = 4096
BYTES_KEPT: Final = 16 * 1024 * 1024
MESSAGE_EVENTS: Final = 128
MESSAGE_BYTES: Final = 64 * 1024
CATCH_UP_S: Final = 2  #: of a watch that only looks back
_FIRST_WAIT_S: Final = 0.1
_MOST_WAIT_S: Final = 10.0
Object = dict[str, Any]
_FIXED: Final = ("metadata.name", "metadata.namespace", "spec.nodeName")  #: selectable fields that are set once
_ROWS: Final = ResourceTable(BUILTIN)


@dataclass(frozen=True, slots=True)
class _Attributes:
    """By what an object is selected."""

    labels: Mapping[str, str]
    fields: Mapping[str, str]


@dataclass(slots=True)
class FeedEvent:
    """``before``: what the object was selected by until then; None: not known."""

    type: str
    revision: int
    namespace: str
    name: str
    now: _Attributes
    before: _Attributes | None
    text: str


class Selection:
    """What one subscriber wants of a kind."""

    def __init__(self, namespace: str, labels: str, fields: str) -> None:
        """Raises ApiError 400."""
        self._namespace = namespace
        self._labels: LabelSelector | None = parse_labels(labels) if labels else None
        self._fields: FieldSelector | None = parse_fields(fields) if fields else None
        exact = ((field, self._fields.exact(field)) for field in _FIXED) if self._fields is not None else ()
        self._fixed = [(field, value) for field, value in exact if value]

    def type_of(self, event: FeedEvent) -> str:
        """As what the subscriber sees an event; "" if not at all."""
        if self._namespace and event.namespace != self._namespace:
            return ""
        if self._labels is None and self._fields is None:
            return event.type
        if self._fixed and self._is_never(event):
            return ""
        is_new = event.type == "ADDED"
        was = None if event.before is None else self._lets_through(event, event.before)
        if event.type == "DELETED":
            return "DELETED" if was is not False else ""
        if self._lets_through(event, event.now):
            if is_new or was is False:
                return "ADDED"
            return "MODIFIED" if was else SEEN_OR_NEW
        return "" if is_new or was is False else LEFT

    def _is_never(self, event: FeedEvent) -> bool:
        """Whether an object cannot have been let through before, whatever is known of it: by such fields watches are authorised."""
        own = {**event.now.fields, "metadata.name": event.name, "metadata.namespace": event.namespace}
        return any(own.get(field) != value for field, value in self._fixed)

    def _lets_through(self, event: FeedEvent, attributes: _Attributes) -> bool:
        if self._labels is not None and not self._labels.matches(attributes.labels):
            return False
        if self._fields is None:
            return True
        own = {"metadata.name": event.name, "metadata.namespace": event.namespace}
        return self._fields.matches({**attributes.fields, **own})


class Subscription:
    """One watch of one node. ``send`` takes what it is to be told."""

    def __init__(self, feed: Feed, request: WatchRequest, send: Callable[[Events], None]) -> None:
        """Raises ApiError 400."""
        self.feed = feed
        self.ref = request.ref
        self.since = request.since
        self.position = 0  #: number of the next event in the feed
        self._selection = Selection(request.namespace, request.labels, request.fields)
        self._send = send
        self._sent = 0  # messages
        self._taken = 0  # of them, by the node
        self._told = request.since

    def credit(self, number: int) -> None:
        """The node has taken the messages up to this one."""
        self._taken = max(self._taken, min(number, self._sent))
        self.pump()

    def pump(self) -> None:
        """Send what is there, as far as the node goes along."""
        while self._sent - self._taken < WINDOW:
            if self.position < self.feed.first:
                self.end(expired("the watch is too far behind"))
                return
            rows, scanned = self._collect()
            if not rows:
                return
            self._tell(tuple(rows), scanned)

    def _collect(self) -> tuple[list[tuple[str, int, str]], int]:
        rows: list[tuple[str, int, str]] = []
        size, scanned = 0, self._told
        while len(rows) < MESSAGE_EVENTS and size < MESSAGE_BYTES:
            event = self.feed.event(self.position)
            if event is None:
                break
            self.position += 1
            if event.revision <= self.since:
                continue
            scanned = event.revision
            type_ = self._selection.type_of(event)
            if type_:
                rows.append((type_, event.revision, event.text))
                size += len(event.text)
        return rows, scanned

    def progress(self) -> None:
        """Tell how far the watch is, though nothing happened that the node wants to know."""
        at_end = self.position >= self.feed.end and self.feed.revision > self._told
        if at_end and self._sent - self._taken < WINDOW:
            self._tell((), self.feed.revision)

    def end(self, error: ApiError) -> None:
        """Tell that the watch is over, and why."""
        self.feed.unsubscribe(self)
        self._sent += 1
        self._send(Events(self._ref(), (), self._told, error.status()))

    def _tell(self, rows: tuple[tuple[str, int, str], ...], revision: int) -> None:
        self._told = max(self._told, revision)
        self._sent += 1
        self._send(Events(self._ref(), rows, self._told))

    def _ref(self) -> WatchRef:
        return WatchRef(self.ref.link, self.ref.id, self._sent)


class Feed:
    """Events of one kind. `run` watches until it is cancelled or the history ends."""

    def __init__(
        self, client: Client, resource: Resource, since: int, clock: Clock, random: random.Random, log: Log
    ) -> None:
        self._client = client
        self._resource = resource
        self._clock = clock
        self._random = random
        self._log = log
        self.revision = since  #: the last that was seen
        self.floor = since  #: events after this revision are all here
        self.first = 0  #: number of the oldest event
        self.opened = anyio.Event()  #: the watch has begun, or could not: see ``failure``
        self.failure: ApiError | None = None
        self.idle_since = clock.monotonic()
        self._events: deque[FeedEvent] = deque()
        self._size = 0
        self._known: dict[tuple[str, str], _Attributes] = {}
        self._subscriptions: dict[Subscription, None] = {}
        self._extending = anyio.Lock()
        row = _ROWS.find(resource.group, resource.version, resource.plural)
        self._paths = row.field_paths if row is not None else {}

    @property
    def end(self) -> int:
        """Number of the next event to come."""
        return self.first + len(self._events)

    @property
    def is_idle(self) -> bool:
        return not self._subscriptions

    def event(self, number: int) -> FeedEvent | None:
        at = number - self.first
        return self._events[at] if 0 <= at < len(self._events) else None

    # -- subscribers ---------------------------------------------------------------------------------------------

    async def subscribe(self, request: WatchRequest, send: Callable[[Events], None]) -> Subscription:
        """Begin to tell of everything after ``request.since``. Raises ApiError: 410, and those of the API."""
        made = Subscription(self, request, send)
        await self.opened.wait()
        if self.failure is not None:
            raise self.failure
        if request.since < self.floor:
            await self._extend(request.since)
        made.position = self.first
        self._subscriptions[made] = None
        return made

    def unsubscribe(self, subscription: Subscription) -> None:
        """Idempotent."""
        self._subscriptions.pop(subscription, None)
        if not self._subscriptions:
            self.idle_since = self._clock.monotonic()

    async def _extend(self, since: int) -> None:
        """Fetch what happened after ``since`` and before what is here. Raises ApiError."""
        async with self._extending:
            floor = self.floor
            if since >= floor:
                return
            found: list[FeedEvent] = []
            known: dict[tuple[str, str], _Attributes] = {}
            size = 0
            try:
                with anyio.fail_after(CATCH_UP_S * 4):
                    async with aclosing(self._between(since, floor)) as between:
                        async for event in between:
                            found.append(self._made(event, known))
                            size += len(found[-1].text)
            except TimeoutError:
                raise ApiError(504, "Timeout", "the API did not tell in time what happened meanwhile") from None
            if self.floor != floor or self._size + size > BYTES_KEPT or len(found) + len(self._events) > EVENTS_KEPT:
                raise expired(f"too old resource version: {since} ({self.floor})")
            self._events.extendleft(reversed(found))
            self.first -= len(found)
            self._size += size
            self.floor = since
            for key, attributes in known.items():
                self._known.setdefault(key, attributes)

    async def _between(self, since: int, floor: int) -> AsyncGenerator[WatchEvent]:
        """What the API knows of after ``since``, up to ``floor``. A watch with a time limit ends when all of that was told. Raises ApiError."""
        watch = self._client.watch(self._resource, resource_version=str(since), timeout_s=CATCH_UP_S)
        async with watch as events:
            async for event in events:
                revision = version_number(event.object["metadata"].get("resourceVersion"))
                if event.type == "BOOKMARK":
                    if revision >= floor:
                        return
                elif revision > floor:
                    return
                else:
                    yield event

    # -- the API -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch until cancelled, or until the API has forgotten where we are: then all subscribers are told."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                watch = self._client.watch(self._resource, resource_version=str(self.revision))
                async with watch as events:
                    self.opened.set()
                    async for event in events:
                        wait_s = _FIRST_WAIT_S
                        self._take(event)
            except ApiError as exc:
                if exc.code in (400, 403, 404, 405, 410) or not self.opened.is_set():
                    self._fail(exc)
                    return
                self._log.info("the watch of %s broke: %s", self._resource.group_resource, exc)
            await self._clock.sleep(wait_s * (0.5 + self._random.random()))
            wait_s = min(wait_s * 2, _MOST_WAIT_S)

    def _fail(self, error: ApiError) -> None:
        self.failure = error
        self.opened.set()
        for one in tuple(self._subscriptions):
            one.end(error)

    def _take(self, event: WatchEvent) -> None:
        revision = version_number(event.object["metadata"].get("resourceVersion"))
        self.revision = max(self.revision, revision)
        if event.type == "BOOKMARK":
            for one in tuple(self._subscriptions):
                one.progress()
            return
        made = self._made(event, self._known)
        self._events.append(made)
        self._size += len(made.text)
        while len(self._events) > EVENTS_KEPT or (self._size > BYTES_KEPT and len(self._events) > 1):
            oldest = self._events.popleft()
            self.first += 1
            self._size -= len(oldest.text)
            self.floor = oldest.revision
        for one in tuple(self._subscriptions):
            one.pump()

    def _made(self, event: WatchEvent, known: dict[tuple[str, str], _Attributes]) -> FeedEvent:
        obj = event.object
        if "kind" not in obj and self._resource.kind:
            obj = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, **obj}
        metadata = obj["metadata"]
        key = (str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
        now = _Attributes(
            metadata.get("labels") or {}, {label: field_text(obj, path) for label, path in self._paths.items()}
        )
        before = known.get(key)
        if event.type == "DELETED":
            known.pop(key, None)
        else:
            known[key] = now
        revision = version_number(metadata.get("resourceVersion"))
        return FeedEvent(event.type, revision, *key, now, before, json.dumps(obj).decode())
