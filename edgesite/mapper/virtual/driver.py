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

from typing import TYPE_CHECKING, ClassVar, Final

from edgesite.mapper.driver import DeviceState, DriverError
from edgesite.mapper.virtual.thermostat import Room, real
from edgesite.mapper.virtual.waves import wave

if TYPE_CHECKING:
    from edgesite.mapper.driver import Device, Host, Property, Value

__all__ = ["VirtualDriver"]

_EMPTY: Final[dict[str, Value]] = {
    "int": 0,
    "float": 0.0,
    "double": 0.0,
    "boolean": False,
    "bytes": b"",
    "stream": b"",
}


class VirtualDriver:
    """See the module docstring."""

    protocol: ClassVar[str] = "virtual"

    def __init__(self, device: Device, host: Host) -> None:
        self._config, self._clock, self._random = device.config, host.clock, host.random
        self._born = self._at = host.clock.monotonic()
        self._speed = 1.0
        self._room: Room | None = None
        self._cells: dict[str, Value] = {}

    async def connect(self) -> None:
        if self._config.get("offline") in (True, "true"):
            raise DriverError("the machine is switched off (offline: true)")
        if self._room is not None:
            return
        machine = self._config.get("machine", "thermostat")
        if machine not in ("thermostat", "none"):
            raise DriverError(f"machine {machine!r} is none of thermostat, none")
        try:
            self._speed = real(self._config, "speed", 60.0, 0.0, 1e6)
            self._room = Room.of(self._config)
        except ValueError as exc:
            raise DriverError(str(exc)) from exc

    async def read(self, prop: Property) -> Value:
        if "wave" in prop.visitor:
            try:
                return wave(prop.visitor, self._clock.monotonic() - self._born, self._random)
            except ValueError as exc:
                raise DriverError(str(exc)) from exc
        room, quantity = self._now(), self._quantity(prop)
        if self._config.get("machine") == "none" or quantity not in _QUANTITIES:
            return self._cells.get(prop.name, _EMPTY.get(prop.type, ""))
        found: Value = getattr(room, _QUANTITIES[quantity])
        return found if isinstance(found, bool) or prop.type == "int" else round(float(found), 1)

    async def write(self, prop: Property, value: Value) -> None:
        room, quantity = self._now(), self._quantity(prop)
        if "wave" in prop.visitor or (quantity in _QUANTITIES and quantity not in _WRITABLE):
            raise DriverError(f"{quantity} of the machine cannot be written")
        if self._config.get("machine") == "none" or quantity not in _QUANTITIES:
            self._cells[prop.name] = value
            return
        if isinstance(value, str | bytes):
            raise DriverError(f"{quantity} is a number")
        setattr(room, _QUANTITIES[quantity], float(value))

    async def health(self) -> DeviceState:
        return DeviceState.ONLINE

    def _now(self) -> Room:
        if self._room is None:
            raise DriverError("not connected")
        now = self._clock.monotonic()
        self._room.advance((now - self._at) * self._speed)
        self._at = now
        return self._room

    def _quantity(self, prop: Property) -> str:
        return str(prop.visitor.get("quantity") or prop.name)


#: Quantities by the names of properties, and what of the room they are.
_QUANTITIES: Final = {
    "target": "target",
    "temperature": "temperature",
    "actual": "temperature",
    "outside": "outside",
    "heating": "heating",
    "power": "power",
}
_WRITABLE: Final = frozenset({"target", "outside"})
