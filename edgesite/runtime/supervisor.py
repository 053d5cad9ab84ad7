"""Starts the modules of a role when what they need is ready, restarts one that crashes, stops them in reverse order.

A crash is logged with its traceback, counted and restarted with back-off; the others go on. A module that returns by itself
counts as crashed, and so does one that is ended by a cancellation of something else. Stopping is cancellation, one module after another, dependants first, ``grace_s`` in all for each.

Errors  MissingModule, graphlib.CycleError: the modules cannot be ordered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.cancellation import is_being_cancelled

if TYPE_CHECKING:
    import random

    from prometheus_client import Counter

    from edgesite.context import Clock, Module

__all__ = ["MissingModule", "ModuleExited", "ModuleState", "Running", "Supervisor", "names_of", "start_order"]

logger = logging.getLogger(__name__)
FIRST_BACKOFF_S: Final = 1.0
MOST_BACKOFF_S: Final = 60.0
STABLE_S: Final = 120.0  #: a module that ran this long starts again with the first back-off


class MissingModule(LookupError):
    """A module needs another that no plugin provides or that is switched off."""


class ModuleExited(RuntimeError):
    """A module returned without being asked to stop."""


class StrayCancellation(RuntimeError):
    """A module was ended by a cancellation that nobody had asked for: of something that it awaited."""


class ModuleState(StrEnum):
    WAITING = "waiting"  #: for modules that it needs
    STARTING = "starting"
    READY = "ready"
    CRASHED = "crashed"  #: waits for its next start
    STOPPED = "stopped"


def names_of(module: Module) -> frozenset[str]:
    """The names by which others may need this module: its own, and those that it ``stands_for``."""
    further: frozenset[str] = getattr(module, "stands_for", frozenset())
    return further | {module.name}


def start_order(modules: Iterable[Module]) -> list[Module]:
    """Return every module after those that it needs. Raises MissingModule, graphlib.CycleError."""
    chosen = {one.name: one for one in modules}
    owner = {name: one.name for one in chosen.values() for name in names_of(one)}
    for one in chosen.values():
        if missing := one.needs - owner.keys():
            raise MissingModule(
                f"{one.name} needs {', '.join(sorted(missing))}, which no plugin provides or which is off"
            )
    graph = {one.name: sorted(owner[need] for need in one.needs) for one in chosen.values()}
    return [chosen[name] for name in TopologicalSorter(graph).static_order()]


@dataclass(slots=True, eq=False)
class Running:
    """A module under supervision."""

    module: Module
    run: Callable[[Callable[[], None]], object]  #: given what to call when ready, returns the awaitable of one run
    state: ModuleState = ModuleState.WAITING
    error: str = ""
    crashes: int = 0
    ready: anyio.Event = field(default_factory=anyio.Event)  #: set at the first readiness, for those who need it
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def mark_ready(self) -> None:
        self.state, self.error = ModuleState.READY, ""
        self.ready.set()

    def problem(self) -> str | None:
        """None when the module serves, else what it waits for or why it crashed."""
        return None if self.state is ModuleState.READY else f"{self.state}{f': {self.error}' if self.error else ''}"


class Supervisor:
    """Keeps the modules of one role running. ``all_ready`` is set once, when each of them has been ready."""

    def __init__(
        self, running: Sequence[Running], *, clock: Clock, random: random.Random, crashes: Counter, label: str = ""
    ) -> None:
        order = start_order(one.module for one in running)
        by_name = {one.module.name: one for one in running}
        self.running = [by_name[module.name] for module in order]
        self.all_ready = anyio.Event()
        self._by_name = {name: one for one in running for name in names_of(one.module)}
        self._clock, self._random, self._crashes = clock, random, crashes
        self._label = f"{label}: " if label else ""

    async def run(self, *, grace_s: float = 10.0) -> None:
        """Serve until cancelled, then stop in order. ``grace_s`` is for each module."""
        async with anyio.create_task_group() as tasks:
            for one in self.running:
                tasks.start_soon(self._supervise, one, name=f"{self._label}{one.module.name}")
            tasks.start_soon(self._watch_ready)
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    for one in reversed(self.running):
                        await self._stop(one, grace_s)

    async def _stop(self, one: Running, grace_s: float) -> None:
        one.scope.cancel()
        with anyio.move_on_after(grace_s) as grace:
            await one.done.wait()
        if grace.cancelled_caught:
            logger.error("%s%s did not stop within %s s", self._label, one.module.name, grace_s)

    async def _watch_ready(self) -> None:
        for one in self.running:
            await one.ready.wait()
        self.all_ready.set()

    async def _supervise(self, one: Running) -> None:
        # Shielded: the order of the stop is decided by `run`, which cancels each scope in turn.
        try:
            with anyio.CancelScope(shield=True), one.scope:
                for name in sorted(one.module.needs):
                    await self._by_name[name].ready.wait()
                await self._keep_running(one)
        finally:
            one.state = ModuleState.STOPPED
            one.done.set()

    async def _keep_running(self, one: Running) -> None:
        delays = self._backoff()
        while True:
            one.state = ModuleState.STARTING
            started = self._clock.monotonic()
            failure: Exception
            try:
                await one.run(one.mark_ready)  # type: ignore[misc]
                failure = ModuleExited(f"{one.module.name} ended by itself")
            except asyncio.CancelledError as exc:
                if is_being_cancelled():
                    raise
                failure = StrayCancellation(f"{one.module.name} awaited what was cancelled")
                failure.__cause__ = exc
            except Exception as exc:
                failure = exc
            if self._clock.monotonic() - started >= STABLE_S:
                delays = self._backoff()
            delay_s = next(delays)
            one.state, one.error = ModuleState.CRASHED, _first_line(failure)
            one.crashes += 1
            self._crashes.labels(one.module.name).inc()
            self._say(one, failure, delay_s)
            await self._clock.sleep(delay_s)

    def _say(self, one: Running, exc: Exception, delay_s: float) -> None:
        # The machine's fault (port taken, disk full, no permission) needs words, ours needs the traceback too.
        trace = exc if logger.isEnabledFor(logging.DEBUG) or not isinstance(_root(exc), OSError) else None
        text = "%s%s crashed: %s; next start in %.1f s"
        logger.error(text, self._label, one.module.name, one.error, delay_s, exc_info=trace)

    def _backoff(self) -> Iterator[float]:
        delay_s = FIRST_BACKOFF_S
        while True:
            yield delay_s * (1 + 0.2 * self._random.random())
            delay_s = min(delay_s * 2, MOST_BACKOFF_S)


def _root(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _first_line(exc: BaseException) -> str:
    exc = _root(exc)
    text = str(exc).partition("\n")[0]
    return f"{type(exc).__name__}: {text}"[:200]


def cycle_text(exc: CycleError) -> str:
    """Words for modules that need each other in a circle."""
    return "these modules need each other in a circle: " + " → ".join(str(one) for one in exc.args[1])
