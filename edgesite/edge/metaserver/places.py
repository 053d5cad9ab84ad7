"""Places for questions to the cloud: so many at once in all, and so many for each who asks. Who finds none waits, first come first served.

Units   Seconds.
Errors  ApiError 429 when too many wait, or a place is not free in time.
State   Who holds places and who waits, both bounded.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from edgesite.kube.errors import ApiError

__all__ = ["Places"]


class _Waiter:
    __slots__ = ("event", "has_place", "share")

    def __init__(self, share: str) -> None:
        self.share = share
        self.event = anyio.Event()
        self.has_place = False


class Places:
    """``most`` places, ``of_one`` for each share; at most ``waiting`` wait, each for at most ``wait_s``."""

    def __init__(self, most: int, of_one: int, waiting: int, wait_s: float) -> None:
        self._most = most
        self._of_one = of_one
        self._most_waiting = waiting
        self._wait_s = wait_s
        self._held: Counter[str] = Counter()
        self._queue: deque[_Waiter] = deque()

    def __len__(self) -> int:
        """How many places are held."""
        return self._held.total()

    @asynccontextmanager
    async def one(self, share: str) -> AsyncGenerator[None]:
        """Hold a place. Raises ApiError 429."""
        if self._is_free(share) and not any(one.share == share for one in self._queue):
            self._held[share] += 1
        else:
            await self._wait(share)
        try:
            yield
        finally:
            self._held[share] -= 1
            if not self._held[share]:
                del self._held[share]
            self._hand_on()

    def _is_free(self, share: str) -> bool:
        return self._held.total() < self._most and self._held[share] < self._of_one

    async def _wait(self, share: str) -> None:
        """Raises ApiError 429."""
        if len(self._queue) >= self._most_waiting:
            raise _too_many()
        waiter = _Waiter(share)
        self._queue.append(waiter)
        try:
            with anyio.fail_after(self._wait_s):
                await waiter.event.wait()
        except BaseException as exc:
            if waiter.has_place:  # it came while we were leaving
                self._held[share] -= 1
                self._hand_on()
            else:
                self._queue.remove(waiter)
            if isinstance(exc, TimeoutError):
                raise _too_many() from None
            raise

    def _hand_on(self) -> None:
        for waiter in tuple(self._queue):
            if self._held.total() >= self._most:
                return
            if self._is_free(waiter.share):
                self._queue.remove(waiter)
                self._held[waiter.share] += 1
                waiter.has_place = True
                waiter.event.set()


def _too_many() -> ApiError:
    return ApiError(429, "TooManyRequests", "too many tokens wait for their review", None, 1)
