"""Threads of a simulated process: calls run on the loop, in order, each after a while drawn from the seed.

A call takes effect at one moment, when its time is over. A process that dies before then has not made it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, TypeVar

from edgesite.testing.simulator.loop import SimLoop

__all__ = ["Pace", "SimThreads"]

T = TypeVar("T")


class Pace:
    """How long blocking calls take: most are quick, some are not."""

    def __init__(
        self, rng: random.Random, *, usual_s: float = 0.002, slow_s: float = 0.3, slow_share: float = 0.01
    ) -> None:
        self._rng = rng
        self.usual_s, self.slow_s, self.slow_share = usual_s, slow_s, slow_share

    def draw(self) -> float:
        most = self.slow_s if self._rng.random() < self.slow_share else self.usual_s
        return self._rng.uniform(0.1, 1.0) * most


class _Worker:
    def __init__(self, loop: SimLoop, pace: Pace) -> None:
        self._loop, self._pace = loop, pace
        self._free_at = 0.0
        self._closed = False

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        if self._closed:
            raise RuntimeError("this worker is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._free_at = max(self._free_at, self._loop.time()) + self._pace.draw()  # rises: equal timers have no order
        self._loop.call_at(self._free_at, _run, future, function, args)
        return future

    async def close(self) -> None:
        self._closed = True
        if self._free_at > self._loop.time():
            done = self._loop.create_future()
            self._loop.call_at(self._free_at + 1e-6, done.set_result, None)
            await done


def _run(future: asyncio.Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        result = function(*args)
    except Exception as exc:
        if not future.done():
            future.set_exception(exc)
    else:
        if not future.done():
            future.set_result(result)


class SimThreads:
    """`edgesite.context.Threads` of one process."""

    def __init__(self, loop: SimLoop, pace: Pace) -> None:
        self._loop, self._pace = loop, pace

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """One call; those of a pool overlap, as their times are drawn one by one."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._loop.call_later(self._pace.draw(), _run, future, function, args)
        return await future

    def worker(self, name: str) -> _Worker:
        return _Worker(self._loop, self._pace)
