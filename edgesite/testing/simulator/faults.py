"""Faults of a site, drawn one after the other: kills, power cuts, cut and slow links, resets, full disks, clocks that jump."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from edgesite.testing.simulator.ledger import Ledger
from edgesite.testing.simulator.site import Host, Site
from edgesite.wire.message import Message

__all__ = ["Faults"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault; ``strike`` returns what mends it."""

    name: str
    weight: int
    strike: Callable[[Faults, Host], Callable[[], None]]


class Faults:
    """Strikes the site again and again until cancelled. Each fault is mended some time later."""

    def __init__(
        self, site: Site, rng: random.Random, *, pause_s: float, mend_s: float, ledger: Ledger | None = None
    ) -> None:
        self.site, self.rng, self.ledger = site, rng, ledger
        self.tasks: TaskGroup
        self._pause_s, self._mend_s = pause_s, mend_s

    async def run(self) -> None:
        faults = FAULTS if self.ledger is None else (*FAULTS, *LINK_FAULTS)
        async with anyio.create_task_group() as tasks:
            self.tasks = tasks
            while True:
                await anyio.sleep(self.rng.expovariate(1 / self._pause_s))
                fault = self.rng.choices(faults, [one.weight for one in faults])[0]
                host = self.rng.choice(self.site.hosts)
                self.site.world.trace(f"fault {fault.name} {host.machine.name}")
                self.site.world.count(fault.name)
                tasks.start_soon(self._mend_later, fault.strike(self, host))

    async def _mend_later(self, mend: Callable[[], None]) -> None:
        await anyio.sleep(self.rng.uniform(0.2, 2.0) * self._mend_s)
        mend()

    def other_end(self, host: Host) -> str:
        """With whom this host's link is."""
        if host is not self.site.cloud.host:
            return "cloud"
        others = [] if self.site.together else list(self.site.edges)
        return self.rng.choice([*others, "admin"])


def _kill(faults: Faults, host: Host) -> Callable[[], None]:
    host.kill()
    return host.start


def _stop(faults: Faults, host: Host) -> Callable[[], None]:
    if host.process is not None:
        host.machine.stop(host.process)
    return host.start


def _kill_between_awaits(faults: Faults, host: Host) -> Callable[[], None]:
    if host.process is not None and host.process.alive:
        process = host.process
        faults.site.world.loop.light_fuse(process, faults.rng.randint(1, 300), lambda: host.machine.kill(process))
    return host.start


def _power(faults: Faults, host: Host) -> Callable[[], None]:
    host.machine.power_off()
    return host.start


def _power_in_a_commit(faults: Faults, host: Host) -> Callable[[], None]:
    host.machine.disk.arm_power_cut(faults.rng.randint(1, 20))
    return host.start


def _cut(faults: Faults, host: Host) -> Callable[[], None]:
    network, here, there = faults.site.world.network, host.machine.name, faults.other_end(host)
    network.cut(here, there)
    return lambda: network.heal(here, there)


def _reset(faults: Faults, host: Host) -> Callable[[], None]:
    faults.site.world.network.reset(host.machine.name, faults.other_end(host))
    return lambda: None


def _slow(faults: Faults, host: Host) -> Callable[[], None]:
    link = faults.site.world.network.link(host.machine.name, faults.other_end(host))
    before = link.delay_s, link.jitter_s, link.loss
    link.delay_s, link.jitter_s, link.loss = faults.rng.choice([(0.5, 0.5, 0.0), (0.05, 0.02, 0.2), (2.0, 1.0, 0.05)])

    def mend() -> None:
        link.delay_s, link.jitter_s, link.loss = before

    return mend


def _full(faults: Faults, host: Host) -> Callable[[], None]:
    disk = host.machine.disk
    disk.full = True

    def mend() -> None:
        disk.full = False

    return mend


def _corrupt(faults: Faults, host: Host) -> Callable[[], None]:
    """The edge's database is damaged while edgesite is down; the cloud's has no other side to come back from."""
    host.kill()
    if host.machine.disk.corrupt("edgecore.db") and faults.ledger is not None:
        faults.ledger.damaged(host.machine.name)
    return host.start


def _clock(faults: Faults, host: Host) -> Callable[[], None]:
    clock = host.machine.clock
    jump = faults.rng.choice([-3600.0, -60.0, -5.0, 5.0, 60.0, 3600.0])
    clock.offset_s += jump

    def mend() -> None:
        clock.offset_s -= jump

    return mend


def _deafen(faults: Faults, host: Host) -> Callable[[], None]:
    """One direction alone is cut: which of the two, the seed decides."""
    network, ends = faults.site.world.network, [host.machine.name, faults.other_end(host)]
    faults.rng.shuffle(ends)
    network.deafen(*ends)
    return lambda: network.heal(*ends)


def _echo(faults: Faults, host: Host) -> Callable[[], None]:
    """Messages that an edge has stored come again, some time later and in another order."""
    name = faults.rng.choice(list(faults.site.edges))
    role, ledger = faults.site.edges[name], faults.ledger
    assert ledger is not None

    async def send(messages: list[Message]) -> None:
        for message in messages:
            if role.running and role.now is not None:
                await role.now.bus.send_group("meta", message)

    found = [ledger.echo(name, faults.rng.choice) for _ in range(faults.rng.randint(1, 8))]
    faults.tasks.start_soon(send, [one for one in found if one is not None])
    return lambda: None


FAULTS = (
    Fault("kill", 3, _kill),
    Fault("stop", 2, _stop),
    Fault("kill between awaits", 3, _kill_between_awaits),
    Fault("power", 2, _power),
    Fault("power in a commit", 1, _power_in_a_commit),
    Fault("cut", 4, _cut),
    Fault("reset", 2, _reset),
    Fault("slow", 2, _slow),
    Fault("full disk", 1, _full),
    Fault("clock", 1, _clock),
    Fault("corrupt", 1, _corrupt),
)

#: Of worlds that keep a `Ledger`.
LINK_FAULTS = (Fault("half-open", 3, _deafen), Fault("echo", 4, _echo))
