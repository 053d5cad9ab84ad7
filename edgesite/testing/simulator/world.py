"""A world: one loop, one network, machines, a trace. A scenario runs in it and says what must hold.

Errors  Violation when an invariant is broken; any other exception of the scenario is a failure too. `run` returns an `Outcome`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgesite.testing.simulator.determinism import pinned
from edgesite.testing.simulator.files import syncing
from edgesite.testing.simulator.loop import SimLoop
from edgesite.testing.simulator.machine import Machine, Process
from edgesite.testing.simulator.network import Network
from edgesite.testing.simulator.pki import Identities
from edgesite.testing.simulator.trace import Trace

__all__ = ["Outcome", "Scenario", "Violation", "World", "run"]


#: Delay and jitter of links, in seconds: a cable, a town, a satellite.
DELAYS: Final = ((0.0005, 0.0), (0.01, 0.005), (0.01, 0.005), (0.3, 0.05))


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one seed went. ``digest`` is the same in every run of it."""

    seed: int
    digest: str
    virtual_s: float
    steps: int
    failure: str | None = None
    last_lines: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


Scenario = Callable[["World"], Coroutine[Any, Any, None]]


class World:
    """What a scenario works with. Draw all that is random from ``rng``."""

    def __init__(self, seed: int, root: Path, *, echo: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(f"{seed}/world")
        self.loop = SimLoop(random.Random(f"{seed}/order") if self.rng.random() < 0.5 else None)
        self.trace = Trace(self.loop.time, self.fail, str(root), echo=echo)
        self.identities = Identities()
        self.network = Network(self.loop, random.Random(f"{seed}/network"), self.trace)
        self.network.default.delay_s, self.network.default.jitter_s = self.rng.choice(DELAYS)
        self.slow_share = self.rng.choice([0.0, 0.0, 0.01, 0.05])
        self.machines: dict[str, Machine] = {}
        self.counts: dict[str, int] = {}
        self._root = root
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    def machine(self, name: str, *, clock_offset_s: float = 0.0) -> Machine:
        """Add a machine, switched on, reachable under its name."""
        data_dir = self._root / name
        data_dir.mkdir(mode=0o700)
        machine = self.machines[name] = Machine(self, name, data_dir, clock_offset_s)
        return machine

    def count(self, what: str, number: int = 1) -> None:
        """Tally, so that a run can be seen to have done something."""
        self.counts[what] = self.counts.get(what, 0) + number

    def crashed(self, process: Process, error: BaseException) -> None:
        """A program ended with an exception that nobody handled."""
        self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the world: the scenario has failed."""
        if self._failure is None:
            self._failure = error
            self.trace(f"failure {type(error).__name__}: {error}")
        self._failed.set()

    async def play(self, scenario: Scenario) -> None:
        """Run the scenario until its end or the first failure. Raises what failed."""
        playing = asyncio.ensure_future(scenario(self))
        failing = asyncio.ensure_future(self._failed.wait())
        await asyncio.wait([playing, failing], return_when=asyncio.FIRST_COMPLETED)
        for task in (playing, failing):
            task.cancel()
        results = await asyncio.gather(playing, failing, return_exceptions=True)
        if self._failure is not None:
            raise self._failure
        if isinstance(results[0], BaseException):
            raise results[0]

    def end(self) -> None:
        """Stop everything and give back what SQLite and the file system hold."""
        for machine in self.machines.values():
            for process in list(machine.processes):
                machine.kill(process)
        self.loop.close()
        for machine in self.machines.values():
            machine.disk.close()


def run(scenario: Scenario, seed: int, *, echo: bool = False) -> Outcome:
    """Play one seed."""
    root = Path(tempfile.mkdtemp(prefix="edgesite-sim-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    world = World(seed, root, echo=echo)
    failure = None
    try:
        with (
            pinned(world.loop, seed),
            world.identities.watching(),
            _logging_to(world.trace),
            _watched(world),
            _files_of(world),
        ):
            try:
                world.loop.run_until_complete(world.play(scenario))
            except BaseException as exc:
                if isinstance(exc, KeyboardInterrupt | SystemExit):
                    raise
                failure = "".join(traceback.format_exception(exc))
            finally:
                world.end()
        return Outcome(
            seed,
            world.trace.digest(),
            world.loop.time(),
            world.loop.steps,
            failure,
            tuple(world.trace.last),
            world.counts,
        )
    finally:
        with _quiet():
            world.loop.bury()
            del world
            gc.collect()
        shutil.rmtree(root, ignore_errors=True)


def _files_of(world: World) -> AbstractContextManager[None]:
    return syncing(lambda: (one.files for one in world.machines.values()))


@contextmanager
def _watched(world: World) -> Iterator[None]:
    """A task or callback whose exception nobody takes fails the world."""

    def handle(loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
        error = details.get("exception")
        world.trace(f"unhandled {details.get('message')}: {error!r}")
        world.fail(error or Violation(str(details.get("message"))))

    world.loop.set_exception_handler(handle)
    yield


@contextmanager
def _logging_to(trace: Trace) -> Iterator[None]:
    """Records of our modules go into the trace and nowhere else."""
    logger = logging.getLogger("edgesite")
    state = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [trace], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = state[0], state[1]
        logger.setLevel(state[2])


@contextmanager
def _quiet() -> Iterator[None]:
    """Destructors of killed coroutines may complain as they like."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        sys.unraisablehook = hook
