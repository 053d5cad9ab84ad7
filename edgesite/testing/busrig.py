"""A few modules of an edge role on a bus, with the test at the other end: what tests and benchmarks of EventBus and DMI stand on.

async with bus_rig([EventBus], tmp_path, {"eventBus": event_bus(mqttMode=0)}) as rig:
    await rig.host.bus.send("eventbus", message)
    got = await rig.twin.next()
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import anyio

from edgesite.context import Bus, Context, Inbox, Module, Section
from edgesite.runtime.role import RoleHost
from edgesite.testing.rolerig import GivenHooks, real_world, running
from edgesite.wire.message import Message, MessageMaker

__all__ = ["BusRig", "Tap", "bus_rig", "event_bus"]


def event_bus(**changed: Any) -> dict[str, Any]:
    """The section ``eventBus`` at its defaults, but for ``changed``."""
    from edgesite.runtime.config.edge import EventBus as Model

    return Model(**changed).model_dump()


class Tap:
    """What came for one group of the bus."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._came = anyio.Event()
        self._read = 0
        self.blocked = anyio.Event()  #: set as long as messages are taken
        self.blocked.set()

    async def follow(self, inbox: Inbox) -> None:
        async for message in inbox:
            await self.blocked.wait()
            self.messages.append(message)
            self._came.set()

    async def next(self, timeout_s: float = 10.0) -> Message:
        """The next one that was not read. Raises TimeoutError."""
        with anyio.fail_after(timeout_s):
            while self._read >= len(self.messages):
                self._came = anyio.Event()
                await self._came.wait()
        self._read += 1
        return self.messages[self._read - 1]


@dataclass(frozen=True, slots=True)
class BusRig:
    host: RoleHost
    twin: Tap
    cloud: Tap  #: group hub
    data_dir: Path

    @property
    def bus(self) -> Bus:
        return self.host.bus

    async def tell(
        self, operation: str, resource: str, content: Any = None, *, source: str = "router_eventbus"
    ) -> None:
        """Tell EventBus something, as the cloud does."""
        maker = MessageMaker(lambda: 0.0, random.getrandbits)
        await self.bus.send("eventbus", maker.make(source, "user", operation, resource, content))


def _tap_module(twin: Tap, cloud: Tap, has_twin: bool) -> type[Module]:
    class Taps:
        name: ClassVar[str] = "taps"
        roles: ClassVar[frozenset[str]] = frozenset({"edge"})
        needs: ClassVar[frozenset[str]] = frozenset()
        section: ClassVar[str] = ""

        def enabled(self, settings: Section) -> bool:
            return True

        async def run(self, ctx: Context) -> None:
            async with anyio.create_task_group() as tasks:
                if has_twin:
                    tasks.start_soon(twin.follow, ctx.bus.join("twin", "twin"))
                tasks.start_soon(cloud.follow, ctx.bus.join("websocket", "hub"))
                ctx.ready()

    return Taps


@asynccontextmanager
async def bus_rig(
    modules: Iterable[type[Module]],
    data_dir: Path,
    settings: Mapping[str, Any],
    *,
    has_twin: bool = True,
    services: Mapping[type, Any] | None = None,
    drivers: Mapping[str, Any] | None = None,
) -> AsyncGenerator[BusRig]:
    """Run ``modules`` until the block ends. ``settings`` are those of ``modules``; ``has_twin`` plays DeviceTwin, ``drivers`` are those of
    plugins, by protocol. Raises TimeoutError."""
    twin, cloud = Tap(), Tap()
    section = Section({"modules": dict(settings), "database": {"dataSource": str(data_dir / "edgecore.db")}})
    chosen = [_tap_module(twin, cloud, has_twin), *modules]
    async with real_world(GivenHooks(drivers=drivers or {})) as world:
        host = RoleHost("edge", chosen, section, world, data_dir=data_dir, node_name="edge-1")
        for interface, implementation in (services or {}).items():
            host.services.provide(interface, implementation)
        async with running(host):
            yield BusRig(host, twin, cloud, data_dir)
