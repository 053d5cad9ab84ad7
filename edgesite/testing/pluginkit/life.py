"""Runs a plugin's modules in a whole site, twice, and looks at what is left when it has stopped.

The site is real (API, controllers, edge role), in a temporary folder, without ports; its pod runtime only pretends to run pods.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from edgesite.cli.up import site_plan
from edgesite.context import Section
from edgesite.hookspecs import impl
from edgesite.net.threads import RealThreads
from edgesite.runtime.paths import cloud_defaults, edge_defaults
from edgesite.runtime.plugins import PluginHost
from edgesite.runtime.site import Site, real_world
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime
from edgesite.testing.pluginkit.hooks import all_settings, builtin

if TYPE_CHECKING:
    from edgesite.runtime.role import RoleHost

__all__ = ["check_life"]

READY_S: Final = 60.0
STOP_S: Final = 20.0
_SETTLE_S: Final = 10.0
_RUNTIME: Final = "conformance"


class _Runtime:
    @impl
    def edgesite_runtime(self, name: str, config: Section) -> Any:
        return (lambda ctx: FakeRuntime(FakeEngine(ctx.clock))) if name == _RUNTIME else None


def check_life(host: PluginHost) -> None:
    """Raises AssertionError, or whatever a module raises. Blocking."""
    from edgesite.net.real import loop_factory

    names = {one.name for one in host.modules(all_settings(host))}
    if not names:
        return
    with tempfile.TemporaryDirectory(prefix="edgesite-plugin-") as folder:
        anyio.run(_lives, host, Path(folder), names, backend_options={"loop_factory": loop_factory()})


async def _lives(host: PluginHost, folder: Path, names: set[str]) -> None:
    left: list[tuple[int, int, int]] = []
    for number in range(3):  # the first one imports and caches what stays
        with _Crashes(names) as crashes:
            await _live_once(host, folder, names)
        assert not crashes.said, crashes.said[0]
        gc.collect()
        await anyio.lowlevel.checkpoint()
        left.append((len(asyncio.all_tasks()), threading.active_count(), len(os.listdir("/proc/self/fd"))))
        assert number == 0 or left[0][0] == left[number][0], "a task goes on after the modules were stopped"
    assert left[2][1] <= left[1][1], "with each life there is a thread more"
    assert left[2][2] <= left[1][2], "with each life there is an open file or socket more"


async def _live_once(host: PluginHost, folder: Path, names: set[str]) -> None:
    plugins = PluginHost(())
    for one in (builtin(), host):
        for name, plugin in one.objects():
            plugins.register(plugin, name)
    plugins.register(_Runtime(), _RUNTIME)
    plan, threads = site_plan(_values(host, folder), folder, 1), RealThreads()
    site = Site(plan, plugins, real_world(plugins, threads, plan.site))
    try:
        before = 0.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(site.run)
            try:
                await _ready(site.roles, names)
                with anyio.move_on_after(_SETTLE_S):  # a while of life beside all the others
                    for role in site.roles:
                        await role.ready.wait()
            finally:
                tasks.cancel_scope.cancel()
                before = anyio.current_time()
        assert anyio.current_time() - before < STOP_S, f"it took more than {STOP_S:g} s to stop"
    finally:
        with anyio.CancelScope(shield=True):
            await threads.close()
    assert not plugins.refused, "; ".join(f"{name}: {why}" for name, why in plugins.refused.items())


async def _ready(roles: list[RoleHost], names: set[str]) -> None:
    """Wait for every module of the plugin that its settings want. Raises AssertionError."""
    for role in roles:
        for one in role.running:
            if one.module.name in names:
                with anyio.move_on_after(READY_S):
                    await one.ready.wait()
                assert one.ready.is_set(), f"{one.module.name} is not ready after {READY_S:g} s: {one.problem()}"


def _values(host: PluginHost, folder: Path) -> dict[str, Any]:
    """The settings of the site: defaults, below ``folder``, without ports."""
    from edgesite.runtime.config.validate import Request, validate

    cloud = cloud_defaults(folder, kubeedge_paths=False, advertise="127.0.0.1")
    cloud["modules"]["cloudHub"] |= {"websocket": {"enable": False}, "https": {"enable": False}}
    edge = edge_defaults(folder / "edge", kubeedge_paths=False, node_name="edge-1", cloud="127.0.0.1")
    edge["modules"]["edged"] |= {"runtime": _RUNTIME, "tailoredKubeletConfig": {"readOnlyPort": 0, "healthzPort": 0}}
    sections = [(one.role, one.path, one.model) for one in host.config_sections()]
    underlay = {"api": {"address": "127.0.0.1:0"}, "cloud": cloud, "edge": edge}
    values, _ = validate(Request("EdgeSite", underlay=underlay, sections=sections))
    return values


class _Crashes(logging.Handler):
    """Hears of crashes of the plugin's modules."""

    def __init__(self, names: set[str]) -> None:
        super().__init__(logging.ERROR)
        self._names = names
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "crashed" in text and any(name in text for name in self._names):
            self.said.append(text)

    def __enter__(self) -> _Crashes:
        logging.getLogger("edgesite").addHandler(self)
        return self

    def __exit__(self, *exc: object) -> None:
        logging.getLogger("edgesite").removeHandler(self)
