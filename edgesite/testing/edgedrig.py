"""An edge role with edged, a fake metamanager, and any runtime: what edged's own tests stand on.

async with edged_rig(lambda ctx: FakeRuntime(engine), tmp_path) as rig:
    await rig.cloud.apply("pod", pod)
    await rig.cloud.until(lambda: rig.cloud.status("web").get("phase") == "Running")
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesite.context import Context, Module, Section
from edgesite.edge.edged.machine import Machine
from edgesite.edge.edged.module import Edged
from edgesite.edge.edged.runtime import Runtime
from edgesite.net.folders import RealFolders
from edgesite.runtime.role import RoleHost
from edgesite.testing.fakemeta import FakeCloud, meta_module
from edgesite.testing.rolerig import GivenHooks, real_world, running

__all__ = ["Rig", "edged_rig"]

NODE = "edge-1"


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
    modules = [metamanager or meta_module(cloud), Edged]
    folders = RealFolders() if machine is None else None
    async with real_world(GivenHooks(factory), folders=folders) as world:
        host = RoleHost("edge", modules, section, world, data_dir=data_dir, node_name=NODE)
        if machine is not None:
            host.services.provide(Machine, machine)  # type: ignore[type-abstract]
        async with running(host):
            yield Rig(cloud, host, data_dir)
