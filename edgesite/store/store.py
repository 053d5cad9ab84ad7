"""The store: keys with values at revisions, in memory for reading, on disk before a write is acknowledged.

Units   Revisions are integers from 1, one sequence for all keys; some numbers may be skipped. Sizes are bytes.
Errors  See `errors`. A disk that fails refuses writes and leaves what is read untouched (`Store.failure` says why).
State   One SQLite file, see `log`. After a restart watches go on from any of the last ``Limits.retain`` replaced versions.
        Volatile keys: creation and deletion are durable, what lies between is brought to disk by `Store.run` now and then.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
import apsw

from edgesite.context import Clock, Disk, Threads, Worker
from edgesite.store.ceiling import ceiling
from edgesite.store.commit import Committer, How, Write
from edgesite.store.errors import Compacted, Conflict, FutureRevision, NotFound, StoreClosed, WriteFailed
from edgesite.store.history import Bucket, Watchers, bucket_name
from edgesite.store.log import DELETED, VOLATILE, Contents, Log, Version, open_log
from edgesite.store.metrics import StoreMetrics
from edgesite.store.rows import Event, EventType, Page, Row
from edgesite.store.slots import Slots
from edgesite.store.watch import Watch

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Encode", "Index", "Limits", "Store"]

logger = logging.getLogger(__name__)

CLOSE_S: Final = 30.0  #: A disk that hangs must not keep the program from ending.

Encode = Callable[[int], bytes]  #: makes the value that carries this revision
Index = Callable[[str, bytes], Any]  #: makes ``attrs`` again from key and value


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds. Events are counted per bucket (first segment of the key)."""

    events: int = 1024  #: recent events in memory, per bucket
    event_bytes: int = 4 << 20
    retain: int = (
        512  #: replaced versions kept on disk, so that watches go on after a restart; each more costs space alone
    )
    watch_events: int = 1024  #: a watch that is further behind is cut off
    upkeep_s: float = 300.0  #: volatile keys are brought to disk this often; events live for this to twice this


