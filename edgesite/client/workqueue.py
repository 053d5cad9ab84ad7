"""Keys to reconcile: each waits at most once, is with one worker at a time, and comes back later when that is asked.

Units   Times are monotonic seconds of the clock that is passed in.
Errors  None of its own.
State   In memory. Bound: one entry per key, so at most as many as there are objects.
Source  client-go, util/workqueue (behaviour: dirty and processing sets, per-item back-off under an overall rate).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    import random

    from edgesite.context import Clock

__all__ = ["RateLimiter", "WorkQueue"]

K = TypeVar("K", bound=Hashable)
FIRST_S: Final = 0.005  #: back-off after the first failure of a key; doubles
MOST_S: Final = 60.0  #: most that a key waits between two attempts: a site must recover soon after its API does
QPS: Final = 10.0  #: retries of all keys of one queue, once the burst is used up
BURST: Final = 100


class RateLimiter(Generic[K]):
    """How long a failed key waits: exponential per key, and never less than what keeps all retries under a rate."""

    def __init__(
        self,
        clock: Clock,
        random: random.Random,
        *,
        first_s: float = FIRST_S,
        most_s: float = MOST_S,
        qps: float = QPS,
        burst: int = BURST,
    ) -> None:
        self._clock, self._random = clock, random
        self._first_s, self._most_s = first_s, most_s
        self._qps, self._burst = qps, float(burst)
        self._tokens, self._filled_at = float(burst), clock.monotonic()
        self._failures: dict[K, int] = {}

    def when(self, key: K) -> float:
        """Count a failure of ``key`` and return the seconds until its next attempt, with up to a tenth of jitter."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay_s = min(self._first_s * 2.0 ** min(failures, 60), self._most_s)
        return max(delay_s * (1.0 + 0.1 * self._random.random()), self._reserve())

    def forget(self, key: K) -> None:
        """``key`` succeeded: its next failure waits the shortest time again."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    def _reserve(self) -> float:
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._qps)
        self._filled_at = now
        self._tokens -= 1.0
        return 0.0 if self._tokens >= 0.0 else -self._tokens / self._qps


class WorkQueue(Generic[K]):
    """Keys to reconcile. A key waits at most once and is never with two workers at once.

    Keys added with ``low`` (what a full list brings) are handed out when no other key waits, so that a restart starves
    no fresh change. Delayed keys need `run` in the owner's task group.
    """

    def __init__(self, clock: Clock, limiter: RateLimiter[K]) -> None:
        self._clock = clock
        self._limiter = limiter
        self._ready: deque[K] = deque()
        self._low: deque[K] = deque()
        self._dirty: dict[K, bool] = {}  # waiting, or to wait again after processing; True: low priority
        self._processing: set[K] = set()
        self._waiters: deque[anyio.Event] = deque()
        self._delayed: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}  # the earliest delayed add of each key
        self._count = 0
        self._sooner = anyio.Event()

    def __len__(self) -> int:
        """Keys that wait to be taken now."""
        return len(self._ready) + len(self._low)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is being worked on; delayed keys do not count."""
        return not self._dirty and not self._processing

    def add(self, key: K, *, low: bool = False) -> None:
        """Mark ``key``; while a worker has it, it is queued again only after that."""
        was = self._dirty.get(key)
        if was is None:
            self._dirty[key] = low
            if key not in self._processing:
                self._push(key, low)
        elif was and not low:
            self._dirty[key] = False
            if key not in self._processing:
                self._ready.append(key)  # its place among the low ones is passed over when reached

    def add_after(self, key: K, delay_s: float) -> None:
        """Add ``key`` in ``delay_s`` seconds; an earlier pending delay of the same key holds."""
        if delay_s <= 0:
            self.add(key)
            return
        at = self._clock.monotonic() + delay_s
        if (due := self._due.get(key)) is not None and due <= at:
            return
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._delayed, (at, self._count, key))
        if self._delayed[0][0] == at:
            self._sooner.set()

    def add_rate_limited(self, key: K) -> float:
        """Add ``key`` after its back-off, which is returned in seconds."""
        delay_s = self._limiter.when(key)
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """``key`` succeeded: end its back-off."""
        self._limiter.forget(key)

    def failures(self, key: K) -> int:
        """Failures of ``key`` since it last succeeded."""
        return self._limiter.failures(key)

    @asynccontextmanager
    async def take(self) -> AsyncGenerator[K]:
        """Wait for a key and hold it for the length of the block."""
        key = await self._pop()
        try:
            yield key
        finally:
            self._processing.discard(key)
            if key in self._dirty:
                self._push(key, self._dirty[key])

    async def run(self) -> None:
        """Move delayed keys to the queue when they are due; sleeps while there are none."""
        while True:
            self._sooner = anyio.Event()
            now = self._clock.monotonic()
            while self._delayed and self._delayed[0][0] <= now:
                at, _, key = heapq.heappop(self._delayed)
                if self._due.get(key) == at:
                    del self._due[key]
                    self.add(key)
            wait_s = self._delayed[0][0] - now if self._delayed else None
            if wait_s is None:
                await self._sooner.wait()
            else:
                with anyio.move_on_after(wait_s):
                    await self._sooner.wait()

    def _push(self, key: K, low: bool) -> None:
        (self._low if low else self._ready).append(key)
        if self._waiters:
            self._waiters.popleft().set()

    async def _pop(self) -> K:
        while True:
            for keys in (self._ready, self._low):
                while keys:
                    key = keys.popleft()
                    if key in self._dirty and key not in self._processing:
                        del self._dirty[key]
                        self._processing.add(key)
                        return key
            wake = anyio.Event()
            self._waiters.append(wake)
            try:
                await wake.wait()
            except BaseException:
                if wake.is_set() and self._waiters:  # woken and cancelled at once: hand the wake-up on
                    self._waiters.popleft().set()
                elif wake in self._waiters:
                    self._waiters.remove(wake)
                raise
