"""An edge role with edged, a fake metamanager, and any runtime: what edged's own tests stand on.

async with edged_rig(lambda ctx: FakeRuntime(engine), tmp_path) as rig:
    await rig.cloud.apply("pod", pod)
    await rig.cloud.until(lambda: rig.cloud.status("web").get("phase") == "Running")
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from edgesite.context import Context, Module, Section
from edgesite.edge.edged.machine import Machine
from edgesite.edge.edged.module import Edged
from edgesite.edge.edged.runtime import Runtime
from edgesite.net.folders import RealFolders
from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads
from edgesite.runtime.role import RoleHost, World
from edgesite.testing.fakemeta import FakeCloud, meta_module

__all__ = ["Rig", "edged_rig"]

NODE = "edge-1"


class _Hooks:
    """Offers one runtime, whatever its name, and nothing else."""

    def __init__(self, factory: Callable[[Context], Runtime]) -> None:
        self._factory = factory

    def admission(self, settings: Any) -> list[Any]:
        return []

    def resources(self) -> list[Any]:
        return []

    def runtime(self, name: str, config: Section) -> Callable[[Context], Runtime]:
        return self._factory

    def mapper(self, protocol: str) -> Any:
        return None

    def metaserver(self, settings: Section) -> list[Any]:
        return []

    def loaded(self) -> Mapping[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class Rig:
    cloud: FakeCloud
    host: RoleHost
    data_dir: Path


@asynccontextmanager
async def edged_rig(
    factory: Callable[[Context], Runtime],
    data_dir: Path,
    *,
    cloud: FakeCloud | None = None,
    settings: Mapping[str, Any] | None = None,
    metamanager: type[Module] | None = None,
    machine: Machine | None = None,
) -> AsyncGenerator[Rig]:
    """Run edged until the block ends, as abruptly as by a cancellation. ``settings`` are those of modules.edged. Raises TimeoutError.

    Give the ``cloud`` of an earlier rig, and its folder, to start edgesite again over what it left. ``metamanager`` takes the
    place of the module that provides the cloud, ``machine`` that of what edged reads of the host.
    """
    cloud = cloud or FakeCloud(NODE)
    threads = RealThreads()
    world = World(
        clock=RealClock(),
        random=random.Random(1),
        net=RealNet(),
        threads=threads,
        disk=RealDisk(),
        hooks=_Hooks(factory),
        site={"version": "0.0"},
        folders=RealFolders() if machine is None else None,
    )
    # With MetaServer the host is not looked at for other agents: tests of ours may run beside one.
    beside = {"metaServer": {"enable": True}}
    section = Section(
        {
            "modules": {
                "metaManager": beside,
                "edged": {"enable": True, "runtime": "cri", "nodeIP": "192.0.2.7", **(settings or {})},
            }
        }
    )
    host = RoleHost(
        "edge", [metamanager or meta_module(cloud), Edged], section, world, data_dir=data_dir, node_name=NODE
    )
    if machine is not None:
        host.services.provide(Machine, machine)  # type: ignore[type-abstract]
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.run)
            try:
                with anyio.fail_after(30):
                    await host.ready.wait()
                yield Rig(cloud, host, data_dir)
            except Exception as exc:  # the test's own: it shall not come out as a group
                failure = exc
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
    finally:
        with anyio.CancelScope(shield=True):
            await threads.close()
