"""Many sessions, one sleeper: who is due next.

A session's due time mostly moves away, with every message that comes. So a session stands in the heap with a time at which it
was due once; when that comes, it is asked again.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["Timed", "Timers"]


class Timed(Protocol):
    timer_at: float  #: kept by `Timers`: when it stands in the heap; inf if it does not

    def next_timer(self) -> float | None: ...

    def on_timer(self, now: float) -> None: ...


class Timers:
    """``run`` calls ``on_timer`` of each that is due, until cancelled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timed]] = []
        self._count = 0
        self._earlier = anyio.Event()

    def arm(self, one: Timed) -> None:
        """Look at the due time of ``one``, which may have come nearer."""
        due = one.next_timer()
        if due is None or due >= one.timer_at:
            return
        one.timer_at = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, one))
        if self._heap[0][2] is one:
            self._earlier.set()

    async def run(self) -> None:
        while True:
            self._earlier = anyio.Event()
            now = self._clock.monotonic()
            while self._heap and self._heap[0][0] <= now:
                at, _, one = heapq.heappop(self._heap)
                if at != one.timer_at:
                    continue  # it stands in the heap a second time, earlier
                one.timer_at = math.inf
                due = one.next_timer()
                if due is not None and due <= now:
                    one.on_timer(now)
                self.arm(one)
            wait = self._heap[0][0] - now if self._heap else math.inf
            with anyio.move_on_after(wait):
                await self._earlier.wait()
