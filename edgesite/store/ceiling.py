"""How high the revisions of a restored file may once have been: above it nobody is believed who says to have seen one.

A file that was restored from a backup lacks what was written after it, and those who saw that may say so (`Store.advance`). What they
can have seen is bounded by the time since the backup, so a liar wins nothing: over all its life a store's revisions stay below its
writes and `RATE` for each second together, far from what clients can count (2^53).

The ceiling is kept in the file, for who has seen most may come back after further restarts; the time is that of the last writes, noted
with whatever is written anyway. It never runs backwards: a clock that was ahead makes later ceilings lower.

Units   Seconds since the Unix epoch, whole; revisions.
Errors  None.
State   None.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MOST", "RATE", "SPARE", "ceiling"]

RATE: Final = 20_000  #: Revisions a second that no disk goes on writing for long.
SPARE: Final = 1 << 20  #: At each start, for bursts and for times that are noted now and then only.
MOST: Final = 1 << 40  #: At one start: a year and nine months at `RATE`. Also where no time was noted.


def ceiling(newest: int, *, before: int, noted_at: int, now: int) -> int:
    """Return the highest revision that a file may have given out whose newest is this. ``before``: the ceiling of the last start;
    ``noted_at`` 0: the file was written to, but does not say when."""
    if not newest and not noted_at:
        return SPARE  # it is new
    since = max(0, now - noted_at) if noted_at else MOST
    return max(before, newest + min(SPARE + since * RATE, MOST))
