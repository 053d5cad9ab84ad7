"""Waiting longer after each failure, as kubelet does for restarts and for pulls.

Units   Seconds of a monotonic clock, except where a time of the wall clock is said.
State   In memory, one row per key; `forget_before` bounds it.
Source  Kubernetes: "Container restart policy": 10 s, doubled up to 300 s, reset after 10 minutes without trouble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["Backoff"]

K = TypeVar("K")
FIRST_S: Final = 10.0
MOST_S: Final = 300.0


@dataclass(slots=True)
class _Row:
    delay_s: float
    updated_at: float


class Backoff(Generic[K]):
    """Delays by key. ``now`` and ``since`` are on one clock of the caller's choice."""

    def __init__(self, first_s: float = FIRST_S, most_s: float = MOST_S) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._rows: dict[K, _Row] = {}

    def delay_s(self, key: K) -> float:
        """How long the key has to wait after its last failure; 0 after none."""
        row = self._rows.get(key)
        return row.delay_s if row else 0.0

    def waits_until(self, key: K, since: float, now: float) -> float | None:
        """When a failure that happened at ``since`` has been waited for, or None if that is past."""
        row = self._rows.get(key)
        if row is None or now - row.updated_at > 2 * self._most_s:
            return None
        until = min(since, now) + row.delay_s  # a clock that was set back must not make the wait longer
        return until if until > now else None

    def next(self, key: K, now: float) -> None:
        """Note another try: the wait after it is twice as long."""
        row = self._rows.get(key)
        if row is None or now - row.updated_at > 2 * self._most_s:
            self._rows[key] = _Row(self._first_s, now)
        else:
            self._rows[key] = _Row(min(row.delay_s * 2, self._most_s), now)

    def restore(self, key: K, tries: int, now: float) -> None:
        """Make up what is known after a restart of edgesite: ``tries`` earlier starts."""
        if tries > 0 and key not in self._rows:
            self._rows[key] = _Row(min(self._first_s * 2 ** min(tries - 1, 16), self._most_s), now)

    def forget(self, key: K) -> None:
        self._rows.pop(key, None)

    def forget_before(self, now: float) -> None:
        """Drop rows that no longer say anything."""
        self._rows = {key: row for key, row in self._rows.items() if now - row.updated_at <= 2 * self._most_s}
