"""The Python files of a new mapper, as templates: ``$$name`` and its like are put in by `project`."""

from __future__ import annotations

from typing import Final

__all__ = ["CODE"]

_INIT: Final = '''"""Mapper for devices that speak $protocol."""
'''

_DRIVER: Final = '''"""How a device that speaks $protocol is reached: the four methods that a mapper is made of.

Everything else is edgesite's: when to read, retries and time limits, conversion of bytes, wishes from the cloud, reports, metrics, HTTP. The methods
are called one at a time for a device, each with a time limit; they never block (what blocks goes through ``host.threads.run``).

Replace `Machine` by the way to yours. Of the manifests in deploy/: ``self.device.config`` is ``spec.protocol.configData``, and ``prop.visitor`` is
``visitors.configData`` of a property.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgesite.mapper import DeviceState, DriverError

from $package.machine import Machine, MachineError

if TYPE_CHECKING:
    from edgesite.mapper import Device, Host, Property, Value


class $driver:
    """One device."""

    protocol: ClassVar[str] = "$protocol"

    def __init__(self, device: Device, host: Host) -> None:
        """Look at the configuration. Raises DriverError if nothing can be made of it."""
        self.device, self.host = device, host
        self.address = str(device.config.get("address", ""))
        if not self.address:
            raise DriverError("spec.protocol.configData.address is missing")
        self.machine: Machine | None = None

    async def connect(self) -> None:
        """Reach the machine. Called again after a loss."""
        try:
            self.machine = Machine.at(self.address, self.host.shared)
            self.machine.call()
        except MachineError as exc:
            raise DriverError(str(exc)) from exc

    async def read(self, prop: Property) -> Value:
        """Return a value: a number, a text, a bool; or bytes, which the words of the visitor convert (scale, isSwap ...)."""
        try:
            return self._connected().read(self._register(prop))
        except MachineError as exc:
            raise DriverError(str(exc)) from exc

    async def write(self, prop: Property, value: Value) -> None:
        """Have the machine take a value, which is of the property's type and within its limits."""
        try:
            self._connected().write(self._register(prop), value)
        except MachineError as exc:
            raise DriverError(str(exc)) from exc

    async def health(self) -> DeviceState:
        """Say how the machine is; a DriverError means that it is offline."""
        try:
            self._connected().call()
        except MachineError as exc:
            raise DriverError(str(exc)) from exc
        return DeviceState.ONLINE

    async def close(self) -> None:
        """Let go of the machine."""
        self.machine = None

    def _connected(self) -> Machine:
        if self.machine is None:
            raise DriverError("not connected")
        return self.machine

    def _register(self, prop: Property) -> str:
        return str(prop.visitor.get("register", prop.name))
'''

_MACHINE: Final = '''"""A machine in memory, in place of a real one: a heater with a set point. Delete this file when the driver has its own way."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from typing import Any, Self


class MachineError(Exception):
    """The machine cannot be reached, or refuses."""


class Machine:
    """Registers by name."""

    def __init__(self) -> None:
        self.registers: dict[str, Any] = {"target": 20.0, "actual": 20.0, "heating": False}
        self.is_on = True

    @classmethod
    def at(cls, address: str, shared: MutableMapping[Hashable, Any]) -> Self:
        """The machine at an address: the same for all devices of this mapper that name it."""
        machine: Self = shared.setdefault(("$protocol", address), cls())
        return machine

    def call(self) -> None:
        """Raises MachineError if nobody answers."""
        if not self.is_on:
            raise MachineError("the machine is switched off")

    def read(self, register: str) -> Any:
        self.call()
        if register not in self.registers:
            raise MachineError(f"there is no register {register}")
        self._warm_up()
        return self.registers[register]

    def write(self, register: str, value: Any) -> None:
        self.call()
        if register not in self.registers:
            raise MachineError(f"there is no register {register}")
        self.registers[register] = value

    def _warm_up(self) -> None:
        """Go a part of the way to the set point at each look."""
        difference = self.registers["target"] - self.registers["actual"]
        self.registers["heating"] = difference > 0.1
        step = difference if abs(difference) < 0.1 else difference / 4
        self.registers["actual"] = round(self.registers["actual"] + step, 2)
'''

