"""What programs here watch: each scope is followed once at the cloud, kept on disk, and told to all its watchers.

    cloud ──> Scope.run ──> Replica (disk)
                       └──> history ──> Watcher, Watcher, …

A scope goes on from its revision after a lost link or a restart, so that its watchers see each event once. Where the cloud no longer knows what happened
since (410), all is listed and the differences are told as events.

A scope without watchers is followed for `LINGER_S` more: clients that list and watch again find it.

Units   Revisions are numbers; times are seconds.
Errors  ApiError to who begins a watch.
State   The scopes that are followed: which objects are in them, and their last events.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from edgesite.edge.metamanager.replica import Replica, Stored
from edgesite.edge.metamanager.store import StoreError
from edgesite.edge.metaserver.cloudlink import CloudLink, LinkLost, Phase
from edgesite.edge.metaserver.scopekey import ScopeKey, read_meta
from edgesite.kube import json
from edgesite.kube.errors import ApiError, expired
from edgesite.wire.metaserver import LEFT, SEEN_OR_NEW, Events

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.context import Context
    from edgesite.edge.metamanager.replica import KindKey
    from edgesite.edge.metaserver.kubeedge import KubeEdgeCloud

__all__ = ["Change", "Lister", "Scope", "Scopes", "Subscriber"]

LINGER_S: Final = 60.0
HISTORY_EVENTS: Final = 1024
HISTORY_BYTES: Final = 1024 * 1024
SCOPES: Final = 256
QUIET_S: Final = 300.0  #: after which a watch that tells nothing is begun anew
_FIRST_WAIT_S: Final = 0.2
_MOST_WAIT_S: Final = 15.0


@dataclass(slots=True)
class Change:
    """One event as watchers see it. ``memo`` is for its encoded forms, which watchers share."""

    type: str
    revision: int
    value: bytes
    memo: dict[Any, Any] = field(default_factory=dict)


class Subscriber(Protocol):
    """Who is told of a scope."""

    token: str
    since: int  #: what it has seen when it came

    def changed(self, change: Change) -> None: ...

    def failed(self, error: ApiError) -> None:
        """The scope cannot be followed."""
        ...


class Lister(Protocol):
    """Lists at the cloud."""

    async def list_scope(self, key: ScopeKey, token: str) -> tuple[list[Stored], int]:
        """All of a scope, and its revision. Raises ApiError."""
        ...


class Scope:
    """One scope that is followed. ``revision`` None: its watchers have not been told anything yet."""

    def __init__(self, key: ScopeKey, replica: Replica, revision: int | None) -> None:
        self.key = key
        self.revision = revision
        self.floor = revision or 0  #: later events are all in the history
        self.members: dict[tuple[str, str], int] = {}
        self.subscribers: dict[Subscriber, None] = {}
        self.ready = anyio.Event()  #: it can be told what it is, though perhaps not all of it
        self.whole = anyio.Event()  #: all of it is on disk, as of its revision
        self.base: int | None = None  #: as of when all of it came to disk
        self.failure: ApiError | None = None
        self.scope = anyio.CancelScope()
        self.idle_since = 0.0
        self._replica = replica
        self._history: deque[Change] = deque()
        self._size = 0

    @property
    def token(self) -> str:
        """With whose rights it is followed: those of one of its watchers."""
        return next((one.token for one in reversed(self.subscribers)), "")

    def since(self, revision: int) -> list[Change]:
        """The events after a revision that is not below the floor."""
        return [one for one in self._history if one.revision > revision]

    # -- what comes from the cloud -------------------------------------------------------------------------------

    def apply(self, events: Events) -> None:
        """Take what a watch told. Raises json.InvalidJson."""
        for type_, revision, text in events.events:
            if self.revision is None or revision > self.revision:
                self._take(type_, revision, text.encode())
                self.revision = revision
        self.reach(events.revision)

    def reach(self, revision: int) -> None:
        """Nothing happened up to this revision but what was told."""
        self.revision = max(self.revision or 0, revision)
        if self.base is not None and self.revision >= self.base:
            self._replica.set_scope(str(self.key), self.revision)
            self.whole.set()

    def _take(self, type_: str, revision: int, value: bytes) -> None:
        meta = read_meta(value)
        member = (meta.namespace, meta.name)
        held = member in self.members
        if type_ == "DELETED":
            self._replica.drop(self.key.kind, *member, revision)
        else:
            self._replica.put(self.key.kind, Stored(*member, revision, value))
        if type_ in ("DELETED", LEFT):
            self.members.pop(member, None)
            if not held and not self.key.is_whole:
                return
            type_ = "DELETED"
        else:
            self.members[member] = revision
            if type_ == SEEN_OR_NEW:
                type_ = "MODIFIED" if held else "ADDED"
        self._tell(Change(type_, revision, value))

    def arrived(self, obj: dict[str, Any], *, is_delete: bool) -> None:
        """Take an object that came by itself, in any order. Raises json.InvalidJson."""
        value = json.dumps(obj)
        meta = read_meta(value)
        if self.key.namespace and meta.namespace != self.key.namespace:
            return
        member = (meta.namespace, meta.name)
        held = self.members.get(member)
        if not is_delete and held is not None and held >= meta.revision:
            return
        matches = self.key.matcher()
        inside = not is_delete and (matches is None or matches(Stored(*member, meta.revision, value)))
        # What comes late has an older revision than its watchers have seen of others; they must be told all the same.
        revision = max(meta.revision, (self.revision or 0) + 1)
        if inside:
            self.members[member] = meta.revision
            self._tell(Change("ADDED" if held is None else "MODIFIED", revision, value))
        elif held is not None:
            del self.members[member]
            self._tell(Change("DELETED", revision, value))
        self.reach(meta.revision)

    def _begin_again(self, revision: int) -> None:
        """The API was restored from a backup: what watchers have seen since is no more."""
        self._history.clear()
        self._size = 0
        self.revision = self.floor = revision
        for one in tuple(self.subscribers):
            one.failed(expired("the API has gone back to an older state"))

    def _lose_those_ahead(self) -> None:
        """Who has seen more than what is here cannot be told the difference: it has to list again."""
        for one in tuple(self.subscribers):
            if one.since > (self.revision or 0) or (one.since and self.base is None):
                one.failed(expired(f"too old resource version: {one.since}"))

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        self._size += len(change.value)
        while len(self._history) > HISTORY_EVENTS or (self._size > HISTORY_BYTES and len(self._history) > 1):
            oldest = self._history.popleft()
            self._size -= len(oldest.value)
            self.floor = oldest.revision
        for one in tuple(self.subscribers):
            one.changed(change)

    async def load(self) -> list[Stored]:
        """Take what is on disk for the state; returns it. Raises StoreError."""
        rows = await self._replica.list(self.key.kind, self.key.namespace)
        matches = self.key.matcher()
        found = [one for one in rows if matches is None or matches(one)]
        self.members = {(one.namespace, one.name): one.revision for one in found}
        return found

    async def fill(self, objects: list[Stored], revision: int) -> None:
        """Have on disk what watchers know already: all of it as of ``revision``, up to which they are told of later. Raises StoreError."""
        before = await self.load()
        for one in objects:
            await self._replica.room()
            self._replica.put(self.key.kind, one)
        self.members = {(one.namespace, one.name): one.revision for one in objects}
        if self.key.is_whole:
            for old in before:
                if (old.namespace, old.name) not in self.members and old.revision <= revision:
                    self._replica.drop(self.key.kind, old.namespace, old.name, revision)
        self.base = revision
        self.reach(self.revision or 0)

    async def become(self, objects: list[Stored], revision: int) -> None:
        """Take a whole list for the state, and tell what is different as events, oldest first. Raises StoreError."""
        before = dict(self.members)
        back = self.revision is not None and revision < self.revision
        changes: list[Change] = []
        now = {(one.namespace, one.name): one for one in objects}
        for member, one in now.items():
            await self._replica.room()
            self._replica.put(self.key.kind, one, back=back)
            if member not in before:
                changes.append(Change("ADDED", one.revision, one.value))
            elif before[member] < one.revision:
                changes.append(Change("MODIFIED", one.revision, one.value))
        for member in before:
            if member not in now:
                gone = await self._replica.get(self.key.kind, *member)
                if gone is not None:
                    changes.append(Change("DELETED", revision, _at(gone.value, revision)))
                if self.key.is_whole:
                    self._replica.drop(self.key.kind, *member, revision, back=back)
        self.members = {member: one.revision for member, one in now.items()}
        if back:
            self._begin_again(revision)
        elif self.revision is None:
            self.floor = revision
        else:
            self._lose_those_ahead()
            for change in sorted(changes, key=lambda one: one.revision):
                self._tell(change)
        self.base = revision
        self.reach(revision)


class Scopes:
    """All scopes that are followed; `run` is the task that does it."""

    def __init__(
        self,
        ctx: Context,
        replica: Replica,
        link: CloudLink,
        lister: Lister,
        kubeedge: KubeEdgeCloud,
        tasks: TaskGroup,
    ) -> None:
        self._kubeedge = kubeedge
        self._ctx = ctx
        self._replica = replica
        self._link = link
        self._lister = lister
        self._tasks = tasks
        self._scopes: dict[ScopeKey, Scope] = {}
        replica.is_followed = lambda key: any(str(one) == key for one in self._scopes)

    def __len__(self) -> int:
        return len(self._scopes)

    def find(self, key: ScopeKey) -> Scope | None:
        return self._scopes.get(key)

    def open(self, key: ScopeKey, since: int | None) -> Scope:
        """The scope, followed from now on; ``since``: what a new one's first watcher has seen. Raises ApiError."""
        found = self._scopes.get(key)
        if found is not None:
            return found
        if len(self._scopes) >= SCOPES:
            raise ApiError(429, "TooManyRequests", f"{SCOPES} different watches are open on this node", None, 1)
        stored = self._replica.scope(str(key))
        # What is on disk may be older than what the watcher has listed elsewhere: nothing between must be missed on disk.
        start = since if stored is None else stored if since is None else min(stored, since)
        made = self._scopes[key] = Scope(key, self._replica, start if since is not None else None)
        made.idle_since = self._ctx.clock.monotonic()
        self._tasks.start_soon(self._run, made)
        return made

    def subscribe(self, scope: Scope, subscriber: Subscriber) -> None:
        scope.subscribers[subscriber] = None

    def unsubscribe(self, scope: Scope, subscriber: Subscriber) -> None:
        """Idempotent."""
        scope.subscribers.pop(subscriber, None)
        if not scope.subscribers:
            scope.idle_since = self._ctx.clock.monotonic()

    def sweep(self) -> None:
        """Let go of what nobody has watched for a while."""
        now = self._ctx.clock.monotonic()
        for scope in tuple(self._scopes.values()):
            if not scope.subscribers and now - scope.idle_since >= LINGER_S:
                scope.scope.cancel()

    # -- following -----------------------------------------------------------------------------------------------

    async def _run(self, scope: Scope) -> None:
        try:
            with scope.scope:
                await self._prepare(scope)
                await self._follow(scope)
        finally:
            if self._scopes.get(scope.key) is scope:
                del self._scopes[scope.key]
            scope.ready.set()

    async def _prepare(self, scope: Scope) -> None:
        """Have the state on hand: without a link, and for a watcher that knows it already, from disk."""
        try:
            if scope.revision is None and self._link.connected:
                try:
                    await scope.become(*await self._lister.list_scope(scope.key, scope.token))
                except ApiError as exc:
                    if exc.code not in (503, 504):
                        self._fail(scope, exc)
                        return
            if scope.revision is None:
                await scope.load()
                scope.base = self._replica.scope(str(scope.key))
                scope.floor = scope.base or 0
                scope.reach(scope.floor)
            elif scope.base is None:
                await scope.load()
                scope.base = self._replica.scope(str(scope.key))
                scope.reach(scope.revision)
        except StoreError as exc:
            self._fail(scope, ApiError(500, "InternalError", f"what is stored here cannot be read: {exc}"))
        scope.ready.set()

    def _fail(self, scope: Scope, error: ApiError) -> None:
        scope.failure = error
        scope.ready.set()
        for one in tuple(scope.subscribers):
            one.failed(error)
        scope.scope.cancel()

    async def _follow(self, scope: Scope) -> None:
        wait_s = _FIRST_WAIT_S
        lists = scope.revision == 0 and scope.base is None
        while True:
            phase = await self._link.wait_connected()
            token = scope.token
            began = self._ctx.clock.monotonic()
            try:
                if lists:
                    await scope.become(*await self._lister.list_scope(scope.key, token))
                    lists = False
                elif scope.base is None:
                    await scope.fill(*await self._lister.list_scope(scope.key, token))
                if phase is Phase.OWN:
                    await self._follow_own(scope, token)
                else:
                    await self._follow_kubeedge(scope, token)
            except LinkLost:
                wait_s = _FIRST_WAIT_S
                continue
            except ApiError as exc:
                if exc.code in (401, 403) and self._lose_bearers(scope, token, exc):
                    continue  # with the token of another watcher
                if exc.code in (400, 401, 403, 404, 405):
                    self._fail(scope, exc)
                    return
                lists = lists or exc.code == 410 or _is_ahead(exc)
                self._ctx.log.info("a watch of %s broke: %s", scope.key.kind.resource, exc)
            except (StoreError, json.InvalidJson) as exc:
                self._ctx.log.error("a watch of %s broke: %s", scope.key.kind.resource, exc)
            if self._ctx.clock.monotonic() - began > _MOST_WAIT_S:
                wait_s = _FIRST_WAIT_S
            await self._ctx.clock.sleep(wait_s * (0.5 + self._ctx.random.random()))
            wait_s = min(wait_s * 2, _MOST_WAIT_S)

    def _lose_bearers(self, scope: Scope, token: str, error: ApiError) -> bool:
        """End the watches of those whose token is no longer taken; returns whether others are left."""
        for one in tuple(scope.subscribers):
            if one.token == token:
                one.failed(error)
        return bool(scope.subscribers)

    async def _follow_own(self, scope: Scope, token: str) -> None:
        """Raises ApiError, LinkLost, StoreError, json.InvalidJson."""
        async with self._link.watch(scope.key, scope.revision or 0, token) as stream:
            while True:
                with anyio.move_on_after(QUIET_S) as quiet:
                    events = await stream.next()
                if quiet.cancelled_caught:
                    raise LinkLost  # the other end may have forgotten us
                scope.apply(events)
                await self._replica.room()
                await stream.credit()

    async def _follow_kubeedge(self, scope: Scope, token: str) -> None:
        """KubeEdge's cloud sends objects of its own accord once it was asked to watch: see `arrived`. Raises ApiError, LinkLost."""
        await self._kubeedge.watch(scope.key, token)
        await scope.become(*await self._lister.list_scope(scope.key, token))
        await self._kubeedge.until_listed_again()

    def arrived(self, kind: KindKey, obj: dict[str, Any], *, is_delete: bool) -> None:
        """Metamanager has stored an object that the cloud has sent, or its end."""
        if self._link.phase is Phase.OWN:
            return  # watches tell of it, in order
        for scope in tuple(self._scopes.values()):
            if scope.key.kind == kind and scope.ready.is_set():
                scope.arrived(obj, is_delete=is_delete)


def _is_ahead(error: ApiError) -> bool:
    """Whether the API has not come as far as we are: it was restored from a backup."""
    causes = error.details.get("causes")
    return isinstance(causes, list) and any(
        isinstance(one, dict) and one.get("reason") == "ResourceVersionTooLarge" for one in causes
    )


def _at(value: bytes, revision: int) -> bytes:
    """An object as of the revision at which it was missing."""
    obj = json.loads(value)
    obj["metadata"]["resourceVersion"] = str(revision)
    return json.dumps(obj)
