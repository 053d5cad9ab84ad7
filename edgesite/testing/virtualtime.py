"""Virtual time for tests that need no network: a loop that jumps to its next timer, and the clock that follows it."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import anyio

__all__ = ["VirtualClock", "VirtualLoop", "settle"]

EPOCH = 1_767_225_600.0  #: wall clock when a loop starts: 2026-01-01T00:00:00Z


class _Selector(selectors.DefaultSelector):
    """Never waits: what it was asked to wait is what time advances by."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("deadlock: every task waits and no timer is set")
        if not found and timeout:
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time advances only when nothing is runnable, at once."""

    def __init__(self) -> None:
        self._waits = _Selector()
        super().__init__(self._waits)

    def time(self) -> float:
        return self._waits.now


class VirtualClock:
    """`edgesite.context.Clock` over the running `VirtualLoop`."""

    def monotonic(self) -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:  # made in a fixture, before the loop runs
            return 0.0

    def time(self) -> float:
        return EPOCH + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


async def settle() -> None:
    """Let everything run that can run now, and no timer of a millisecond or more."""
    await anyio.sleep(0.0005)
