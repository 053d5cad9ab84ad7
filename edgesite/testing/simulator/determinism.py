"""What would make two runs of one seed differ: the real clock, real randomness, memory addresses as hashes.

`pinned` puts deterministic stand-ins under the few functions that libraries (not our modules, which use their context) may call.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from anyio._backends import _asyncio as backend

from edgesite.edge.edged.hostcheck import SWITCH
from edgesite.testing.simulator.loop import SimLoop

__all__ = ["EPOCH", "pinned"]

EPOCH: Final = 1_767_225_600.0  #: wall clock at the start of a world: 2026-01-01T00:00:00Z


class _Scope(backend.CancelScope):
    """A cancel scope whose hash is its number: anyio cancels the members of sets of them."""

    __slots__ = ("_number",)
    _number: int
    numbers = itertools.count()

    def __hash__(self) -> int:
        if not hasattr(self, "_number"):
            self._number = next(self.numbers)
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


@contextmanager
def pinned(loop: SimLoop, seed: int) -> Iterator[None]:
    """Inside, the same code does the same things."""
    noise = random.Random(f"{seed}/noise")
    _Scope.numbers = itertools.count()

    def clock() -> float:
        return EPOCH + loop.time()

    stands: list[tuple[Any, str, Any]] = [
        (backend, "CancelScope", _Scope),
        (time, "time", clock),
        (time, "time_ns", lambda: int(clock() * 1e9)),
        (time, "monotonic", loop.time),
        (time, "monotonic_ns", lambda: int(loop.time() * 1e9)),
        (os, "urandom", noise.randbytes),
        (uuid, "uuid4", lambda: uuid.UUID(bytes=noise.randbytes(16), version=4)),
    ]
    looks_at_host = os.environ.get(SWITCH)
    os.environ[SWITCH] = "false"  # which processes run on this host is nobody's business
    state = random.getstate()
    random.seed(seed)
    collecting = gc.isenabled()
    gc.disable()  # finalisers must not run at a moment that depends on what ran before
    try:
        with _replaced(stands):
            yield
    finally:
        _forget_tasks(loop)
        if looks_at_host is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = looks_at_host
        random.setstate(state)
        if collecting:
            gc.enable()


def _forget_tasks(loop: SimLoop) -> None:
    """anyio remembers each task until it ends; those of killed processes never do."""
    for task in [one for one in backend._task_states if one.get_loop() is loop]:
        del backend._task_states[task]


@contextmanager
def _replaced(stands: list[tuple[Any, str, Callable[..., Any]]]) -> Iterator[None]:
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in stands]
    try:
        for owner, name, stand in stands:
            setattr(owner, name, stand)
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
