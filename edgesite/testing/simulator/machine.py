"""Machines and the processes on them: what a crash takes and what it leaves.

A killed process leaves its disk writes and its kernel's sockets behind; a machine that loses power loses what was not synced,
and tells nobody. Containers survive the first and not the second: see `Machine.at_power_off`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesite.testing.simulator.clock import SimClock
from edgesite.testing.simulator.disk import Disk, SimDisk
from edgesite.testing.simulator.files import PlainFiles
from edgesite.testing.simulator.loop import PROCESS
from edgesite.testing.simulator.network import Endpoint
from edgesite.testing.simulator.threads import Pace, SimThreads
from edgesite.testing.simulator.transport import SimNet

if TYPE_CHECKING:
    from edgesite.testing.simulator.world import World

__all__ = ["Machine", "Process"]

Main = Callable[["Process"], Coroutine[Any, Any, None]]


class Process:
    """One run of one program. Its ``net``, ``disk``, ``threads`` and ``random`` go into a `Context`."""

    def __init__(self, machine: Machine, name: str, number: int) -> None:
        world = machine.world
        self.name = f"{machine.name}/{name}#{number}"
        self.machine = machine
        self.alive = True
        self.stopping = False
        self.random = random.Random(f"{world.seed}/{self.name}")
        self.endpoint = Endpoint(machine.name, self)
        self.net = SimNet(world.network, self.endpoint, world.identities.peercert)
        self.disk = SimDisk(machine.disk)
        self.threads = SimThreads(world.loop, Pace(self.random, slow_share=world.slow_share))
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return self.name


class Machine:
    """A computer: clock, disk, address, and the processes that run now."""

    def __init__(self, world: World, name: str, data_dir: Path, clock_offset_s: float = 0.0) -> None:
        self.world, self.name, self.data_dir = world, name, data_dir
        self.clock = SimClock(world.loop, clock_offset_s)
        self.disk = Disk(random.Random(f"{world.seed}/{name}/disk"), self.clock.time)
        self.disk.on_power_cut = self._power_fails
        self.files = PlainFiles(data_dir, random.Random(f"{world.seed}/{name}/files"))
        self.address = f"10.0.0.{len(world.machines) + 1}"
        self.boots = 1
        self.processes: list[Process] = []
        self.at_death: list[Callable[[Process], None]] = []  #: looks at the world a moment before a process is gone
        self.at_power_off: list[Callable[[], None]] = []  #: ends what lives outside of our processes: containers
        self._starts = 0
        world.network.hosts[name] = world.network.hosts[self.address] = name
        world.network.powered.add(name)

    @property
    def on(self) -> bool:
        return self.name in self.world.network.powered

    def start(self, name: str, main: Main) -> Process:
        """Run a program; switches the machine on if need be."""
        self.world.network.powered.add(self.name)
        self._starts += 1
        process = Process(self, name, self._starts)
        self.world.trace(f"process start {process}")
        context = copy_context()
        context.run(PROCESS.set, process)
        process.task = self.world.loop.create_task(main(process), context=context)
        process.task.add_done_callback(lambda task: self._ended(process, task), context=self.world.network.context)
        self.processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """As kill -9 does."""
        if process.alive:
            self.world.trace(f"process kill {process}")
            self._remove(process)
            self.world.network.process_died(process.endpoint)

    def stop(self, process: Process) -> None:
        """As SIGTERM does: the program is asked to end, and does so by itself some time later."""
        if process.alive and process.task is not None:
            self.world.trace(f"process stop {process}")
            process.stopping = True
            process.task.cancel()

    def power_off(self) -> None:
        """Everything stops; what was not synced is lost."""
        if not self.on:
            return
        self.world.trace(f"machine off {self.name}")
        self.world.network.machine_died(self.name)
        for process in list(self.processes):
            self._remove(process)
        self.disk.power_cut()
        self.files.power_cut()
        self.boots += 1
        for end in self.at_power_off:
            end()

    def _power_fails(self) -> None:
        """The disk has frozen in the middle of something: the rest follows as soon as the code that wrote returns."""
        self.world.loop.call_soon(self.power_off, context=self.world.network.context)

    def _remove(self, process: Process) -> None:
        for look in self.at_death:
            look(process)
        process.alive = False
        process.endpoint.alive = False
        self.world.loop.kill(process)
        process.disk.die()
        self.processes.remove(process)

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        """The program returned by itself, after `stop`, or crashed."""
        if not process.alive:
            return
        error = None if task.cancelled() else task.exception()
        self.world.trace(f"process end {process} {error!r}")
        if error is not None:
            self.world.crashed(process, error)
        elif left := self._left_behind(process):
            self.world.crashed(process, AssertionError(f"{process} ended and left behind {left}"))
        self._remove(process)
        self.world.network.process_died(process.endpoint)

    def _left_behind(self, process: Process) -> str | None:
        """A program that ends must have ended its tasks, closed its databases and given up its ports."""
        tasks = [one.get_coro() for one in asyncio.all_tasks(self.world.loop) if one.process is process]  # type: ignore[attr-defined]
        if tasks:
            return f"tasks {sorted(getattr(one, '__qualname__', str(one)) for one in tasks)}"
        if databases := process.disk.open_databases():
            return f"databases {databases}"
        ports = [at for at, listening in self.world.network.ports.items() if listening.owner is process.endpoint]
        return f"ports {ports}" if ports else None