class Store:
    """Open with `Store.open`; close with `close` or as an async context manager. One event loop, one process."""

    def __init__(
        self,
        log: Log,
        worker: Worker,
        contents: Contents,
        clock: Clock,
        limits: Limits,
        metrics: StoreMetrics,
        index: Index | None,
    ) -> None:
        self._limits, self._clock, self._worker = limits, clock, worker
        self._rows: dict[str, Row] = {}
        self._under_way: dict[str, Write] = {}  # newest pending write of each key
        self._slot_of: dict[str, int] = {}
        self._persisted: dict[str, int] = {}  # volatile keys: revision of the version on disk
        self._buckets: dict[str, Bucket] = {}
        self._names: list[str] = []  # of buckets, in order
        self._wide = Watchers()  # watches on prefixes that span buckets
        self._floor = contents.floor
        self._slots = Slots(limits.retain, used=(one.slot for one in contents.versions), floor=contents.floor)
        self._revision = self._assigned = self._load(contents, index)
        now = int(clock.time())
        self._ceiling = ceiling(self._revision, before=contents.ceiling, noted_at=contents.noted_at, now=now)
        self._mark = self._revision  # what is older may be forgotten at the next upkeep
        self._loop = asyncio.get_running_loop()
        self._committer = Committer(
            log,
            worker,
            self._slots,
            reserved=self._revision,
            noted_at=contents.noted_at,
            clock=clock,
            metrics=metrics,
            publish=self._publish,
            undo=self._undo,
        )
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Clock,
        threads: Threads,
        disk: Disk,
        metrics: CollectorRegistry | None = None,
        index: Index | None = None,
        limits: Limits = Limits(),
    ) -> Self:
        """Open or create the file and read it whole. ``index`` makes the rows' ``attrs``.

        Raises FormatTooNew, apsw.Error, OSError.
        """
        worker = threads.worker("store")
        try:
            log, contents = await worker.submit(open_log, disk, path)
            store = cls(log, worker, contents, clock, limits, StoreMetrics(metrics), index)
            await store._committer.begin(store._ceiling)
            return store
        except BaseException:
            with anyio.CancelScope(shield=True):
                await worker.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # reading

    @property
    def revision(self) -> int:
        """The newest revision that may be read."""
        return self._revision

    @property
    def compacted(self) -> int:
        """The oldest revision from which any prefix may be watched; narrow ones often allow older ones."""
        return max([self._floor, *(bucket.floor for bucket in self._buckets.values())])

    @property
    def failure(self) -> str | None:
        """Why writes fail, or None."""
        return self._committer.failure

    def get(self, key: str) -> Row | None:
        """Return the committed version."""
        return self._rows.get(key)

    def latest(self, key: str) -> Row | None:
        """Return the newest version, whether or not it is on disk yet: what ``expect`` is compared with."""
        write = self._under_way.get(key)
        if write is None:
            return self._rows.get(key)
        return None if write.deleted else write.row

    def list(
        self, prefix: str, *, after: str | None = None, limit: int | None = None, revision: int | None = None
    ) -> Page:
        """Return rows in order of key, as they were at ``revision`` (default: now). Raises Compacted, FutureRevision."""
        if revision is None or revision == self._revision:
            return self._list_now(prefix, after, limit)
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        rows: list[Row] = []
        for bucket in self._overlapping(prefix, revision):
            rows += bucket.rows_at(revision, prefix, after, self._rows)
        remaining = 0 if limit is None else max(0, len(rows) - limit)
        rows = rows[:limit]
        return Page(rows, revision, rows[-1].key if remaining and rows else None, remaining)

    def _list_now(self, prefix: str, after: str | None, limit: int | None) -> Page:
        rows: list[Row] = []
        remaining = 0
        for bucket in self._overlapping(prefix):
            start, stop = bucket.span(prefix, after)
            end = stop if limit is None else min(stop, start + limit - len(rows))
            rows += map(self._rows.__getitem__, bucket.keys[start:end])
            remaining += stop - end
        return Page(rows, self._revision, rows[-1].key if remaining and rows else None, remaining)

    def count(self, prefix: str) -> int:
        """Return how many keys have this prefix."""
        return sum(stop - start for start, stop in (bucket.span(prefix, None) for bucket in self._overlapping(prefix)))

    def _overlapping(self, prefix: str, revision: int | None = None) -> Iterator[Bucket]:
        """Buckets that may hold keys with this prefix, in order. Raises Compacted if ``revision`` is below the floor of all."""
        if revision is not None and revision < self._floor:
            raise Compacted(revision, self._floor)
        if _is_narrow(prefix):
            bucket = self._buckets.get(bucket_name(prefix))
            if bucket is not None:
                yield bucket
            return
        for name in self._names[bisect_left(self._names, prefix) :]:
            if not name.startswith(prefix):
                break
            yield self._buckets[name]

    # writing

    async def put(
        self, key: str, encode: Encode, *, expect: int | None = None, attrs: Any = None, volatile: bool = False
    ) -> Row:
        """Write a new version and return it once it is durable.

        ``expect``: the revision that the key must be at; 0: it must not exist. A cancelled put may yet be carried out.
        ``volatile``: if the key exists, the new version is kept in memory and reaches the disk only now and then.
        Raises Conflict, WriteFailed, StoreClosed, and what ``encode`` raises.
        """
        await self._committer.room()
        old = self.latest(key)
        if expect is not None and expect != (old.revision if old else 0):
            raise Conflict(key, expect, old)
        revision = self._assigned + 1
        row = Row(key, encode(revision), revision, old.created if old else revision, attrs)
        how = How.VOLATILE if volatile and old else How.DURABLE
        await self._enqueue(Write(row, old, how, VOLATILE if volatile else 0, self._loop.create_future()))
        return row

    async def delete(self, key: str, encode: Encode | None = None, *, expect: int | None = None) -> Row:
        """Delete and return the row as it was, at the deletion's revision; ``encode`` makes its last state.

        Raises Conflict, NotFound, WriteFailed, StoreClosed, and what ``encode`` raises.
        """
        await self._committer.room()
        old = self.latest(key)
        if expect is not None and expect != (old.revision if old else 0):
            raise Conflict(key, expect, old)
        if old is None:
            raise NotFound(key)
        revision = self._assigned + 1
        row = Row(key, encode(revision) if encode else old.value, revision, old.created, old.attrs)
        flags = DELETED | (VOLATILE if key in self._persisted else 0)
        write = Write(row, old, How.DURABLE, flags, self._loop.create_future())
        write.unchanged = encode is None
        await self._enqueue(write)
        return row

    async def _enqueue(self, write: Write) -> None:
        self._assigned = write.row.revision
        self._under_way[write.row.key] = write
        self._committer.queue(write)
        await write.done

    def _publish(self, write: Write) -> None:
        """A write counts from here on: rows, history and watchers learn of it together."""
        row, key = write.row, write.row.key
        if write.slot:
            self._settle(write)
        if write.how is How.SNAPSHOT:
            return
        if self._under_way.get(key) is write:
            del self._under_way[key]
        self._revision = row.revision
        self._watchers_learn(self._apply(row, write.deleted))

    def _settle(self, write: Write) -> None:
        """Book the slot that now holds the newest version on disk, and the one that it replaces."""
        row, key = write.row, write.row.key
        replaced = self._slot_of.pop(key, 0)
        if replaced:
            self._slots.retire(row.revision, replaced)
        if write.deleted:
            self._slots.retire(row.revision, write.slot)
        else:
            self._slot_of[key] = write.slot
        if write.flags & VOLATILE and not write.deleted:
            self._persisted[key] = row.revision
        else:
            self._persisted.pop(key, None)

    def _apply(self, row: Row, deleted: bool) -> Event:
        key = row.key
        bucket = self._bucket(key)
        if deleted:
            previous = self._rows.pop(key, None)
            bucket.remove_key(key)
            event = Event(EventType.DELETED, row, previous)
        else:
            previous = self._rows.get(key)
            self._rows[key] = row
            if previous is None:
                bucket.add_key(key)
            event = Event(EventType.MODIFIED if previous else EventType.ADDED, row, previous)
        bucket.record(event)
        return event

    def _undo(self, write: Write) -> None:
        if self._under_way.get(write.row.key) is write:
            del self._under_way[write.row.key]

    def _bucket(self, key: str) -> Bucket:
        name = bucket_name(key)
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(self._floor, self._limits.events, self._limits.event_bytes)
            self._names.insert(bisect_right(self._names, name), name)
        return bucket

    def advance(self, beyond: int) -> bool:
        """Let the next revision be above ``beyond``: clients have seen revisions that this file, restored from a backup, has not.
        False, and nothing changes, if none can have been so high (`ceiling`)."""
        if beyond > max(self._ceiling, self._assigned):
            return False
        self._assigned = max(self._assigned, beyond)
        return True

    # watching

    def watch(self, prefix: str, *, after: int | None = None, size: int | None = None) -> Watch:
        """Watch keys with this prefix: first what came after revision ``after`` (default: now), then what comes.

        Raises Compacted, FutureRevision, StoreClosed.
        """
        if self._closed:
            raise StoreClosed
        replay: list[Event] = []
        if after is not None:
            if after > self._revision:
                raise FutureRevision(after, self._revision)
            parts = [bucket.events_after(after, prefix) for bucket in self._overlapping(prefix, after)]
            replay = parts[0] if len(parts) == 1 else list(heapq.merge(*parts, key=lambda event: event.revision))
        watchers = self._watchers_of(prefix)
        watch = Watch(
            prefix, size or self._limits.watch_events, replay, lambda: self._revision, watchers.discard, self._loop
        )
        watchers.add(watch)
        return watch

    def _watchers_of(self, prefix: str) -> Watchers:
        return self._bucket(prefix).watchers if _is_narrow(prefix) else self._wide

    def _watchers_learn(self, event: Event) -> None:
        key = event.row.key
        bucket = self._bucket(key)
        if len(bucket.watchers):
            bucket.watchers.push(key, event)
        if len(self._wide):
            self._wide.push(key, event)

    # upkeep

    async def compact(self, revision: int) -> None:
        """Forget what came before ``revision``: older lists and watches are Compacted. Raises FutureRevision."""
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        self._floor = max(self._floor, revision)
        for bucket in self._buckets.values():
            bucket.compact(revision)

    async def snapshot(self) -> int:
        """Bring the volatile keys that changed to disk; return how many. Raises WriteFailed."""
        writes: list[Write] = []
        for key, persisted in self._persisted.items():
            row = self.latest(key)
            if row is not None and row.revision != persisted:
                writes.append(Write(row, None, How.SNAPSHOT, VOLATILE, self._loop.create_future()))
        for write in writes:
            self._committer.queue(write)
        outcomes = await asyncio.gather(*(write.done for write in writes), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(writes)

    async def run(self) -> None:
        """Upkeep until cancelled: snapshots of volatile keys, old events forgotten, free space given back."""
        while True:
            await self._clock.sleep(self._limits.upkeep_s)
            for bucket in self._buckets.values():
                bucket.trim(self._mark)
            self._mark = self._revision
            try:
                await self.snapshot()
                await self._committer.shrink()
            except (WriteFailed, apsw.Error) as exc:
                logger.warning("upkeep failed, tried again in %s s: %s", self._limits.upkeep_s, exc)

    async def close(self) -> None:
        """Commit what is under way, snapshot, and close; watches end with StoreClosed. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with anyio.move_on_after(CLOSE_S, shield=True) as scope:
            try:
                await self.snapshot()
            finally:
                await self._committer.close(self._assigned)
                for watchers in [self._wide, *(bucket.watchers for bucket in self._buckets.values())]:
                    for watch in watchers:
                        watch.end(StoreClosed())
        if scope.cancelled_caught:
            logger.error("the disk did not answer for %s s; closing without it", CLOSE_S)

    # loading

    def _load(self, contents: Contents, index: Index | None) -> int:
        """Replay the versions: the newest of each key is its state, those above the floor are history. Return the revision."""
        gaps: set[str] = set()  # buckets some of whose versions were never on disk
        for version in contents.versions:
            if version.flags & VOLATILE:
                gaps.add(bucket_name(version.key))
            self._replay(version, index)
        newest = max(contents.reserved, contents.versions[-1].revision if contents.versions else 0)
        if gaps:
            newest += 1  # who saw the last revision may have seen volatile versions that are lost: it must list again
        for name, bucket in self._buckets.items():
            bucket.compact(newest if name in gaps else contents.floor)
        return newest

    def _replay(self, version: Version, index: Index | None) -> None:
        key, value, deleted = version.key, version.value, bool(version.flags & DELETED)
        before = self._rows.get(key)
        replaced = self._slot_of.pop(key, 0)
        if replaced:
            self._slots.retire(version.revision, replaced)
        self._persisted.pop(key, None)
        if deleted:
            self._slots.retire(version.revision, version.slot)
            if before is None:
                return  # what it deleted is gone from the disk already, so it lies below the floor
        else:
            self._slot_of[key] = version.slot
            if version.flags & VOLATILE:
                self._persisted[key] = version.revision
        if value is None:
            value = before.value if before else b""
        self._apply(Row(key, value, version.revision, version.created, index(key, value) if index else None), deleted)


def _is_narrow(prefix: str) -> bool:
    """Whether all keys with this prefix are in one bucket."""
    return prefix.find("/", 1) > 0
