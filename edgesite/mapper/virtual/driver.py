"""The driver of protocol ``virtual``.

    protocol:
      protocolName: virtual
      configData: {machine: thermostat, speed: 60, outside: 8}      # other words: `thermostat.Room.of`; offline: true for a machine that is not there
    properties:
    - name: target                                                   # what of the machine it is: visitors.configData.quantity, or the property's name
    - {name: sound, visitors: {protocolName: virtual, configData: {wave: sine, low: 20, high: 80, period: 30}}}

Quantities of a thermostat: ``target`` and ``outside``, which may be written, ``temperature`` (or ``actual``), ``heating``, ``power``. A property of any
other name keeps what was written to it, and is zero or empty before.

Units   Seconds of ``host.clock``; ``speed`` simulated ones a second.
Errors  DriverError for settings that are wrong, for a machine that is ``offline``, and for what cannot be written.
State   The machine, in memory: it begins anew with the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from edgesite.mapper.driver import DeviceState, DriverError
from edgesite.mapper.virtual.thermostat import Room, real
from edgesite.mapper.virtual.waves import wave

if TYPE_CHECKING:
    from edgesite.mapper.driver import Device, Host, Property, Value

__all__ = ["Machine", "VirtualDriver"]

_EMPTY: Final[dict[str, Value]] = {
    "int": 0,
    "float": 0.0,
    "double": 0.0,
    "boolean": False,
    "bytes": b"",
    "stream": b"",
}


class Machine(Protocol):
    """What a device is a model of. Quantities are named, and lead to its attributes."""

    quantities: ClassVar[Mapping[str, str]]
    writable: ClassVar[frozenset[str]]

    def advance(self, seconds: float) -> None:
        """Let time pass, any length of it."""
        ...


class VirtualDriver:
    """See the module docstring. Who has other machines adds them in a subclass; what makes one raises ValueError for settings that are wrong."""

    protocol: ClassVar[str] = "virtual"
    machines: ClassVar[Mapping[str, Callable[[Mapping[str, Any]], Machine]]] = {"thermostat": Room.of}

    def __init__(self, device: Device, host: Host) -> None:
        self._config, self._clock, self._random = device.config, host.clock, host.random
        self._born = self._at = host.clock.monotonic()
        self._speed = 1.0
        self._machine: Machine | None = None
        self._cells: dict[str, Value] = {}

    async def connect(self) -> None:
        if self._config.get("offline") in (True, "true"):
            raise DriverError("the machine is switched off (offline: true)")
        if self._machine is not None:
            return
        name = self._config.get("machine", "thermostat")
        make = self.machines.get(name) if isinstance(name, str) else None
        if make is None:
            raise DriverError(f"machine {name!r} is none of {', '.join(self.machines)}")
        try:
            self._speed = real(self._config, "speed", 60.0, 0.0, 1e6)
            self._machine = make(self._config)
        except ValueError as exc:
            raise DriverError(str(exc)) from exc

    async def read(self, prop: Property) -> Value:
        if "wave" in prop.visitor:
            try:
                return wave(prop.visitor, self._clock.monotonic() - self._born, self._random)
            except ValueError as exc:
                raise DriverError(str(exc)) from exc
        machine, quantity = self._now(), _quantity(prop)
        if quantity not in machine.quantities:
            return self._cells.get(prop.name, _EMPTY.get(prop.type, ""))
        found: Value = getattr(machine, machine.quantities[quantity])
        return found if isinstance(found, bool) or prop.type == "int" else round(float(found), 1)

    async def write(self, prop: Property, value: Value) -> None:
        machine, quantity = self._now(), _quantity(prop)
        if "wave" in prop.visitor or (quantity in machine.quantities and quantity not in machine.writable):
            raise DriverError(f"{quantity} of the machine cannot be written")
        if quantity not in machine.quantities:
            self._cells[prop.name] = value
        elif isinstance(value, str | bytes):
            raise DriverError(f"{quantity} is a number")
        else:
            setattr(machine, machine.quantities[quantity], float(value))

    async def health(self) -> DeviceState:
        return DeviceState.ONLINE

    def _now(self) -> Machine:
        """The machine at this moment. Raises DriverError."""
        if self._machine is None:
            raise DriverError("not connected")
        now = self._clock.monotonic()
        self._machine.advance((now - self._at) * self._speed)
        self._at = now
        return self._machine


def _quantity(prop: Property) -> str:
    return str(prop.visitor.get("quantity") or prop.name)
