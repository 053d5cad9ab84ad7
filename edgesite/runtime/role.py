"""One role, cloud or edge: its modules, bus, services, health and metrics. The simulator runs roles just as the program does."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from graphlib import CycleError
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from edgesite.context import Context, Section
from edgesite.runtime.bus import LocalBus
from edgesite.runtime.health import RoleHealth
from edgesite.runtime.live import Taken, hand_over
from edgesite.runtime.services import LocalServices, ModuleBus, ModuleServices
from edgesite.runtime.supervisor import MissingModule, Running, Supervisor, cycle_text, names_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import anyio

    from edgesite.context import Clock, Disk, Folders, Module, Net, Role, Threads
    from edgesite.hookspecs import Hooks

__all__ = ["RoleHost", "World"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """What a role runs on: the real machine, or a simulated one."""

    clock: Clock
    random: random.Random
    net: Net
    threads: Threads
    disk: Disk
    hooks: Hooks
    site: Mapping[str, Any] = field(default_factory=dict)
    folders: Folders | None = None


class RoleHost:
    """Runs the modules of one role instance. ``ready`` is set when all of them are."""

    def __init__(
        self,
        role: Role,
        modules: Iterable[type[Module]],
        settings: Section,
        world: World,
        *,
        data_dir: Path,
        node_name: str = "",
        refuse: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self.role: Role = role
        self.node_name = node_name
        self.settings = settings
        self.data_dir = data_dir
        self.bus = LocalBus()
        self.services = LocalServices()
        self.health = RoleHealth()
        self.metrics = CollectorRegistry()
        self._world = world
        self._label = node_name or role
        chosen = _wanted(role, modules, settings, refuse)
        running = [Running(module, self._runner(module)) for module in chosen]
        self._supervisor = self._supervise(running, refuse)
        for one in self._supervisor.running:
            self.health.add_check(f"module/{one.module.name}", one.problem)

    @property
    def ready(self) -> anyio.Event:
        return self._supervisor.all_ready

    @property
    def running(self) -> list[Running]:
        """The modules in the order of their start."""
        return self._supervisor.running

    async def run(self, *, grace_s: float = 10.0) -> None:
        """Serve until cancelled."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._supervisor.run(grace_s=grace_s)

    def reload(self, values: Mapping[str, Any]) -> Taken:
        """Let the modules take over what they can of the role's settings as they are now; the rest stays as it was at the start."""
        self.settings, taken = hand_over([one.module for one in self.running], self.settings, values)
        return taken

    def _supervise(self, running: list[Running], refuse: Callable[[str, BaseException], None] | None) -> Supervisor:
        crashes = Counter("edgesite_module_crashes", "Crashes of modules", ["module"], registry=self.metrics)
        up = Gauge("edgesite_module_ready", "Whether a module is ready", ["module"], registry=self.metrics)
        while True:  # a module of a plugin whose needs cannot be met is left out, not the site with it
            try:
                supervisor = Supervisor(
                    running,
                    clock=self._world.clock,
                    random=self._world.random,
                    crashes=crashes,
                    label=self._label,
                )
                break
            except (MissingModule, CycleError) as exc:
                unmet = {one.module.name: why for one in running if (why := _why_not(one, running, exc))}
                if not unmet or refuse is None:
                    raise
                for name, why in unmet.items():
                    refuse(name, MissingModule(why))
                running = [one for one in running if one.module.name not in unmet]
        for one in running:
            up.labels(one.module.name).set_function(lambda one=one: float(one.problem() is None))  # type: ignore[misc]
        return supervisor

    def _runner(self, module: Module) -> Callable[[Callable[[], None]], object]:
        async def run(ready: Callable[[], None]) -> None:
            with self._context(module, ready) as ctx:
                await module.run(ctx)

        return run

    @contextmanager
    def _context(self, module: Module, ready: Callable[[], None]) -> Iterator[Context]:
        bus, services = ModuleBus(self.bus), ModuleServices(self.services)
        log = logging.getLogger(f"edgesite.{module.name}")
        world = self._world
        ctx = Context(
            role=self.role,
            module=module.name,
            node_name=self.node_name,
            config=_at(self.settings, module.section),
            settings=self.settings,
            data_dir=self.data_dir,
            clock=world.clock,
            random=world.random,
            net=world.net,
            threads=world.threads,
            disk=world.disk,
            bus=bus,
            services=services,
            health=self.health,
            metrics=self.metrics,
            log=logging.LoggerAdapter(log, {"node": self.node_name}) if self.node_name else log,
            hooks=world.hooks,
            ready=ready,
            site=world.site,
            folders=world.folders,
        )
        try:
            yield ctx
        finally:
            bus.leave_all()
            services.withdraw_all()


def _wanted(
    role: Role, modules: Iterable[type[Module]], settings: Section, refuse: Callable[[str, BaseException], None] | None
) -> list[Module]:
    chosen: dict[str, Module] = {}
    for kind in modules:
        try:
            if role not in kind.roles:
                continue
            module = kind()
            if module.enabled(settings):
                if module.name in chosen:
                    raise ValueError(f"a module named {module.name} is there already")
                chosen[module.name] = module
        except Exception as exc:
            if refuse is None:
                raise
            refuse(getattr(kind, "name", kind.__name__), exc)
    return list(chosen.values())


def _why_not(one: Running, running: list[Running], exc: Exception) -> str:
    """Why this module cannot start beside the others; "" if it can."""
    if isinstance(exc, CycleError):
        return cycle_text(exc) if one.module.name in exc.args[1] else ""
    missing = one.module.needs.difference(*(names_of(other.module) for other in running))
    return f"needs {', '.join(sorted(missing))}, which no plugin provides or which is off" if missing else ""


def _at(settings: Section, path: str) -> Section:
    found: Any = settings
    for name in path.split(".") if path else ():
        found = found.get(name, {})
    return found if isinstance(found, Section) else Section({})
