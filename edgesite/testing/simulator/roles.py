"""Real roles on simulated machines: the same modules, configuration and hosts as in the program.

Modules get what the simulator substitutes through the seams that they have: `World` for clock, disk, network, threads; services
for certificates and the machine's facts; a hook for the pod runtime.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgesite.cli.up import site_plan
from edgesite.context import Section, Settings
from edgesite.edge.edged.machine import Machine as MachineService
from edgesite.edge.edged.machine import MachineFacts, Pressure
from edgesite.hookspecs import impl
from edgesite.net.pki import Pki
from edgesite.runtime.paths import cloud_defaults, edge_defaults
from edgesite.runtime.plugins import PluginHost, discover
from edgesite.runtime.role import RoleHost
from edgesite.runtime.role import World as RoleWorld
from edgesite.runtime.site import Site
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime
from edgesite.testing.simulator.machine import Machine, Process
from edgesite.testing.simulator.pki import SimPki

__all__ = ["API_PORT", "META_PORT", "cloud_main", "edge_main", "together_main"]

API_PORT = 6443
META_PORT = 10550
Took = Callable[[RoleHost], None]
RUNTIME = "simulated"


@functools.cache
def _values(root: str, node: str) -> dict[str, Any]:
    """Defaults of the whole site, validated as the program does it; paths begin with ``root``."""
    from edgesite.runtime.config.validate import Request, validate

    folder = Path(root)
    cloud = cloud_defaults(folder, kubeedge_paths=False, advertise="cloud")
    edge = edge_defaults(folder / "edge", kubeedge_paths=False, node_name=node, cloud="cloud")
    edge["modules"]["edged"]["runtime"] = RUNTIME
    api = {"address": f"0.0.0.0:{API_PORT}", "advertiseAddress": "10.0.0.1"}
    values, _ = validate(Request("EdgeSite", underlay={"api": api, "cloud": cloud, "edge": edge}))
    return values


def _settings(node: str, folder: Path) -> dict[str, Any]:
    """The values with their paths in ``folder``."""
    root = "/simulated"

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: moved(one) for key, one in value.items()}
        if isinstance(value, str) and value.startswith(root):
            return f"{folder}{value.removeprefix(root)}"
        return copy.copy(value)

    moved_values: dict[str, Any] = moved(_values(root, node))
    return moved_values


class _RuntimePlugin:
    """The pod runtime of the machine: engines, by node, that outlive our process."""

    def __init__(self, engines: Mapping[str, FakeEngine]) -> None:
        self._engines = engines

    @impl
    def edgesite_runtime(self, name: str, config: Section) -> Any:
        return (lambda ctx: FakeRuntime(self._engines[ctx.node_name])) if name == RUNTIME else None


class _Facts:
    """`edgesite.edge.edged.machine.Machine` of a simulated computer."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def facts(self, data_dir: Path, resolv_conf: str, interface: str) -> MachineFacts:
        name = self._machine.name
        return MachineFacts(
            hostname=name,
            architecture="amd64",
            kernel="6.1.0",
            os_image="Simulated Linux",
            machine_id=f"id-{name}",
            system_uuid=f"uuid-{name}",
            boot_id=f"boot-{name}-{self._machine.boots}",
            cpus=4,
            memory_bytes=8 << 30,
            disk_bytes=64 << 30,
            addresses=(self._machine.address,),
            resolv_conf="nameserver 10.0.0.53\n",
            hosts="127.0.0.1 localhost\n",
            mounts=False,
        )

    def pressure(self, data_dir: Path) -> Pressure:
        return Pressure(4 << 30, 32 << 30, 64 << 30, 1 << 20, 1 << 21, 200, 32768)


def _world(process: Process, plugins: PluginHost, site: Mapping[str, Any]) -> RoleWorld:
    return RoleWorld(
        clock=process.machine.clock,
        random=process.random,
        net=process.net,
        threads=process.threads,
        disk=process.disk,
        hooks=plugins,
        site=site,
    )


def _furnish(role: RoleHost, process: Process) -> RoleHost:
    """Give a role the services that stand for parts of the machine."""
    role.services.provide(Pki, SimPki(process.random, process.machine.clock))  # type: ignore[type-abstract]
    if role.role == "edge":
        role.services.provide(MachineService, _Facts(process.machine))  # type: ignore[type-abstract]
    return role


def _facts_of_site(process: Process) -> dict[str, Any]:
    data_dir = str(process.machine.data_dir)
    return {"version": "0.1.0", "embedded_api": True, "single_process": False, "data_dir": data_dir}


def _api(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    api: dict[str, Any] = values["api"] | {"adminKubeconfig": str(folder / "admin.kubeconfig")}
    return api


async def cloud_main(process: Process, took: Took, *, metaserver: bool = False) -> None:
    """The cloud role, as ``edgesite cloud`` runs it; with ``metaserver`` edges may ask it about the whole API."""
    folder = process.machine.data_dir
    values = _settings("", folder)
    api = _api(values, folder)
    values["cloud"]["modules"]["dynamicController"]["enable"] = metaserver
    cloud = Section({**values["cloud"], "api": api})
    plugins = PluginHost(discover())
    modules = plugins.modules(Settings(api=Section(api), cloud=cloud))
    world = _world(process, plugins, _facts_of_site(process))
    role = _furnish(RoleHost("cloud", modules, cloud, world, data_dir=folder / "cloud"), process)
    took(role)
    await role.run()


async def edge_main(
    process: Process, token: str, engines: Mapping[str, FakeEngine], took: Took, *, metaserver: bool = False
) -> None:
    """An edge role, as ``edgesite edge --cloud cloud --token TOKEN`` runs it; with ``metaserver`` it serves the API on `META_PORT`."""
    name, folder = process.machine.name, process.machine.data_dir
    values = _settings(name, folder)["edge"]
    values["modules"]["edgeHub"]["token"] = token
    values["modules"]["metaManager"]["metaServer"] |= {"enable": metaserver, "server": f"0.0.0.0:{META_PORT}"}
    edge = Section(values)
    plugins = PluginHost(discover())
    plugins.register(_RuntimePlugin(engines), "simulator")
    world = _world(process, plugins, _facts_of_site(process))
    modules = plugins.modules(Settings(edges=(edge,)))
    role = _furnish(RoleHost("edge", modules, edge, world, data_dir=folder / "edge", node_name=name), process)
    took(role)
    await role.run()


async def together_main(
    process: Process, nodes: Sequence[str], engines: Mapping[str, FakeEngine], took: Mapping[str, Took]
) -> None:
    """A whole site, as ``edgesite up --edge-nodes N`` runs it. ``took`` has the cloud role's under ""."""
    folder = process.machine.data_dir
    values = _settings("edge-1", folder)
    for part in ("websocket", "https"):
        values["cloud"]["modules"]["cloudHub"][part]["enable"] = False
    plan = site_plan(values, folder, len(nodes))
    plan = replace(plan, edges=[replace(one, node_name=name) for one, name in zip(plan.edges, nodes, strict=True)])
    plugins = PluginHost(discover())
    plugins.register(_RuntimePlugin(engines), "simulator")
    site = Site(plan, plugins, _world(process, plugins, plan.site))
    for role in site.roles:
        took[role.node_name](_furnish(role, process))
    await site.run()
