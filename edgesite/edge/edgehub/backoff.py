"""How long to wait before the cloud is dialled again.

    the link is lost        at once, with up to a second of jitter, for most losses are short
    then                    doubling, but in the first ``NEAR_FOR_S`` never more than ``NEAR_S``: a cloud on the same network that
                            was restarted has its nodes back soon after; later up to ``MOST_S``
    the cloud has said no   doubling up to ``MOST_S`` from the first time; its Retry-After is the least

A cloud tells over which time its nodes shall come back when all lost it at once (``spread_s``): it is added to the first wait,
and the later ones are not shorter.

Units   Seconds; ``now`` is monotonic.
State   Since when there is no link, and how often it was tried.
"""

from __future__ import annotations

import random
from typing import Final

__all__ = ["Backoff"]

FIRST_S: Final = 1.0
NEAR_S: Final = 2.0
NEAR_FOR_S: Final = 120.0
MOST_S: Final = 30.0
_STABLE_S: Final = 10.0  #: a link that held this long was one
_RETRY_AFTER_MOST_S: Final = 600.0


class Backoff:
    """``first_s`` and ``most_s`` replace the whole scheme within one process, where a try costs nothing."""

    def __init__(self, draw: random.Random, now: float, *, first_s: float = FIRST_S, most_s: float = MOST_S) -> None:
        self._random = draw
        self._first_s, self._most_s = first_s, most_s
        self._since = now
        self._tries = 0
        self._spread_s = 0.0

    def held(self, now: float, seconds: float, spread_s: float) -> None:
        """A link is lost that held so long."""
        self._spread_s = spread_s
        if seconds >= _STABLE_S:
            self._since, self._tries = now, 0

    def wait_s(self, now: float, *, refused: bool = False, retry_after_s: float = 0.0) -> float:
        """Return how long to wait now. ``refused``: the cloud has answered, and said no."""
        draw = self._random.random()
        tries, self._tries = self._tries, self._tries + 1
        if tries == 0 and not refused:
            return self._first_s * draw + self._spread_s * self._random.random()
        wait = self._first_s * 2.0 ** min(tries, 16)
        if not refused and now - self._since < NEAR_FOR_S:
            wait = min(wait, max(NEAR_S, self._spread_s))
        wait = min(wait, self._most_s) * (0.5 + draw / 2)
        return max(wait, min(retry_after_s, _RETRY_AFTER_MOST_S) * (1.0 + 0.1 * draw))
