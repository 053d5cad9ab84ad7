"""How many requests a second may go to an API server that is not ours: a token bucket, shared fairly by who asks.

Requests wait in a queue for each flow (a component of the role), and flows take turns. So ten thousand records that one component
writes do not hold up the leases that another one renews.

Units   Seconds; ``qps`` is requests a second, ``burst`` how many may go at once after a pause.
Errors  TooManyRequests (an OSError) when the queue is full; the caller's deadline bounds the wait.
State   Tokens, and who waits. Nothing runs by itself: of those who wait, one sleeps until the next token and hands it on.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["RateLimit", "TooManyRequests"]

MOST_WAITING: Final = 10_000
_LEAST_S: Final = 0.0005  #: what is missing after rounding must not make a loop that never waits


class TooManyRequests(OSError):
    """So many requests wait already that another one would not be sent in time."""


class _Place:
    """One request that waits: ``granted`` once it may go; ``called`` is also set when it is its turn to watch the clock."""

    __slots__ = ("called", "granted")

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.granted = False


class RateLimit:
    """``qps`` of 0 or less sets no limit."""

    def __init__(self, clock: Clock, qps: float, burst: int) -> None:
        self._clock = clock
        self._qps = float(qps)
        self._burst = float(max(burst, 1))
        self._tokens = self._burst
        self._at = clock.monotonic()
        self._flows: dict[str, deque[_Place]] = {}  # in the order of their turns
        self._waiting = 0
        self._watcher: _Place | None = None

    def change(self, qps: float, burst: int) -> None:
        """Go on by another limit; who waits goes by the new one from the next token on."""
        self._refill()
        self._qps = float(qps)
        self._burst = float(max(burst, 1))
        self._tokens = min(self._tokens, self._burst)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return self._waiting

    async def take(self, flow: str) -> None:
        """Wait until a request of this flow may go. Raises TooManyRequests."""
        if self._qps <= 0:
            return
        self._refill()
        if not self._waiting and self._tokens >= 1:
            self._tokens -= 1
            return
        if self._waiting >= MOST_WAITING:
            raise TooManyRequests(f"{self._waiting} requests wait for the API server already (kubeAPIConfig.qps)")
        place = _Place()
        self._flows.setdefault(flow, deque()).append(place)
        self._waiting += 1
        try:
            await self._wait(place)
        except BaseException:
            self._leave(flow, place)
            raise
        finally:
            self._pass_on(place)

    async def _wait(self, place: _Place) -> None:
        while not place.granted:
            if self._watcher is None:
                self._watcher = place
            if self._watcher is place:
                self._refill()
                if self._tokens < 1:
                    await self._clock.sleep(max((1 - self._tokens) / self._qps, _LEAST_S))
                    self._refill()
                self._grant()
            else:
                await place.called.wait()

    def _refill(self) -> None:
        now = self._clock.monotonic()
        if self._qps > 0:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._qps)
        else:  # there is no limit any more: all that wait may go
            self._tokens = max(self._burst, float(self._waiting))
        self._at = now

    def _grant(self) -> None:
        """Let requests go for all whole tokens, one of each flow in turn."""
        while self._tokens >= 1 and self._flows:
            flow, places = next(iter(self._flows.items()))
            del self._flows[flow]
            place = places.popleft()
            if places:
                self._flows[flow] = places  # to the end of the turns
            self._waiting -= 1
            self._tokens -= 1
            place.granted = True
            place.called.set()

    def _leave(self, flow: str, place: _Place) -> None:
        """Its caller gave up: whatever it held goes to the others."""
        if place.granted:
            self._tokens = min(self._burst, self._tokens + 1)
            return
        places = self._flows[flow]
        places.remove(place)
        self._waiting -= 1
        if not places:
            del self._flows[flow]

    def _pass_on(self, place: _Place) -> None:
        """If it was this one that watched the clock, another one does from now on."""
        if self._watcher is place:
            self._watcher = None
            if self._flows:
                self._watcher = next(iter(self._flows.values()))[0]
                self._watcher.called.set()
