"""Pods that wait for a node: the most important first, the failed later, the hopeless until something changes.

Units   Times are monotonic seconds of the clock that is passed in.
State   In memory: one entry per pending pod.
Source  kube-scheduler's scheduling queue (behaviour: active, back-off and unschedulable pods).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.client import ObjectKey

if TYPE_CHECKING:
    import random

    from edgesite.context import Clock

__all__ = ["Entry", "SchedulingQueue"]

FIRST_S: Final = 1.0  #: back-off after the first failed attempt; doubles
MOST_S: Final = 10.0
PARKED_S: Final = 300.0  #: a pod that nothing has changed for is tried again after this


@dataclass(slots=True, eq=False)
class Entry:
    """A pending pod. ``waits_for_pods``: a new pod somewhere could let it in (affinity, spreading)."""

    key: ObjectKey
    uid: str
    priority: int
    added: int  # order of arrival
    attempts: int = 0
    waits_for_pods: bool = False
    waits_for_volumes: bool = False  #: a new volume, or a change of one, could let it in
    place: int = 0  # number of its valid place in a heap; 0: parked or being tried
    parked_at: float = 0.0


class SchedulingQueue:
    """Pending pods. One consumer."""

    def __init__(self, clock: Clock, random: random.Random) -> None:
        self._clock, self._random = clock, random
        self._entries: dict[str, Entry] = {}  # by uid
        self._active: list[tuple[int, int, int, Entry]] = []  # -priority, arrival, place
        self._waiting: list[tuple[float, int, Entry]] = []  # due, place: backing off, or parked for long
        self._parked: dict[str, Entry] = {}
        self._count = 0
        self._wake = anyio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, key: ObjectKey, uid: str, priority: int) -> None:
        """Queue a pod that is new, or whose own form changed: it is tried at once."""
        entry = self._entries.get(uid)
        if entry is None:
            self._count += 1
            entry = self._entries[uid] = Entry(key, uid, priority, self._count)
        entry.priority = priority
        self._parked.pop(uid, None)
        self._activate(entry)

    def remove(self, uid: str) -> None:
        """The pod is gone, or has a node."""
        self._parked.pop(uid, None)
        entry = self._entries.pop(uid, None)
        if entry is not None:
            entry.place = -1

    async def pop(self) -> Entry:
        """Wait for the most important pod; the caller answers with `remove`, `retry` or `park`."""
        while True:
            now = self._clock.monotonic()
            self._promote(now)
            while self._active:
                _, _, place, entry = heapq.heappop(self._active)
                if entry.place == place:
                    entry.place = 0
                    entry.attempts += 1
                    return entry
            self._wake = anyio.Event()
            if self._waiting:
                with anyio.move_on_after(max(self._waiting[0][0] - now, 0.0)):
                    await self._wake.wait()
            else:
                await self._wake.wait()

    def retry(self, entry: Entry) -> None:
        """The attempt failed for a passing reason: try again after a back-off."""
        if self._entries.get(entry.uid) is entry and entry.place == 0:
            delay_s = min(FIRST_S * 2.0 ** min(entry.attempts - 1, 10), MOST_S)
            self._wait(entry, delay_s * (1.0 + 0.1 * self._random.random()))

    def park(self, entry: Entry) -> None:
        """The pod fits nowhere: try again when the cluster changes."""
        if self._entries.get(entry.uid) is not entry or entry.place != 0:
            return
        self._parked[entry.uid] = entry
        entry.parked_at = self._clock.monotonic()
        self._wait(entry, PARKED_S)

    def changed(self, concerns: Callable[[Entry], bool] | None = None) -> None:
        """Something may let parked pods in: all of them, or those that it ``concerns``."""
        for uid, entry in list(self._parked.items()):
            if concerns is None or concerns(entry):
                del self._parked[uid]
                entry.place = 0
                delay_s = min(FIRST_S * 2.0 ** min(entry.attempts - 1, 10), MOST_S)
                left_s = entry.parked_at + delay_s - self._clock.monotonic()
                if left_s > 0:
                    self._wait(entry, left_s)
                else:
                    self._activate(entry)

    def _activate(self, entry: Entry) -> None:
        self._count += 1
        entry.place = self._count
        heapq.heappush(self._active, (-entry.priority, entry.added, entry.place, entry))
        self._wake.set()

    def _wait(self, entry: Entry, delay_s: float) -> None:
        self._count += 1
        entry.place = self._count
        heapq.heappush(self._waiting, (self._clock.monotonic() + delay_s, entry.place, entry))
        self._wake.set()

    def _promote(self, now: float) -> None:
        """Move what is due; drop places that are no longer valid so that the next timer is a real one."""
        while self._waiting and (self._waiting[0][0] <= now or self._waiting[0][2].place != self._waiting[0][1]):
            _, place, entry = heapq.heappop(self._waiting)
            if entry.place == place:
                self._parked.pop(entry.uid, None)
                self._activate(entry)
