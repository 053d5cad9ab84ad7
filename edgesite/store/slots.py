"""Which disk row the next version is written to: a ring over versions that have been replaced.

A version that was replaced stays in its slot until ``retain`` later replacements, so that after a restart watches can go on
from a recent revision. Then its slot is overwritten in place. A write so dirties one page, as an update of the object's own row
would, where an append-only log would also grow, shrink and rebalance its tree.

State   In memory, rebuilt from the rows when the store is opened.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence

__all__ = ["Slots"]


class Slots:
    """``floor``: versions that were current at this revision or later are all still on disk."""

    def __init__(self, retain: int, *, used: Iterable[int] = (), floor: int = 0) -> None:
        taken = set(used)
        self._top = max(taken, default=0)
        self._holes = [slot for slot in range(1, self._top) if slot not in taken] if len(taken) < self._top else []
        self._retired: deque[tuple[int, int]] = deque()  # (revision at which it was replaced, slot)
        self._retain = retain
        self.floor = floor

    def take(self) -> int:
        """Return a slot for a new version; ``floor`` may rise."""
        if len(self._retired) > self._retain:
            return self._reclaim()
        if self._holes:
            return heapq.heappop(self._holes)
        self._top += 1
        return self._top

    def retire(self, revision: int, slot: int) -> None:
        """The version in ``slot`` was replaced at ``revision``."""
        self._retired.append((revision, slot))

    def surplus(self, limit: int) -> list[int]:
        """Take up to ``limit`` slots of replaced versions far beyond what is retained, to be deleted from the disk."""
        excess = len(self._retired) - 2 * self._retain
        return [self._reclaim() for _ in range(min(limit, excess))] if excess > 0 else []

    def give_back(self, slots: Sequence[int]) -> None:
        """These were taken, in this order, for a transaction that failed.

        They go first again, in the same order: a deletion must not be overwritten before what it deleted.
        """
        self._retired.extendleft((0, slot) for slot in reversed(slots))

    def free(self, slots: Iterable[int]) -> None:
        """These were deleted from the disk."""
        for slot in slots:
            heapq.heappush(self._holes, slot)

    def _reclaim(self) -> int:
        revision, slot = self._retired.popleft()
        self.floor = max(self.floor, revision)
        return slot
