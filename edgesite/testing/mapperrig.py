"""A machine in memory with its driver, and an edge that remembers: what tests of mappers stand on.

async with driver_host() as host, fleet_of(host, edge := Edge()) as fleet:
    fleet.put(pump(desired="55"), Machine().make)
    await edge.reported("speed", "55")
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
from prometheus_client import CollectorRegistry

from edgesite.mapper.devices import Assignment, assignment_of
from edgesite.mapper.driver import Device, DeviceState, DriverError, Host, Property, Value
from edgesite.mapper.fleet import Fleet
from edgesite.mapper.metrics import Meters
from edgesite.mapper.reports import Key, Reading
from edgesite.net.real import RealClock, RealNet, RealThreads

__all__ = [
    "Edge",
    "Machine",
    "MachineDriver",
    "driver_host",
    "fleet_of",
    "pump",
    "pump_device",
    "pump_model",
]


@asynccontextmanager
async def driver_host() -> AsyncGenerator[Host]:
    """What a driver is given, with this machine's clock and network."""
    threads = RealThreads()
    try:
        yield Host(RealNet(), RealClock(), threads, random.Random(1), logging.getLogger("mapper"))
    finally:
        with anyio.CancelScope(shield=True):
            await threads.close()


@asynccontextmanager
async def fleet_of(host: Host, edge: Edge) -> AsyncGenerator[Fleet]:
    """Devices that report to ``edge``."""
    failure: Exception | None = None
    async with Fleet(host, edge, Meters(CollectorRegistry())) as fleet:
        try:
            yield fleet
        except Exception as exc:  # the test's own: it shall not come out as a group
            failure = exc
    if failure is not None:
        raise failure


class Machine:
    """What a driver talks to. ``trouble`` may raise, or wait, before a call of this name."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"speed": 40, "temperature": 20.5}
        self.writes: list[tuple[str, Value]] = []
        self.calls: list[str] = []
        self.trouble: Callable[[str, str], Any] | None = None
        self.health = DeviceState.ONLINE
        self.connections = self.open = 0

    def make(self, device: Device, host: Host) -> MachineDriver:
        return MachineDriver(self, device)

    async def meet(self, call: str, name: str = "") -> None:
        self.calls.append(f"{call} {name}".strip())
        if self.trouble is not None and (waiting := self.trouble(call, name)) is not None:
            await waiting


class MachineDriver:
    protocol: ClassVar[str] = "test"

    def __init__(self, machine: Machine, device: Device) -> None:
        self.machine, self.device = machine, device

    async def connect(self) -> None:
        await self.machine.meet("connect")
        self.machine.connections += 1
        self.machine.open = 1

    async def read(self, prop: Property) -> Value:
        await self.machine.meet("read", prop.name)
        if prop.name not in self.machine.values:
            raise DriverError(f"there is no {prop.name}")
        return self.machine.values[prop.name]  # type: ignore[no-any-return]

    async def write(self, prop: Property, value: Value) -> None:
        await self.machine.meet("write", prop.name)
        self.machine.writes.append((prop.name, value))
        self.machine.values[prop.name] = value

    async def health(self) -> DeviceState:
        await self.machine.meet("health")
        return self.machine.health

    async def close(self) -> None:
        self.machine.open = 0


class Edge:
    """An `Outlet` that remembers. ``trouble`` may raise for a device."""

    def __init__(self) -> None:
        self.readings: list[tuple[str, Reading]] = []
        self.states: list[tuple[str, str]] = []
        self.trouble: Callable[[Key], Any] | None = None
        self.reports = 0
        self._came = anyio.Event()

    async def report(self, key: Key, readings: Sequence[Reading]) -> None:
        if self.trouble is not None:
            self.trouble(key)
        self.reports += 1
        self.readings += [(key[1], one) for one in readings]
        self._wake()

    async def report_state(self, key: Key, state: DeviceState) -> None:
        if self.trouble is not None:
            self.trouble(key)
        self.states.append((key[1], state.value))
        self._wake()

    def _wake(self) -> None:
        self._came.set()
        self._came = anyio.Event()

    async def reported(self, name: str, value: str, timeout_s: float = 10.0) -> None:
        """Wait until this is the newest value of a property, of whatever device. Raises TimeoutError."""
        with anyio.fail_after(timeout_s):
            while [one.value for _, one in self.readings if one.property == name][-1:] != [value]:
                await self._came.wait()

    async def in_state(self, state: str, timeout_s: float = 10.0) -> None:
        """Wait until this is what was last said of a device's state. Raises TimeoutError."""
        with anyio.fail_after(timeout_s):
            while [one for _, one in self.states][-1:] != [state]:
                await self._came.wait()

    def values(self, name: str, device: str = "pump-1") -> list[str]:
        return [one.value for of, one in self.readings if of == device and one.property == name]


def pump_model() -> dict[str, Any]:
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceModel",
        "metadata": {"name": "pump", "namespace": "default", "uid": "uid-model-pump", "resourceVersion": "1"},
        "spec": {
            "protocol": "test",
            "properties": [
                {"name": "speed", "type": "INT", "accessMode": "ReadWrite", "minimum": "0", "maximum": "100"},
                {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
            ],
        },
    }


def pump_device(
    name: str = "pump-1",
    desired: str = "",
    *,
    cycle: int = 1000,
    version: int = 1,
    protocol: str = "test",
    **changed: Any,
) -> dict[str, Any]:
    """A Device of v1beta1; ``changed`` are members of its spec."""
    cycles = {"collectCycle": cycle, "reportCycle": cycle}
    speed: dict[str, Any] = {"name": "speed", **cycles}
    if desired:
        speed["desired"] = {"value": desired}
    spec = {
        "deviceModelRef": {"name": "pump"},
        "nodeName": "edge-1",
        "protocol": {"protocolName": protocol, "configData": {"address": 7}},
        "properties": [speed, {"name": "temperature", **cycles}],
    }
    return {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {**spec, **changed},
    }


def pump(name: str = "pump-1", desired: str = "", **more: Any) -> Assignment:
    return assignment_of(pump_device(name, desired, **more), pump_model())
