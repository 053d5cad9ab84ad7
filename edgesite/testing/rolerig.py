"""What rigs of one role share: a world of this machine, hooks that offer what the test gives, and a role that runs for a block.

async with real_world(GivenHooks(factory)) as world:
    host = RoleHost("edge", modules, section, world, data_dir=tmp_path, node_name="edge-1")
    async with running(host):
        ...

Units   Seconds.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads
from edgesite.runtime.role import RoleHost, World

if TYPE_CHECKING:
    from edgesite.context import Section
    from edgesite.hookspecs import DriverFactory, RuntimeFactory

__all__ = ["GivenHooks", "real_world", "running"]


@dataclass(frozen=True, slots=True)
class GivenHooks:
    """`edgesite.hookspecs.Hooks` with one runtime, whatever name is asked for, mapper drivers by protocol, and nothing else."""

    offered: RuntimeFactory | None = None
    drivers: Mapping[str, DriverFactory] = field(default_factory=dict)

    def admission(self, settings: Any) -> list[Any]:
        return []

    def resources(self) -> list[Any]:
        return []

    def metaserver(self, settings: Section) -> list[Any]:
        return []

    def runtime(self, name: str, config: Section) -> RuntimeFactory | None:
        return self.offered

    def mapper(self, protocol: str) -> DriverFactory | None:
        return self.drivers.get(protocol)

    def loaded(self) -> Mapping[str, str]:
        return {}


@asynccontextmanager
async def real_world(hooks: GivenHooks, **more: Any) -> AsyncGenerator[World]:
    """This machine's clock, network and disk; ``more`` are other fields of `World`. Its threads end with the block."""
    threads = RealThreads()
    parts: dict[str, Any] = {"clock": RealClock(), "net": RealNet(), "disk": RealDisk(), "site": {"version": "0.0"}}
    try:
        yield World(**parts | more, random=random.Random(1), threads=threads, hooks=hooks)
    finally:
        with anyio.CancelScope(shield=True):
            await threads.close()


@asynccontextmanager
async def running(host: RoleHost, *, within_s: float = 30.0) -> AsyncGenerator[None]:
    """Run a role until the block ends, as abruptly as by a cancellation; inside, it is ready. Raises TimeoutError."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        try:
            with anyio.fail_after(within_s):
                await host.ready.wait()
            yield
        except Exception as exc:  # the test's own: it shall not come out as a group
            failure = exc
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
