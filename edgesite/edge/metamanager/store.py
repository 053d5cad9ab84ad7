"""Objects on the edge's disk: what arrives is judged against what is held, and several arrivals share one transaction.

State   The database, and in memory one small entry for each object: key, uid, version. Entries are changed before the
        commit, so that the next arrival is judged by them, and put back if the commit fails.
Errors  StoreError when the disk refuses; nothing of the batch has happened then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import apsw

from edgesite.edge.metamanager import schema
from edgesite.edge.metamanager.batch import Batch, BatchClosed
from edgesite.edge.metamanager.database import EdgeDatabase, Statement
from edgesite.kube import json
from edgesite.wire import resource
from edgesite.wire.delivery import ObjectRef, version_number
from edgesite.wire.newer import Held, Verdict, judge_delete, judge_update

if TYPE_CHECKING:
    from edgesite.context import Worker

__all__ = ["CLUSTER_TYPES", "Arrival", "EdgeStore", "Outcome", "StoreError"]

T = TypeVar("T")
_PUT_META: Final = "REPLACE INTO meta (key, type, value) VALUES (?, ?, ?)"
_PUT_META_V2: Final = "REPLACE INTO meta_v2 (key, groupversionresource, namespace, name, resourceversion, value) VALUES (?, ?, ?, ?, ?, ?)"
_DROP_META: Final = "DELETE FROM meta WHERE key = ?"
_DROP_META_V2: Final = "DELETE FROM meta_v2 WHERE key = ?"
_DROP_TOKENS: Final = "DELETE FROM meta WHERE type = 'serviceaccounttoken' AND instr(key, ?) > 0"
_PUT_ENDED: Final = "INSERT OR IGNORE INTO edgesite_ended (uid) VALUES (?)"
_TRIM_ENDED: Final = (
    f"DELETE FROM edgesite_ended WHERE seq <= (SELECT max(seq) FROM edgesite_ended) - {schema.ENDED_KEPT}"
)
_UNEND: Final = "DELETE FROM edgesite_ended WHERE uid = ?"
_PUT_FORGOTTEN: Final = "INSERT OR IGNORE INTO edgesite_forgotten (key) VALUES (?)"
_DROP_FORGOTTEN: Final = "DELETE FROM edgesite_forgotten WHERE key = ?"
_GET: Final = "SELECT value FROM meta WHERE key = ?"
_LIST: Final = "SELECT key, value FROM meta WHERE type = ? ORDER BY key"


class StoreError(Exception):
    """The disk refused a write."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An object, or its end, as a message brought it. ``obj`` of a delete may be its metadata alone."""

    key: str  #: the resource string
    obj: dict[str, Any]
    is_delete: bool = False
    text: str = ""  #: the object as it will be stored; made from it if not given


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an arrival. ``replaced_uid`` is the object that ended because another took its name.

    ``ended``: ignored, for its end is on record. ``outranked``: ignored, for another object of that name is held in a newer version, and nobody has said that this one ended.
    """

    verdict: Verdict
    replaced_uid: str = ""
    outranked: bool = False
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    type: str
    held: Held
    v2_key: str = ""


class _Write:
    __slots__ = ("done", "error", "statements")

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.done = anyio.Event()
        self.error: Exception | None = None

    def finish(self, error: Exception | None) -> None:
        """Tell whoever waits; the first word counts."""
        if not self.done.is_set():
            self.error = error
            self.done.set()


def _nobody() -> None:
    """Nobody wants to know."""


class EdgeStore:
    """Reads and writes through one worker. `run` must run for writes to happen."""

    def __init__(self, database: EdgeDatabase, worker: Worker) -> None:
        self._database = database
        self._worker = worker
        self._entries: dict[str, _Entry] = {}
        self._ended: dict[str, None] = {}
        self._forgotten: set[str] = set()  # keys whose version counts for nothing
        self._writes: Batch[_Write] = Batch(1024)
        self._judging = anyio.Lock()
        self.on_write: Callable[[], None] = (
            _nobody  #: called before and after each transaction; set by who keeps rows in memory
        )

    async def load(self) -> None:
        """Read what is there. Raises apsw.Error."""
        rows = await self._worker.submit(self._database.query, "SELECT key, type, value FROM meta")
        for key, type_, value in rows:
            try:
                self._entries[key] = _entry(key, type_, json.loads(value or "null"))
            except json.InvalidJson:
                self._entries[key] = _Entry(type_, Held("", 0))
        ended = await self._worker.submit(self._database.query, "SELECT uid FROM edgesite_ended ORDER BY seq")
        self._ended = {uid: None for (uid,) in ended}
        forgotten = await self._worker.submit(self._database.query, "SELECT key FROM edgesite_forgotten")
        self._forgotten = {key for (key,) in forgotten if key in self._entries}
        for key in self._forgotten:
            self._entries[key] = _without_version(self._entries[key])

    async def run(self) -> None:
        """Commit what was given to `write`, everything that waits in one transaction, until cancelled.

        It must outlive whoever writes: what comes later is refused.
        """
        writes: list[_Write] = []
        try:
            while True:
                writes = await self._writes.take()
                statements = [one for write in writes for one in write.statements]
                error: Exception | None = None
                try:
                    await self._worker.submit(self._database.execute, statements)
                except (apsw.Error, OSError) as exc:
                    error = exc
                self.on_write()
                for write in writes:
                    write.finish(error)
                writes, statements = [], []  # the next may be long in coming, and these megabytes
                del write
        finally:
            for write in (*writes, *self._writes.close()):
                write.finish(BatchClosed("the store is closing"))

    async def write(self, statements: Sequence[Statement]) -> None:
        """Run statements in one transaction; on return they are durable. Raises StoreError."""
        write = _Write(statements)
        self.on_write()
        try:
            await self._writes.add(write)
        except BatchClosed as exc:
            raise StoreError("the store is closed") from exc
        await write.done.wait()
        if write.error is not None:
            raise StoreError(str(write.error)) from write.error

    def has_ended(self, uid: str) -> bool:
        """Whether a delete of this uid is on record."""
        return uid in self._ended

    # -- objects -------------------------------------------------------------------------------------------------

    async def apply(self, arrivals: Sequence[Arrival]) -> list[Outcome]:
        """Judge and store; on return the outcomes are durable. Raises StoreError: then nothing of them has happened."""
        async with self._judging:
            before: list[tuple[str, _Entry | None]] = []
            ended_before = dict(self._ended)
            statements: list[Statement] = []
            outcomes = [self._judge(one, statements, before) for one in arrivals]
            if statements:
                try:
                    # Whoever waits may give up, say for a deadline of its own; then memory and disk must agree all the same.
                    with anyio.CancelScope(shield=True):
                        await self.write(statements)
                except StoreError:
                    self._undo(before, ended_before)
                    raise
                self._forgotten.difference_update(key for key, _ in before)
            return outcomes

    def _judge(self, arrival: Arrival, statements: list[Statement], before: list[tuple[str, _Entry | None]]) -> Outcome:
        entry = self._entries.get(arrival.key)
        held = entry.held if entry is not None else None
        uid, version = _identity(arrival.obj)
        if arrival.is_delete:
            outcome = Outcome(judge_delete(held, uid))
            if uid:
                self._end(uid, statements)
            if outcome.verdict is Verdict.REMOVE and entry is not None:
                before.append((arrival.key, entry))
                self._remove(arrival.key, entry, statements)
            return outcome
        verdict = judge_update(held, uid, version, self._ended.__contains__)
        if verdict is Verdict.IGNORE:
            other = held is not None and bool(uid and held.uid) and uid != held.uid
            ended = uid in self._ended
            return Outcome(verdict, outranked=other and not ended, ended=ended)
        replaced = ""
        if verdict is Verdict.REPLACE and held is not None:
            replaced = held.uid
            self._end(replaced, statements)
        before.append((arrival.key, entry))
        self._put(arrival, statements)
        return Outcome(verdict, replaced)

    def _put(self, arrival: Arrival, statements: list[Statement]) -> None:
        key, obj = arrival.key, arrival.obj
        type_ = resource.parse(key).type
        text = arrival.text or schema.go_json(obj)
        statements.append((_PUT_META, (key, type_, text)))
        place = schema.meta_v2_key(obj)
        if place is not None:
            row = (place.key, place.resource, place.namespace, place.name, place.version, text + "\n")
            statements.append((_PUT_META_V2, row))
        self._entries[key] = _entry(key, type_, obj)
        self._remember(key, statements)

    def _remember(self, key: str, statements: list[Statement]) -> None:
        """What is held under the key counts again."""
        if key in self._forgotten:
            statements.append((_DROP_FORGOTTEN, (key,)))

    def _remove(self, key: str, entry: _Entry, statements: list[Statement]) -> None:
        del self._entries[key]
        statements.append((_DROP_META, (key,)))
        self._remember(key, statements)
        if entry.v2_key:
            statements.append((_DROP_META_V2, (entry.v2_key,)))

    def _end(self, uid: str, statements: list[Statement]) -> None:
        if uid in self._ended:
            return
        self._ended[uid] = None
        while len(self._ended) > schema.ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
        statements.append((_PUT_ENDED, (uid,)))
        statements.append((_TRIM_ENDED, ()))
        statements.append((_DROP_TOKENS, (f'UID:"{uid}"',)))

    def _undo(self, before: list[tuple[str, _Entry | None]], ended: dict[str, None]) -> None:
        for key, entry in reversed(before):
            if entry is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = entry
        self._ended = ended

    async def forget(self, uids: Iterable[str]) -> None:
        """Take any state of these objects from now on, whatever version is held, and even if they have ended. Raises StoreError."""
        wanted = set(uids)
        async with self._judging:
            statements: list[Statement] = [(_UNEND, (uid,)) for uid in wanted if uid in self._ended]
            keys = [key for key, entry in self._entries.items() if entry.held.uid in wanted]
            statements += [(_PUT_FORGOTTEN, (key,)) for key in keys]
            if statements:
                with anyio.CancelScope(shield=True):
                    await self.write(statements)
            for uid in wanted:
                self._ended.pop(uid, None)
            for key in keys:
                self._entries[key] = _without_version(self._entries[key])
                self._forgotten.add(key)

    async def put_text(self, key: str, type_: str, text: str) -> None:
        """Store a value that is no object with a version: a token, a lease's answer. Raises StoreError."""
        await self.write([(_PUT_META, (key, type_, text))])
        self._entries[key] = _Entry(type_, Held("", 0))

    async def drop(self, key: str) -> None:
        """Remove a row without a trace. Raises StoreError."""
        await self.write([(_DROP_META, (key,))])
        self._entries.pop(key, None)

    async def get(self, key: str) -> dict[str, Any] | None:
        """Return the stored object. Raises StoreError."""
        if key not in self._entries:
            return None
        for (value,) in await self.query(_GET, (key,)):
            return _object(value)
        return None

    async def list(self, type_: str, namespace: str | None) -> list[dict[str, Any]]:
        """Return all stored objects of a type, of one namespace if given. Raises StoreError."""
        start = None if namespace is None else f"{namespace or resource.NO_NAMESPACE}/"
        rows = await self.query(_LIST, (type_,))
        values = (_object(value) for key, value in rows if start is None or key.startswith(start))
        return [one for one in values if one is not None]

    async def query(self, sql: str, values: tuple[Any, ...] = ()) -> Sequence[tuple[Any, ...]]:
        """Read rows. Raises StoreError."""
        try:
            return await self._worker.submit(self._database.query, sql, values)
        except (apsw.Error, OSError) as exc:
            raise StoreError(str(exc)) from exc

    async def fold(self, sql: str, values: tuple[Any, ...], function: Callable[[Iterable[tuple[Any, ...]]], T]) -> T:
        """Give rows to a function, in the disk's thread, as they are read; it takes every one. Raises StoreError."""
        try:
            return await self._worker.submit(self._database.fold, sql, values, function)
        except (apsw.Error, OSError) as exc:
            raise StoreError(str(exc)) from exc

    def replicated(self) -> set[str]:
        """Keys of ``meta_v2`` that stand for objects held here."""
        return {entry.v2_key for entry in self._entries.values() if entry.v2_key}

    async def holdings(self) -> Sequence[ObjectRef]:
        """Every object on disk that the cloud follows: those with an identity, but not the node, which is this edge's own."""
        found = []
        async with self._judging:  # entries change before the commit: wait for it
            for key, entry in self._entries.items():
                if entry.held.uid and entry.type != "node":
                    path = resource.parse(key)
                    namespace = "" if entry.type in CLUSTER_TYPES else path.object_namespace
                    found.append(ObjectRef(entry.held.uid, entry.held.version, entry.type, namespace, path.name))
        return found


def _identity(obj: dict[str, Any]) -> tuple[str, int]:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        return "", 0
    uid = metadata.get("uid")
    return (uid if isinstance(uid, str) else ""), version_number(metadata.get("resourceVersion"))


def _without_version(entry: _Entry) -> _Entry:
    return replace(entry, held=Held(entry.held.uid, 0))


def _entry(key: str, type_: str, value: Any) -> _Entry:
    if not isinstance(value, dict) or type_ in _NO_IDENTITY:
        return _Entry(type_, Held("", 0))
    place = schema.meta_v2_key(value)
    return _Entry(type_, Held(*_identity(value)), place.key if place else "")


#: cluster-scoped, though KubeEdge's edge asks for them with the namespace word "default"
CLUSTER_TYPES: Final = frozenset(
    {"node", "persistentvolume", "volumeattachment", "csidriver", "csinode", "runtimeclass"}
)
_NO_IDENTITY: Final = frozenset(
    {"csidriver", "csinode", "lease", "nodepatch", "podpatch", "runtimeclass", "serviceaccounttoken", "servicelist"}
)


def _object(value: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(value or "null")
    except json.InvalidJson:
        return None
    return found if isinstance(found, dict) else None
