"""An edge role with its real metamanager, DeviceTwin, DMI and in-process mappers, and a mapper of either kind at it."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from prometheus_client import CollectorRegistry

from edgesite.edge.devicetwin.module import DeviceTwin
from edgesite.edge.dmi.module import Dmi
from edgesite.edge.mappers.module import MapperHost
from edgesite.edge.metamanager.module import MetaManager
from edgesite.kube import json
from edgesite.mapper.dmi import DmiEnd, Identity
from edgesite.mapper.driver import Host
from edgesite.mapper.metrics import Meters
from edgesite.mapper.rest import Rest
from edgesite.net.real import RealClock, RealNet, RealThreads
from edgesite.runtime.config.edge import EdgeModules
from edgesite.testing.busrig import BusRig, bus_rig
from edgesite.testing.mapperrig import Machine
from edgesite.wire.message import Message

MODULES = [MetaManager, DeviceTwin, Dmi, MapperHost]
KINDS = ("plugin", "v1beta1", "v1alpha1")


class Edge:
    """The test's side of the edge: what the cloud says, and what MQTT hears."""

    def __init__(self, rig: BusRig) -> None:
        self.rig = rig
        self._inbox = rig.bus.join("eventbus", "bus")
        self.heard: list[tuple[str, Any]] = []
        self._came = anyio.Event()

    async def listen(self) -> None:
        async for message in self._inbox:
            several = message.operation == "publishall"
            for topic, payload in message.content if several else [(message.resource, message.data())]:
                self.heard.append((topic, json.loads(payload)))
            self._came.set()
            self._came = anyio.Event()

    def close(self) -> None:
        self._inbox.close()

    async def apply(self, obj: dict[str, Any], operation: str = "insert") -> None:
        kind = "device" if obj["kind"] == "Device" else "devicemodel"
        resource, number = f"default/{kind}/{obj['metadata']['name']}", obj["metadata"]["resourceVersion"]
        name = f"{resource}-{operation}-{number}"
        message = Message(name, 1, "devicecontroller", "resource", operation, resource, obj, resource_version=number)
        await self.rig.bus.send_group("meta", message)
        await self.rig.cloud.next()

    async def reported(self, prop: str, value: str, device: str = "pump-1") -> None:
        """Wait until the twin has this value."""
        await self.until(lambda: self.values(prop, device)[-1:] == [value])

    def values(self, prop: str, device: str = "pump-1") -> list[str]:
        """What the twin was said to be."""
        topic = f"$hw/events/device/{device}/twin/update/document"
        found = []
        for where, what in self.heard:
            if where == topic:
                actual = (what["twin"].get(prop) or {}).get("current", {}).get("actual")
                if actual is not None:
                    found.append(actual["value"])
        return found

    async def state(self, state: str, device: str = "pump-1") -> None:
        topic = f"$hw/events/device/{device}/state/update/result"
        await self.until(lambda: [what["device"]["state"] for at, what in self.heard if at == topic][-1:] == [state])

    async def until(self, condition: Any) -> None:
        with anyio.fail_after(60):
            while not condition():
                await self._came.wait()


@asynccontextmanager
async def edge(folder: Path, machine: Machine | None = None, **mappers: Any) -> AsyncGenerator[Edge]:
    """``machine``: its driver is a plugin of the edge."""
    modules = EdgeModules().model_dump()
    modules["deviceTwin"] |= {"dmiSockPath": str(folder)}
    modules["mappers"] |= mappers
    drivers = {} if machine is None else {"test": machine.make}
    async with bus_rig(MODULES, folder, modules, has_twin=False, drivers=drivers) as rig:
        site = Edge(rig)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(site.listen)
            try:
                yield site
            finally:
                tasks.cancel_scope.cancel()
                site.close()


class Mapper:
    """A mapper of one of `KINDS`, outside of the edge but for plugins."""

    def __init__(self, kind: str, folder: Path, machine: Machine) -> None:
        self.kind, self.folder, self.machine = kind, folder, machine
        self.rest = ""

    @property
    def plugin(self) -> Machine | None:
        return self.machine if self.kind == "plugin" else None

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[Mapper]:
        """Run the mapper; a plugin runs with its edge."""
        if self.kind == "plugin":
            yield self
            return
        threads, registry = RealThreads(), CollectorRegistry()
        host = Host(RealNet(), RealClock(), threads, random.Random(1), logging.getLogger("mapper"))
        identity = Identity("m1", "test", f"{self.folder}/m1.sock")
        end = DmiEnd(identity, f"{self.folder}/dmi.sock", host, version=self.kind)  # type: ignore[arg-type]
        async with AsyncExitStack() as stack:
            stack.push_async_callback(threads.close)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            fleet = await tasks.start(partial(end.run, self.machine.make, Meters(registry)))
            rest = await stack.enter_async_context(Rest(fleet, host, "127.0.0.1:0", registry))
            self.rest = rest.address
            yield self
            tasks.cancel_scope.cancel()
