"""An event loop in virtual time: no sockets, no threads, no waiting.

Units   Seconds from the start of the world.
Errors  Deadlock when everything waits and no timer is set; Livelock when time no longer advances.
State   `SimLoop.kill` removes a simulated process: nothing that runs in its context will ever run again, as after kill -9.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, Final

__all__ = ["PROCESS", "Deadlock", "Livelock", "SimLoop"]

PROCESS: ContextVar[object | None] = ContextVar("process", default=None)  #: whose code is running
MAX_STEPS_AT_ONCE: Final = 200_000  #: callbacks without any advance of time that count as a livelock


class Deadlock(RuntimeError):
    """Everything waits for something that cannot come."""


class Livelock(RuntimeError):
    """Callbacks go on without time advancing: something polls without sleeping."""


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks have the same order in every run."""

    _numbers = itertools.count()

    def __init__(self, *args: Any, context: Context | None = None, **kwargs: Any) -> None:
        self._number = next(self._numbers)
        self.process = PROCESS.get() if context is None else context.get(PROCESS)
        super().__init__(*args, context=context, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.BaseEventLoop):
    """With ``shuffle``, tasks that could run at the same moment do so in an order drawn from it."""

    def __init__(self, shuffle: random.Random | None = None) -> None:
        super().__init__()
        self.steps = 0
        self._now = 0.0
        self._clock_resolution = 1e-9
        self._shuffle = shuffle
        self._at_once = 0
        self._fuses: dict[object, list[Any]] = {}  # process -> [callbacks left, what then]
        self._dead: set[object] = set()
        self._graveyard: list[Any] = []
        _Task._numbers = itertools.count()
        self.set_task_factory(lambda loop, coro, **kwargs: _Task(coro, loop=loop, **kwargs))

    def time(self) -> float:
        return self._now

    def kill(self, process: object) -> None:
        """No callback or timer of ``process`` runs from now on; its tasks stay where they are."""
        self._fuses.pop(process, None)
        self._dead.add(process)
        for task in asyncio.all_tasks(self):
            if task.process is process:  # type: ignore[attr-defined]
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                self._graveyard.append(task)

    def light_fuse(self, process: object, callbacks: int, then: Callable[[], None]) -> None:
        """Call ``then`` when so many more callbacks of ``process`` have run: somewhere between two of its awaits."""
        self._fuses[process] = [callbacks, then]

    def put_out_fuses(self) -> None:
        """Nobody is killed any more who has not been."""
        self._fuses.clear()

    def bury(self) -> None:
        """Let go of what killed processes have left behind; the loop must be closed."""
        self._graveyard.clear()
        self._dead.clear()

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not scheduled:
                raise Deadlock(f"at {self._now:.3f} s everything waits and no timer is set")
            self._now = max(self._now, scheduled[0]._when)
            self._at_once = 0
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        if self._shuffle is not None and len(ready) > 1:
            self._shuffle_tasks()
        self._at_once += len(ready)
        if self._at_once > MAX_STEPS_AT_ONCE:
            self._at_once = 0
            raise Livelock(f"at {self._now:.3f} s time stands still; next is {ready[0]!r}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if self._dead and _process_of(handle) in self._dead:
                self._graveyard.append(handle)  # the destructors of what it holds must not run either
                continue
            self.steps += 1
            handle._run()
            if self._fuses:
                self._burn(_process_of(handle))
        handle = None

    def _burn(self, process: object | None) -> None:
        fuse = self._fuses.get(process)
        if fuse is not None:
            fuse[0] -= 1
            if fuse[0] <= 0:
                del self._fuses[process]
                fuse[1]()

    def _shuffle_tasks(self) -> None:
        """Permute the steps of tasks among their places; other callbacks keep theirs, as asyncio promises them."""
        ready = self._ready  # type: ignore[attr-defined]
        places = [place for place, handle in enumerate(ready) if _is_task_step(handle)]
        if len(places) < 2:
            return
        steps = [ready[place] for place in places]
        assert self._shuffle is not None
        self._shuffle.shuffle(steps)
        for place, step in zip(places, steps, strict=True):
            ready[place] = step

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers leave when they come to the top."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise RuntimeError(f"{func!r} was given to a thread behind the simulator's back: use ctx.threads")


def _process_of(handle: asyncio.Handle) -> object | None:
    context = handle._context  # type: ignore[attr-defined]
    return context.get(PROCESS) if context is not None else None


def _is_task_step(handle: asyncio.Handle) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)  # type: ignore[attr-defined]
