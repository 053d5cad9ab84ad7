"""`Replica`: objects that programs of this node have read from the API, on disk beside those that the cloud has sent by itself.

What is put is seen at once and written within `WRITTEN_S`, many objects in one transaction: flash wears, and a watch tells of the same object often. After a
crash the newest of it may be lost, objects and revisions of scopes together, so that a watch goes on from what is there.

    scopes       what was listed whole or is watched, and at which revision: JSON text of a kind, namespace and selectors
    documents    discovery, OpenAPI and the like, by request

An older state never takes the place of a newer one.

Units   Revisions are numbers; values are JSON bytes.
Errors  StoreError when the disk refuses.
State   What is not written yet; the scopes. On disk at most about `OBJECTS_MOST` objects: beyond, those of the scopes that were used
        longest ago go, but for what metamanager holds and what is followed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.metamanager.hot import Hot
from edgesite.edge.metamanager.store import EdgeStore, StoreError
from edgesite.kube import json
from edgesite.wire.resource import NO_NAMESPACE

if TYPE_CHECKING:
    import logging

    from edgesite.context import Clock
    from edgesite.edge.metamanager.database import Statement

    Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

__all__ = ["Collected", "Document", "KindKey", "Replica", "Stored"]

_ANY: Final = (1 << 63) - 1
PIECE_BYTES: Final = 64 * 1024
WRITTEN_S: Final = 1.0
WAITING_MOST: Final = 2048  #: objects that wait to be written; then the disk is waited for
OBJECTS_MOST: Final = 50_000
LOOK_S: Final = 60.0  #: how often they are counted
SCOPES_KEPT: Final = 512
DOCUMENTS_KEPT: Final = 256
DOCUMENT_BYTES: Final = 8 * 1024 * 1024
_PUT: Final = (
    "INSERT INTO meta_v2 (key, groupversionresource, namespace, name, resourceversion, value)"
    " VALUES (?, ?, ?, ?, ?, CAST(? || char(10) AS TEXT))"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value, resourceversion = excluded.resourceversion"
    " WHERE excluded.resourceversion >= meta_v2.resourceversion"
)
_PUT_BACK: Final = (
    "REPLACE INTO meta_v2 (key, groupversionresource, namespace, name, resourceversion, value)"
    " VALUES (?, ?, ?, ?, ?, CAST(? || char(10) AS TEXT))"
)
_DROP: Final = "DELETE FROM meta_v2 WHERE key = ? AND resourceversion <= ?"
_GET: Final = "SELECT namespace, name, resourceversion, value FROM meta_v2 WHERE key = ?"
_LIST: Final = "SELECT namespace, name, resourceversion, value FROM meta_v2 WHERE key >= ? AND key < ? ORDER BY key"
_LIST_BYTES: Final = "SELECT key, namespace, name, resourceversion, CAST(value AS BLOB) FROM meta_v2 WHERE key >= ? AND key < ? ORDER BY key"
_COUNT: Final = "SELECT count(*) FROM meta_v2"
_KEYS: Final = "SELECT key FROM meta_v2 WHERE key >= ? AND key < ?"
_REMOVE: Final = "DELETE FROM meta_v2 WHERE key = ?"
_SCOPES: Final = "SELECT key, revision FROM edgesite_scopes ORDER BY used"
_PUT_SCOPE: Final = "REPLACE INTO edgesite_scopes (key, revision, used) VALUES (?, ?, ?)"
_DROP_SCOPE: Final = "DELETE FROM edgesite_scopes WHERE key = ?"
_PUT_DOCUMENT: Final = "REPLACE INTO edgesite_documents (key, used, headers, body) VALUES (?, ?, ?, ?)"
_GET_DOCUMENT: Final = "SELECT headers, body FROM edgesite_documents WHERE key = ?"
_TRIM_DOCUMENTS: Final = (
    "DELETE FROM edgesite_documents WHERE key NOT IN"
    f" (SELECT key FROM edgesite_documents ORDER BY used DESC LIMIT {DOCUMENTS_KEPT})"
)


@dataclass(frozen=True, slots=True)
class KindKey:
    """A kind by its place in the API."""

    group: str
    version: str
    resource: str

    @property
    def column(self) -> str:
        """As KubeEdge's table has it."""
        return f"{self.group}/{self.version}, Resource={self.resource}"

    def key(self, namespace: str = "", name: str = "") -> str:
        """The key of an object; without a name, what the keys of its namespace begin with; without a namespace, those of all."""
        start = f"/{self.group or 'core'}/{self.version}/{self.resource}/"
        if not namespace and not name:
            return start
        return f"{start}{namespace or NO_NAMESPACE}/{name}"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object. ``value`` None: it is gone (inside of `Replica` only)."""

    namespace: str
    name: str
    revision: int
    value: bytes


class Collected:
    """Objects as JSON with commas between them, in pieces worth a write each. ``first``: one of them, b"" if there is none."""

    __slots__ = ("_open", "_size", "first", "pieces", "size")

    def __init__(self) -> None:
        self.first = b""
        self.pieces: deque[bytes] = deque()
        self.size = 0
        self._open: list[bytes] = []
        self._size = 0

    def add(self, value: bytes) -> None:
        value = value.rstrip(b"\n")
        if self.first:
            self._open.append(b",")
        else:
            self.first = value
        self._open.append(value)
        self._size += len(value) + 1
        if self._size >= PIECE_BYTES:
            self._close()

    def _close(self) -> None:
        self.pieces.append(b"".join(self._open))
        self.size += self._size
        self._open.clear()
        self._size = 0

    def take(self) -> Iterator[bytes]:
        """Let go of the pieces one after the other."""
        if self._open:
            self._close()
        while self.pieces:
            yield self.pieces.popleft()


@dataclass(frozen=True, slots=True)
class Document:
    headers: str  #: JSON
    body: bytes


@dataclass(frozen=True, slots=True)
class _Change:
    kind: KindKey
    stored: Stored
    gone: bool
    back: bool = False  #: the API has gone back: it counts whatever is held


class Replica:
    """`run` must run for what is put to be written. Provided by module metamanager."""

    def __init__(self, store: EdgeStore, clock: Clock, log: Log) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._waiting: dict[str, _Change] = {}
        self._writing: dict[str, _Change] = {}
        self._scopes: dict[str, int] = {}
        self._moved: dict[str, None] = {}  # scopes whose revision is not written
        self._dropped: dict[str, None] = {}
        self._changed = anyio.Event()
        self._flushing = anyio.Lock()
        self._used = 0
        self._hot = Hot()
        store.on_write = self._hot.clear
        self.is_followed: Callable[[str], bool] = lambda scope: False  #: set by who follows scopes

    async def load(self) -> None:
        """Raises StoreError."""
        self._scopes = dict(await self._store.query(_SCOPES))
        self._used = len(self._scopes)

    async def run(self) -> None:
        """Write what was put, until cancelled."""
        looked = self._clock.monotonic()
        while True:
            await self._changed.wait()
            await self._clock.sleep(WRITTEN_S)
            try:
                await self.flush()
                if self._clock.monotonic() - looked >= LOOK_S:
                    looked = self._clock.monotonic()
                    await self.make_room()
            except StoreError as exc:
                self._log.error("what was read from the API cannot be written down: %s", exc)

    # -- writing -------------------------------------------------------------------------------------------------

    def put(self, kind: KindKey, stored: Stored, *, back: bool = False) -> None:
        """Keep an object, unless a newer state is held. ``back``: the API was restored from a backup, and newer states are no more."""
        self._change(_Change(kind, stored, False, back))

    def drop(self, kind: KindKey, namespace: str, name: str, revision: int, *, back: bool = False) -> None:
        """Forget an object that was deleted at this revision, unless a newer state is held."""
        self._change(_Change(kind, Stored(namespace, name, revision, b""), True, back))

    def _change(self, change: _Change) -> None:
        key = change.kind.key(change.stored.namespace, change.stored.name)
        self._hot.drop((change.kind, change.stored.namespace, change.stored.name))
        for held in (self._waiting.get(key), self._writing.get(key)):
            if held is not None and held.stored.revision > change.stored.revision and not change.back:
                return
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.back:
            change = replace(change, back=True)
        self._waiting[key] = change
        self._changed.set()

    async def room(self) -> None:
        """Wait while too much waits to be written. Raises StoreError."""
        if len(self._waiting) >= WAITING_MOST:
            await self.flush()

    async def flush(self) -> None:
        """Write all that waits. Raises StoreError; then it waits on."""
        async with self._flushing:
            self._changed = anyio.Event()
            self._writing, self._waiting = self._waiting, {}
            moved, self._moved = self._moved, {}
            dropped, self._dropped = self._dropped, {}
            statements = [_statement(key, one) for key, one in self._writing.items()]
            for key in moved:
                self._used += 1
                statements.append((_PUT_SCOPE, (key, self._scopes[key], self._used)))
            statements += [(_DROP_SCOPE, (key,)) for key in dropped if key not in self._scopes]
            try:
                if statements:
                    with anyio.CancelScope(shield=True):
                        await self._store.write(statements)
            except BaseException:
                for key, change in self._writing.items():
                    newer = self._waiting.get(key, change)
                    self._waiting[key] = replace(newer, back=newer.back or change.back)
                self._moved = {**moved, **self._moved}
                self._dropped = {**dropped, **self._dropped}
                self._changed.set()
                raise
            finally:
                self._writing = {}

    async def make_room(self) -> None:
        """Forget scopes, longest unused first, while there are too many objects. Raises StoreError."""
        left = next(iter(await self._store.query(_COUNT)))[0]
        for scope in list(self._scopes):
            if left <= OBJECTS_MOST:
                return
            if not self.is_followed(scope):
                left -= await self._forget(scope)
        if left > OBJECTS_MOST:
            self._log.warning("%d objects that were read from the API are kept, more than %d", left, OBJECTS_MOST)

    async def _forget(self, scope: str) -> int:
        """Returns how many objects went."""
        group, version, resource, namespace, *_ = json.loads(scope)
        start = KindKey(group, version, resource).key(namespace)
        held = self._store.replicated()
        rows = await self._store.query(_KEYS, (start, start[:-1] + "0"))
        keys = [key for (key,) in rows if key not in held]
        del self._scopes[scope]
        self._moved.pop(scope, None)
        await self._store.write([*((_REMOVE, (key,)) for key in keys), (_DROP_SCOPE, (scope,))])
        return len(keys)

    # -- reading -------------------------------------------------------------------------------------------------

    def at_once(self, kind: KindKey, namespace: str, name: str) -> Stored | None:
        """An object that was read a moment ago; None says nothing."""
        return self._hot.find((kind, namespace, name))

    async def get(self, kind: KindKey, namespace: str, name: str) -> Stored | None:
        """Raises StoreError."""
        hot = self._hot.find((kind, namespace, name))
        if hot is not None:
            return hot
        key = kind.key(namespace, name)
        change = self._waiting.get(key) or self._writing.get(key)
        if change is None:
            changes = self._hot.changes
            rows = await self._store.query(_GET, (key,))
            found = next((_stored(row) for row in rows), None)
            change = self._waiting.get(key) or self._writing.get(key)
            if change is None:
                if found is not None:
                    self._hot.put((kind, namespace, name), found, changes)
                return found
        return None if change.gone else change.stored

    async def list(self, kind: KindKey, namespace: str = "") -> Sequence[Stored]:
        """All objects of a kind, of one namespace if given, in order of their keys. Raises StoreError."""
        start = kind.key(namespace)
        rows = await self._store.query(_LIST, (start, start[:-1] + "0"))  # "0" follows "/"
        changes = {
            key: one
            for changed in (self._writing, self._waiting)
            for key, one in changed.items()
            if key.startswith(start)
        }
        if not changes:
            return [_stored(row) for row in rows]
        found = {kind.key(row[0], row[1]): _stored(row) for row in rows}
        for key, change in changes.items():
            if change.gone:
                found.pop(key, None)
            else:
                found[key] = change.stored
        return [found[key] for key in sorted(found)]

    async def collect(self, kind: KindKey, namespace: str, matches: Callable[[Stored], bool] | None) -> Collected:
        """The same as JSON to be sent, which holds no object by itself; ``matches`` is called in the disk's thread. Raises StoreError."""
        start = kind.key(namespace)
        changes = {
            key: one
            for changed in (self._writing, self._waiting)
            for key, one in changed.items()
            if key.startswith(start)
        }
        values = (start, start[:-1] + "0")
        return await self._store.fold(_LIST_BYTES, values, lambda rows: _collected(rows, changes, matches))

    # -- scopes --------------------------------------------------------------------------------------------------

    def scope(self, key: str) -> int | None:
        """The revision at which a scope was read whole, or up to which it was watched; None: never."""
        return self._scopes.get(key)

    def scopes(self) -> Iterable[str]:
        return self._scopes

    def set_scope(self, key: str, revision: int) -> None:
        """A scope is as of this revision."""
        if self._scopes.get(key) == revision:
            return
        self._scopes.pop(key, None)
        self._scopes[key] = revision
        self._moved[key] = None
        while len(self._scopes) > SCOPES_KEPT:
            oldest = next(iter(self._scopes))
            del self._scopes[oldest]
            self._moved.pop(oldest, None)
            self._dropped[oldest] = None
        self._changed.set()

    async def give_back(self) -> None:
        """Let go of what the database has in memory beside what it needs. Raises StoreError."""
        await self._store.query("PRAGMA shrink_memory")

    # -- documents -----------------------------------------------------------------------------------------------

    async def document(self, key: str) -> Document | None:
        """Raises StoreError."""
        rows = await self._store.query(_GET_DOCUMENT, (key,))
        return next((Document(headers, bytes(body)) for headers, body in rows), None)

    async def put_document(self, key: str, document: Document) -> None:
        """Keep a document, unless it is too large or the same as before. Raises StoreError."""
        if len(document.body) > DOCUMENT_BYTES or await self.document(key) == document:
            return
        self._used += 1
        put: Statement = (_PUT_DOCUMENT, (key, self._used, document.headers, document.body))
        await self._store.write([put, (_TRIM_DOCUMENTS, ())])


