"""A machine's clock: its wall time may be off, and may jump; its monotonic time may not."""

from __future__ import annotations

import anyio

from edgesite.testing.simulator.determinism import EPOCH
from edgesite.testing.simulator.loop import SimLoop

__all__ = ["SimClock"]


class SimClock:
    """`edgesite.context.Clock` of one machine. ``offset_s``: how far its wall clock is ahead of the world's."""

    def __init__(self, loop: SimLoop, offset_s: float = 0.0) -> None:
        self._loop = loop
        self.offset_s = offset_s

    def monotonic(self) -> float:
        return self._loop.time()

    def time(self) -> float:
        return EPOCH + self.offset_s + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
