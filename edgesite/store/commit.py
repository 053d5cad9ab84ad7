"""Group commit: writes that come while the disk is busy share the next transaction and its one fsync.

A write gets its revision at once and is acknowledged when its transaction is on disk. Volatile writes (renewals of leases) wait
for what precedes them and never for a transaction of their own. Order of publication is order of revision, always.

Errors  WriteFailed to each writer of a failed transaction, and to those that came after it, which may rest on what was undone.
State   Pending writes, in memory, bounded by ``MAX_PENDING_BYTES``: above it writers wait. "reserved" on disk is raised in
        blocks, so that no revision of a volatile write is handed out twice, whenever the process is killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

import anyio
import apsw

from edgesite.context import Clock, Worker
from edgesite.store.errors import StoreClosed, WriteFailed
from edgesite.store.log import DELETED, Log, Version
from edgesite.store.metrics import StoreMetrics
from edgesite.store.rows import Row
from edgesite.store.slots import Slots

__all__ = ["Committer", "How", "Write"]

logger = logging.getLogger(__name__)

MAX_BATCH: Final = 1024  #: Writes in one transaction; bounds how long the first of them waits.
MAX_BATCH_BYTES: Final = 8 << 20
MAX_PENDING_BYTES: Final = 32 << 20
ERASE_PER_WRITE: Final = 4  #: Surplus versions deleted with each write: more than one write can add.
RESERVE: Final = 1024  #: Revisions reserved at a time for volatile writes.
RESERVE_MARGIN: Final = 256  #: The next block is reserved with a transaction that happens anyway, when fewer are left.


class How(IntEnum):
    DURABLE = 0
    VOLATILE = 1  #: in memory only
    SNAPSHOT = 2  #: not a change: brings the current volatile version to disk


class Write:
    """One write on its way to the disk."""

    __slots__ = ("deleted", "done", "flags", "how", "previous", "row", "slot", "unchanged")

    def __init__(self, row: Row, previous: Row | None, how: How, flags: int, done: asyncio.Future[None]) -> None:
        self.row = row
        self.previous = previous
        self.how = how
        self.flags = flags
        self.deleted = bool(flags & DELETED)
        self.unchanged = False  #: a deletion whose last state is that of ``previous``
        self.done = done
        self.slot = 0

    def version(self, floor: int) -> Version:
        row = self.row
        return Version(
            self.slot, row.revision, row.key, self.flags, row.created, floor, None if self.unchanged else row.value
        )


class Committer:
    """Queues writes, commits them in order, and calls ``publish`` with each as soon as it counts."""

    def __init__(
        self,
        log: Log,
        worker: Worker,
        slots: Slots,
        *,
        reserved: int,
        noted_at: int,
        clock: Clock,
        metrics: StoreMetrics,
        publish: Callable[[Write], None],
        undo: Callable[[Write], None],
    ) -> None:
        self.failure: str | None = None  #: why the last transaction failed; None once one has succeeded again
        self._log, self._worker, self._slots = log, worker, slots
        self._reserved = reserved
        self._noted_at = noted_at
        self._clock, self._metrics = clock, metrics
        self._publish, self._undo = publish, undo
        self._loop = asyncio.get_running_loop()
        self._pending: deque[Write] = deque()
        self._pending_bytes = 0
        self._room = anyio.Event()
        self._batch: list[Write] = []  # on its way to the disk
        self._erase: list[int] = []  # slots that the same transaction deletes
        self._scheduled = self._busy = self._closed = False
        self._uncertain = False  # a failed transaction may yet be on disk, until the next one overwrites it
        self._idle = anyio.Event()

    async def room(self) -> None:
        """Wait until a write may be queued. Raises StoreClosed."""
        while self._pending_bytes > MAX_PENDING_BYTES and not self._closed:
            await self._room.wait()
        if self._closed:
            raise StoreClosed

    def queue(self, write: Write) -> None:
        """Take a write that has its revision. ``write.done`` tells its fate."""
        if write.how is How.VOLATILE and not self._pending and not self._busy and self._is_free(write):
            self._acknowledge(write)
            return
        self._pending.append(write)
        self._pending_bytes += len(write.row.value)
        self._schedule()

    def _is_free(self, write: Write) -> bool:
        """Whether it may be published without touching the disk."""
        return write.how is How.VOLATILE and write.row.revision <= self._reserved and not self._uncertain

    def _schedule(self) -> None:
        # Not at once: writers that the last commit woke may add to this batch.
        if not self._scheduled and not self._busy:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._pending and self._is_free(self._pending[0]):
            self._acknowledge(self._next())
        if not self._pending:
            self._idle.set()
            return
        batch = self._batch = self._take_batch()
        durable = [write for write in batch if write.how is not How.VOLATILE]
        for write in durable:
            write.slot = self._slots.take()
        erase = self._erase = self._slots.surplus(ERASE_PER_WRITE * len(durable))
        floor = self._slots.floor
        meta = self._reservation(batch)
        self._submit(lambda: self._log.append([write.version(floor) for write in durable], meta, erase), meta)

    def _take_batch(self) -> list[Write]:
        batch: list[Write] = []
        size = 0
        while self._pending and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            write = self._next()
            size += len(write.row.value)
            batch.append(write)
        return batch

    def _next(self) -> Write:
        write = self._pending.popleft()
        self._pending_bytes -= len(write.row.value)
        if self._pending_bytes <= MAX_PENDING_BYTES and not self._room.is_set():
            self._room.set()
            self._room = anyio.Event()
        return write

    def _reservation(self, batch: Iterable[Write]) -> dict[str, int]:
        if not any(write.how is How.VOLATILE for write in batch):
            return {}
        newest = max(write.row.revision for write in batch)
        if newest + RESERVE_MARGIN <= self._reserved and not self._uncertain:
            return {}
        return {"reserved": max(newest + RESERVE, self._reserved), **self._time()}

    def _time(self) -> dict[str, int]:
        self._noted_at = max(self._noted_at, int(self._clock.time()), 1)  # 0: not noted
        return {"noted_at": self._noted_at}

    async def begin(self, ceiling: int) -> None:
        """Note the ceiling and the time, before anything is written. A disk that does not take it costs nothing else."""
        try:
            await self._worker.submit(self._log.append, (), {"ceiling": ceiling, **self._time()})
        except apsw.Error as exc:
            logger.warning("the ceiling of revisions is not noted: %s", exc)

    def _submit(self, call: Callable[[], int], meta: dict[str, int]) -> None:
        self._busy = True
        started = self._clock.monotonic()

        def finished(future: asyncio.Future[int]) -> None:
            self._busy = False
            error: BaseException | None = StoreClosed() if future.cancelled() else future.exception()
            if error is None:
                self._reserved = meta.get("reserved", self._reserved)
                self._metrics.committed(len(self._batch), future.result(), self._clock.monotonic() - started)
                self._succeeded()
            else:
                self._failed(error)
            self._schedule()

        try:
            self._worker.submit(call).add_done_callback(finished)
        except RuntimeError as exc:  # the worker is closed
            self._busy = False
            self._failed(exc)
            self._schedule()

    def _succeeded(self) -> None:
        self._uncertain = False
        if self.failure is not None:
            logger.warning("the disk takes writes again")
            self.failure = None
        self._slots.free(self._erase)
        batch, self._batch = self._batch, []
        for write in batch:
            self._acknowledge(write)

    def _acknowledge(self, write: Write) -> None:
        self._publish(write)
        if not write.done.done():  # its writer may have been cancelled
            write.done.set_result(None)

    def _failed(self, error: BaseException) -> None:
        self._metrics.failed()
        if self.failure is None:
            logger.error("commit failed, writes are refused until the disk recovers: %s", error)
        self.failure = f"{type(error).__name__}: {error}"
        self._uncertain = not isinstance(error, apsw.FullError)
        self._slots.give_back([write.slot for write in self._batch if write.slot] + self._erase)
        writes, self._batch = [*self._batch, *self._pending], []
        self._pending.clear()
        self._pending_bytes = 0
        self._room.set()
        self._room = anyio.Event()
        undone: set[str] = set()
        for write in writes:
            if self._is_free(write) and write.row.key not in undone:  # leases live on while the disk is full
                self._acknowledge(write)
                continue
            if write.how is not How.SNAPSHOT:
                undone.add(write.row.key)
                self._undo(write)
            if not write.done.done():
                failure = WriteFailed(f"{write.row.key}: {error}")
                failure.__cause__ = error
                write.done.set_exception(failure)

    async def shrink(self) -> None:
        """Give space that is free for good back to the file system. Raises apsw.Error."""
        await self._worker.submit(self._log.shrink)

    async def close(self, revision: int) -> None:
        """Commit what is queued, note the exact revision, close the file."""
        self._closed = True
        self._room.set()
        while self._pending or self._busy or self._scheduled:
            self._idle = anyio.Event()
            await self._idle.wait()
        try:
            await self._worker.submit(self._log.append, (), {"reserved": revision, **self._time()})
        except apsw.Error as exc:
            logger.warning("last revision not noted, the next start skips some: %s", exc)
        await self._worker.submit(self._log.close)
        await self._worker.close()
