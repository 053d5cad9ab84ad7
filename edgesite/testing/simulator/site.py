"""A simulated site: one cloud, some edges, an administrator's machine; starting, breaking and mending them.

Units   Seconds of virtual time.
Errors  Violation from `Site.until` when something does not come to pass.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import isfinite
from typing import Any, Final

import anyio

from edgesite.client import Client
from edgesite.client.http import HttpTransport
from edgesite.client.kubeconfig import load
from edgesite.edge.edged.runtime import ContainerConfig
from edgesite.kube.errors import ApiError
from edgesite.runtime.role import RoleHost
from edgesite.testing.fakeruntime import FakeContainer, FakeEngine, Script
from edgesite.testing.simulator.machine import Machine, Process
from edgesite.testing.simulator.roles import cloud_main, edge_main, together_main
from edgesite.testing.simulator.world import Violation, World

__all__ = ["STORAGE_FAILS", "Host", "Role", "Site"]

STORAGE_FAILS: Final = "the storage does not accept writes"  #: the one 500 that may be: the cloud's disk is full
CALL_S: Final = 20.0  #: deadline of one call of the administrator


class Host:
    """A machine and the program that runs on it."""

    def __init__(self, machine: Machine, name: str, main: Callable[[Process], Any]) -> None:
        self.machine = machine
        self.started = anyio.Event()  #: set, and made anew, at each start
        self.process: Process | None = None
        self._name, self._main = name, main

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """Start the program unless it runs; one that has been asked to stop has had its time."""
        if self.process is not None and self.process.stopping:
            self.kill()
        if not self.running:
            self.process = self.machine.start(self._name, self._main)
            self.started.set()
            self.started = anyio.Event()

    def kill(self) -> None:
        if self.process is not None:
            self.machine.kill(self.process)


class Role:
    """A role, cloud or edge, of the last start of its host."""

    def __init__(self) -> None:
        self.host: Host
        self.now: RoleHost | None = None

    @property
    def running(self) -> bool:
        return self.host.running and self.now is not None

    @property
    def ready(self) -> bool:
        return self.running and self.now is not None and self.now.ready.is_set()

    def took(self, role: RoleHost) -> None:
        self.now = role


class Site:
    """The cloud, edges by the name of their node, the administrator's machine "admin". Containers live in ``engines``, by node."""

    def __init__(self, world: World, edges: int, *, together: bool = False, metaserver: bool = False) -> None:
        """Each role has a machine of its own, "cloud", "edge-1" ..., or all of them are in one process on "cloud". ``metaserver``: edges
        serve the API."""
        self.world = world
        self.cloud = Role()
        self.edges = {f"edge-{n + 1}": Role() for n in range(edges)}
        self.engines: dict[str, FakeEngine] = {}
        self.starts: dict[str, StartWatcher] = {}
        self.together = together
        self.metaserver = metaserver
        self.token = ""
        self._transports: dict[str, HttpTransport] = {}
        self._place()
        self.admin = Process(world.machine("admin"), "kubectl", 0)
        for name, edge in self.edges.items():
            self.engines[name] = self._engine(name, edge.host.machine)

    def _place(self) -> None:
        """Make the machines and say what runs on them."""
        machine = self.world.machine("cloud")
        if self.together:
            names = list(self.edges)
            took = {"": self.cloud.took, **{name: edge.took for name, edge in self.edges.items()}}
            shared = Host(machine, "edgesite", lambda process: together_main(process, names, self.engines, took))
            for role in (self.cloud, *self.edges.values()):
                role.host = shared
            return
        self.cloud.host = Host(
            machine, "cloudcore", lambda process: cloud_main(process, self.cloud.took, metaserver=self.metaserver)
        )
        for name, edge in self.edges.items():
            edge.host = Host(self.world.machine(name), "edgecore", functools.partial(self._edge_main, name))

    async def _edge_main(self, name: str, process: Process) -> None:
        await edge_main(process, self.token, self.engines, self.edges[name].took, metaserver=self.metaserver)

    @property
    def hosts(self) -> list[Host]:
        return list(dict.fromkeys(role.host for role in (self.cloud, *self.edges.values())))

    def _engine(self, node: str, machine: Machine) -> FakeEngine:
        starts = self.starts[node] = StartWatcher(self.world, node, machine)
        engine = FakeEngine(machine.clock, script, latency_s=0.02, started=starts)
        starts.engine = engine
        machine.at_power_off.append(engine.reboot)
        return engine

    @asynccontextmanager
    async def client(self, component: str = "kubectl") -> AsyncIterator[Client]:
        """The administrator's client, over the network, with the certificate of admin.kubeconfig; connections are kept."""
        if component not in self._transports:
            access = load(self.cloud.host.machine.data_dir / "admin.kubeconfig")
            self._transports[component] = HttpTransport(self.admin.net, self.admin.machine.clock, access)
        yield Client(self._transports[component], component=component)

    async def call(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """One call of the administrator; None if it failed. A 500 is nobody's fault but ours."""
        try:
            with anyio.fail_after(CALL_S):
                return await work()
        except ApiError as exc:
            self.world.count(f"api {exc.code}")
            if exc.code == 500 and STORAGE_FAILS not in exc.message:
                raise Violation(f"the API server answered 500: {exc.message}") from exc
        except TimeoutError:
            self.world.count("api timeout")
        return None

    async def until(self, what: str, holds: Callable[[], Awaitable[str | None]], within_s: float) -> None:
        """Wait until ``holds`` returns None; else it says what is still missing. Raises Violation."""
        deadline = self.world.loop.time() + within_s
        missing: str | None = "never looked"
        while True:
            missing = await holds()
            if missing is None:
                self.world.trace(f"now {what}")
                return
            if self.world.loop.time() >= deadline:
                raise Violation(f"not {what} within {within_s:.0f} s: {missing}")
            await anyio.sleep(1.0)

    def mend(self) -> None:
        """End all faults and start what is down."""
        self.world.network.mend()
        self.world.loop.put_out_fuses()
        for host in self.hosts:
            host.machine.clock.offset_s = 0.0
            host.machine.disk.mend()
            host.start()


def script(config: ContainerConfig) -> Script:
    """Programs run until they are stopped; those called "crash" fail after a while, again and again, and a "job" ends well."""
    if config.name == "job":
        return Script(run_s=120.0)
    return Script(run_s=45.0, exit_code=1) if config.name == "crash" else Script()


class StartWatcher:
    """No container is started while the one before still runs, nor again unless that ended by itself or with the machine."""

    def __init__(self, world: World, node: str, machine: Machine) -> None:
        self.engine: FakeEngine | None = None
        self._again = 0
        self._world, self._node, self._machine = world, node, machine
        self._ends: dict[tuple[str, str], int] = {}  # (pod uid, container) -> ends that its program has by itself

    def wanted_again(self) -> None:
        """Pods that have ended may be started once more: the cloud has forgotten that they did."""
        self._again += 1

    def __call__(self, container: FakeContainer) -> None:
        assert self.engine is not None
        config, node = container.config, self._node
        uid, name = config.labels.get("io.kubernetes.pod.uid", ""), config.name
        pod = container.sandbox.config.name
        self._world.trace(f"container start {node} {pod} {name} attempt {config.attempt}")
        self._world.count("container starts")
        for other in self.engine.containers.values():
            same = other.config.name == name and other.config.labels.get("io.kubernetes.pod.uid") == uid
            if same and other is not container and other.state.value == "running":
                self._fail(f"{node}: {name} of pod {pod} is started twice: {other.id} and {container.id}")
        ends = self._ends.get((uid, name), 0)
        self._ends[uid, name] = ends + isfinite(container.script.run_s)
        if config.attempt >= self._machine.boots + ends + self._again:
            self._fail(
                f"{node}: {name} of pod {pod} is started for the {config.attempt + 1}th time, boots: {self._machine.boots}"
            )

    def _fail(self, what: str) -> None:
        self._world.fail(Violation(what))  # raised here it would only be one more fault to the node
