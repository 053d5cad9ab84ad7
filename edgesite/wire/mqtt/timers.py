"""Deadlines of many owners: a heap that forgets those that were moved.

Bounds  Twice as many entries as there are owners with a deadline, and some.
"""

from __future__ import annotations

import heapq
from typing import Protocol

__all__ = ["Timed", "Timers"]


class Timed(Protocol):
    """Who has a deadline; `Timers` alone sets ``due_at``."""

    due_at: float | None

    def due(self, now: float) -> None:
        """The deadline has come; it may set another one."""
        ...


class Timers:
    """The next deadline of each owner."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._made = 0
        self._live = 0

    def set(self, owner: Timed, at: float | None) -> None:
        """Move the deadline of ``owner``; None removes it."""
        if owner.due_at == at:
            return
        self._live += (at is not None) - (owner.due_at is not None)
        owner.due_at = at
        if at is None:
            return
        self._made += 1
        heapq.heappush(self._heap, (at, self._made, owner))
        if len(self._heap) > 2 * self._live + 64:
            self._heap = [entry for entry in self._heap if entry[2].due_at == entry[0]]
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """The earliest deadline, None if there is none."""
        heap = self._heap
        while heap and heap[0][2].due_at != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: float) -> None:
        """Tell all whose deadline has come."""
        while (at := self.next()) is not None and at <= now:
            owner = heapq.heappop(self._heap)[2]
            self._live -= 1
            owner.due_at = None
            owner.due(now)