_PLUGIN: Final = '''"""The driver as a plugin: it runs within the edge role where this distribution is installed beside edgesite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.hookspecs import DriverFactory


@impl
def edgesite_mapper(protocol: str) -> DriverFactory | None:
    if protocol != "$protocol":
        return None
    from $package.driver import $driver

    return $driver
'''

_MAIN: Final = '''"""The driver as a program of its own: ``python -m $package --help``."""

from __future__ import annotations

import sys

from edgesite.mapper.program import run

from $package.driver import $driver


def main() -> int:
    return run($driver, name="$name")


if __name__ == "__main__":
    sys.exit(main())
'''

_CONFTEST: Final = '''"""Tests run on asyncio."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
'''

_TEST_DRIVER: Final = '''"""The driver by itself, and under the care of edgesite as on a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from edgesite.mapper import Device, DeviceState, DriverError, Host, Property
from edgesite.mapper.devices import Assignment, assignment_of
from edgesite.testing.mapperrig import Edge, driver_host, fleet_of

from $package.driver import $driver
from $package.machine import Machine
from $package.plugin import edgesite_mapper

pytestmark = pytest.mark.anyio

MANIFEST = Path(__file__).parents[1] / "deploy" / "device.yaml"


def manifest() -> tuple[dict[str, Any], dict[str, Any]]:
    """The sample device and its model."""
    model, device = yaml.safe_load_all(MANIFEST.read_text())
    return device, model


def sample(**desired: str) -> Assignment:
    device, model = manifest()
    for one in device["spec"]["properties"]:
        one["collectCycle"] = one["reportCycle"] = 20
        one["desired"] = {"value": desired.get(one["name"], "")}
    return assignment_of(device, model)


def machine_of(host: Host) -> Machine:
    return Machine.at("heater-1", host.shared)


def property_of(device: Device, name: str) -> Property:
    return next(one for one in device.properties if one.name == name)


async def test_it_reads_and_writes() -> None:
    async with driver_host() as host:
        device = sample().device
        driver = $driver(device, host)
        await driver.connect()
        assert await driver.health() is DeviceState.ONLINE
        await driver.write(property_of(device, "target"), 30.0)
        assert machine_of(host).registers["target"] == 30.0
        assert await driver.read(property_of(device, "actual")) == 22.5
        await driver.close()


async def test_what_the_machine_refuses_is_a_driver_error() -> None:
    async with driver_host() as host:
        device = sample().device
        driver = $driver(device, host)
        await driver.connect()
        with pytest.raises(DriverError, match="no register colour"):
            await driver.read(Property("colour", "string", False, {"register": "colour"}))
        machine_of(host).is_on = False
        for call in (driver.connect, driver.health):
            with pytest.raises(DriverError, match="switched off"):
                await call()


async def test_a_device_without_an_address_is_refused() -> None:
    device = Device("default", "heater", "heater", "$protocol", {}, ())
    async with driver_host() as host:
        with pytest.raises(DriverError, match="address is missing"):
            $driver(device, host)


async def test_wishes_become_values() -> None:
    """As on a node: what is wanted is written, what is read is reported."""
    edge = Edge()
    async with driver_host() as host, fleet_of(host, edge) as fleet:
        fleet.put(sample(target="24"), $driver)
        await edge.reported("target", "24")
        await edge.reported("actual", "24")
        assert edge.states[0] == ("heater-1", "online")


async def test_a_machine_that_is_switched_off_is_offline_until_it_is_back() -> None:
    edge = Edge()
    async with driver_host() as host, fleet_of(host, edge) as fleet:
        fleet.put(sample(), $driver)
        await edge.reported("target", "20")
        machine_of(host).is_on = False
        await edge.in_state("offline")
        machine_of(host).is_on = True
        await edge.in_state("online")


def test_the_plugin_answers_for_its_protocol_alone() -> None:
    assert edgesite_mapper("$protocol") is $driver
    assert edgesite_mapper("another") is None
'''

CODE: Final = {
    "$package/__init__.py": _INIT,
    "$package/__main__.py": _MAIN,
    "$package/driver.py": _DRIVER,
    "$package/machine.py": _MACHINE,
    "$package/plugin.py": _PLUGIN,
    "tests/conftest.py": _CONFTEST,
    "tests/test_driver.py": _TEST_DRIVER,
}
