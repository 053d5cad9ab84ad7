"""A simulated site: one cloud, some edges, an administrator's machine; starting, breaking and mending them.

Units   Seconds of virtual time.
Errors  Violation from `Site.until` when something does not come to pass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from edgesite.testing.simulator.roles import cloud_main, edge_main
from edgesite.testing.simulator.world import Violation, World

__all__ = ["Node", "Site"]

STORAGE_FAILS: Final = "the storage does not accept writes"  #: the one 500 that may be: the cloud's disk is full
CALL_S: Final = 20.0  #: deadline of one call of the administrator


class Node:
    """A machine and the role that runs on it; ``role`` is that of the last start."""

    def __init__(self, world: World, machine: Machine, name: str) -> None:
        self.machine, self.name = machine, name
        self.role: RoleHost | None = None
        self.started = anyio.Event()  #: set, and made anew, at each start
        self.process: Process | None = None
        self._world = world
        self._main: Callable[[Process], Any] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def ready(self) -> bool:
        return self.running and self.role is not None and self.role.ready.is_set()

    def start(self, main: Callable[[Process], Any] | None = None) -> None:
        """Start the role unless it runs; the first time ``main`` is needed."""
        self._main = main or self._main
        assert self._main is not None
        if not self.running:
            self.process = self.machine.start(self.name, self._main)
            self.started.set()
            self.started = anyio.Event()

    def kill(self) -> None:
        if self.process is not None:
            self.machine.kill(self.process)

    def took(self, role: RoleHost) -> None:
        self.role = role


class Site:
    """Machines "cloud", "edge-1" ..., "admin". Containers live in ``engines``, by node."""

    def __init__(self, world: World, edges: int) -> None:
        self.world = world
        self.cloud = Node(world, world.machine("cloud"), "cloudcore")
        self.edges = {
            name: Node(world, world.machine(name), "edgecore") for name in (f"edge-{n + 1}" for n in range(edges))
        }
        self.admin = Process(world.machine("admin"), "kubectl", 0)
        self.engines = {name: self._engine(node.machine) for name, node in self.edges.items()}
        self.token = ""
        self._transports: dict[str, HttpTransport] = {}

    @property
    def nodes(self) -> Iterator[Node]:
        yield self.cloud
        yield from self.edges.values()

    def _engine(self, machine: Machine) -> FakeEngine:
        starts = StartWatcher(self.world, machine)
        engine = FakeEngine(machine.clock, script, latency_s=0.02, started=starts)
        starts.engine = engine
        machine.at_power_off.append(engine.reboot)
        return engine

    def start_cloud(self) -> None:
        self.cloud.start(lambda process: cloud_main(process, self.cloud.took))

    def start_edge(self, name: str) -> None:
        node, engine = self.edges[name], self.engines[name]
        node.start(lambda process: edge_main(process, self.token, lambda: engine, node.took))

    @asynccontextmanager
    async def client(self, component: str = "kubectl") -> AsyncIterator[Client]:
        """The administrator's client, over the network, with the certificate of admin.kubeconfig; connections are kept."""
        if component not in self._transports:
            access = load(self.cloud.machine.data_dir / "admin.kubeconfig")
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
        for node in self.nodes:
            node.machine.clock.offset_s = 0.0
            node.machine.disk.mend()
            node.start()


def script(config: ContainerConfig) -> Script:
    """Programs run until they are stopped; those called "crash" fail after a while, again and again."""
    return Script(run_s=45.0, exit_code=1) if config.name == "crash" else Script()


class StartWatcher:
    """No container is started while the one before still runs, nor again unless that ended by itself or with the machine."""

    def __init__(self, world: World, machine: Machine) -> None:
        self.engine: FakeEngine | None = None
        self._world, self._machine = world, machine
        self._ends: dict[tuple[str, str], int] = {}  # (pod uid, container) -> ends that its program has by itself

    def __call__(self, container: FakeContainer) -> None:
        assert self.engine is not None
        config, node = container.config, self._machine.name
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
        if config.attempt >= self._machine.boots + ends:
            self._fail(
                f"{node}: {name} of pod {pod} is started for the {config.attempt + 1}th time, boots: {self._machine.boots}"
            )

    def _fail(self, what: str) -> None:
        self._world.fail(Violation(what))  # raised here it would only be one more fault to the node