def _statement(key: str, change: _Change) -> Statement:
    stored = change.stored
    if change.gone:
        return _DROP, (key, _ANY if change.back else stored.revision)
    return (_PUT_BACK if change.back else _PUT), (
        key,
        change.kind.column,
        stored.namespace,
        stored.name,
        stored.revision,
        stored.value.rstrip(b"\n"),
    )


def _collected(
    rows: Iterable[tuple[Any, ...]], changes: Mapping[str, _Change], matches: Callable[[Stored], bool] | None
) -> Collected:
    """Objects on disk with what is not written yet, in order of their keys."""
    found = Collected()

    def add(stored: Stored) -> None:
        if matches is None or matches(stored):
            found.add(stored.value)

    unwritten = deque(sorted(changes))
    for key, namespace, name, revision, value in rows:
        while unwritten and unwritten[0] < key:
            change = changes[unwritten.popleft()]
            if not change.gone:
                add(change.stored)
        if unwritten and unwritten[0] == key:
            change = changes[unwritten.popleft()]
            if change.back or change.stored.revision >= revision:
                if not change.gone:
                    add(change.stored)
                continue
        add(Stored(namespace, name, revision, value))
    for key in unwritten:
        if not changes[key].gone:
            add(changes[key].stored)
    return found


def _stored(row: tuple[str, str, int, str]) -> Stored:
    namespace, name, revision, value = row
    return Stored(namespace, name, revision, value.removesuffix("\n").encode())
