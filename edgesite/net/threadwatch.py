"""Tells of worker threads that stand still: a call that neither computes, nor waits for the disk, nor wakes up any more. A restart of the
process repairs that, and nothing else does; what only takes long is left alone.

The kernel knows: such a thread sleeps (state S, a slow disk's is D), and between two looks it has used no processor time and has not
been switched to once.

Units   Seconds of a monotonic clock.
Errors  None: a thread that cannot be looked at is taken for well.
State   What each busy thread was like at the first look of those at which nothing has changed.
Source  proc(5): /proc/PID/task/TID/stat and status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from edgesite.net.threads import RealWorker

__all__ = ["ThreadWatch"]

_TASKS: Final = Path("/proc/self/task")
_SLEEPS: Final = "S"


class _Seen(NamedTuple):
    call: int  #: the how-manieth of its worker
    cpu: tuple[str, ...]
    switches: tuple[str, ...]


class ThreadWatch:
    """``patience_s`` is how long a call may stand still. Ask `problem` several times in that time."""

    def __init__(
        self, workers: Callable[[], Iterable[RealWorker]], now: Callable[[], float], patience_s: float
    ) -> None:
        self._workers, self._now, self._patience_s = workers, now, patience_s
        self._still: dict[RealWorker, tuple[_Seen, float]] = {}

    def problem(self) -> str | None:
        """Say which thread stands still; None if none does."""
        now, still = self._now(), {}
        for worker in self._workers():
            seen = _look(worker)
            if seen is None:
                continue
            before, since = self._still.get(worker, (seen, now))
            still[worker] = (seen, since if before == seen else now)
        self._still = still
        for worker, (_, since) in still.items():
            if now - since >= self._patience_s:
                return f"the thread {worker.name} has stood still for {now - since:.0f} s"
        return None


def _look(worker: RealWorker) -> _Seen | None:
    """What the worker's thread is like; None if it has nothing to do, or is at work."""
    call, thread = worker.running_call, worker.native_id
    if not call or thread is None:
        return None
    try:
        stat = (_TASKS / str(thread) / "stat").read_text().rpartition(")")[2].split()
        status = (_TASKS / str(thread) / "status").read_text().splitlines()
    except OSError:
        return None
    if stat[0] != _SLEEPS:
        return None
    switches = tuple(line for line in status if "ctxt_switches" in line)
    return _Seen(call, tuple(stat[11:13]), switches)
