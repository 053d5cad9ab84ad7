"""Events are forgotten: some time after their last change, and the oldest ones when there are too many.

Units   Seconds.
Errors  None: a deletion that fails is tried again with the next sweep.
State   When each event is due, in memory; made again from the store at start.
Source  kube-apiserver's event-ttl (default one hour).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube import json, times
from edgesite.kube.encoding import with_revision
from edgesite.store import EventType, StoreError

if TYPE_CHECKING:
    from edgesite.context import Clock
    from edgesite.store import Store

__all__ = ["EventSweeper"]

logger = logging.getLogger(__name__)
PREFIX: Final = "/events/"
MAX_EVENTS: Final = 5000  #: in all namespaces; an event is about 1 KB
PERIOD_S: Final = 60.0
BATCH: Final = 64  #: deletions that share a commit


class EventSweeper:
    """Deletes events that are due."""

    def __init__(self, store: Store, clock: Clock, ttl_s: float) -> None:
        self._store = store
        self._clock = clock
        self.ttl_s = ttl_s  #: another one holds for events that change from then on
        self._due: OrderedDict[str, float] = OrderedDict()  # Unix time, soonest first

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            with self._store.watch(PREFIX) as watch:
                self._load()
                try:
                    while True:
                        await self._sweep()
                        await self._clock.sleep(min(PERIOD_S, self.ttl_s / 2))
                        for event in watch.take():
                            self._note(event.row.key, event.type is EventType.DELETED)
                except StoreError as exc:
                    logger.debug("reading all events again: %s", exc)
            await self._clock.sleep(1.0)

    def _load(self) -> None:
        dues = [(self._last_change(row.value) + self.ttl_s, row.key) for row in self._store.list(PREFIX).rows]
        self._due = OrderedDict((key, due) for due, key in sorted(dues))

    def _last_change(self, value: bytes) -> float:
        event: dict[str, Any] = json.loads(value)
        text = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
        try:
            return times.parse_time(text)
        except times.InvalidTime:
            return self._clock.time()

    def _note(self, key: str, deleted: bool) -> None:
        self._due.pop(key, None)
        if not deleted:
            self._due[key] = self._clock.time() + self.ttl_s

    async def _sweep(self) -> None:
        now = self._clock.time()
        surplus = len(self._due) - MAX_EVENTS
        overdue: list[str] = []
        for key, due in self._due.items():
            if due > now and surplus <= 0:
                break
            overdue.append(key)
            surplus -= 1
        for start in range(0, len(overdue), BATCH):
            async with anyio.create_task_group() as tasks:
                for key in overdue[start : start + BATCH]:
                    tasks.start_soon(self._delete, key)

    async def _delete(self, key: str) -> None:
        row = self._store.latest(key)
        try:
            if row is not None:
                value = row.value
                await self._store.delete(key, lambda revision: with_revision(value, revision), expect=row.revision)
        except StoreError as exc:
            logger.debug("an event stays for now: %s", exc)
        else:
            self._due.pop(key, None)
