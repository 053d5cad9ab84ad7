"""What a driver is, and what it is told of its device.

A driver object serves one device from its first connection until the device goes or its configuration changes; the SDK calls it from one
task at a time, so it needs no locks. All waiting of a driver is bounded from outside: each call is cancelled at its deadline.

Units   Cycles are seconds.
Errors  DriverError for what the machine or the way to it refuses: it is counted, logged once and tried again. Anything else is a bug of
        the driver, logged with its traceback; it ends neither the mapper nor other devices.
State   A driver's own; the SDK holds its values.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, MutableMapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import logging
    from random import Random

    from edgesite.context import Clock, Net, Threads

__all__ = ["Device", "DeviceState", "Driver", "DriverError", "Host", "Property", "Value"]

Value = bool | int | float | str | bytes


class DriverError(Exception):
    """The machine cannot be reached, or refuses. The text goes to logs, metrics and events: no secrets in it."""


class DeviceState(Enum):
    """The words of a Device's ``status.state``."""

    ONLINE = "online"
    OFFLINE = "offline"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Property:
    """One property of the device: its model's words and the instance's visitor, joined."""

    name: str
    type: str  #: "int", "float", "double", "string", "boolean", "bytes" or "stream"
    writable: bool
    visitor: Mapping[str, Any] = field(
        default_factory=dict
    )  #: the protocol's own part: ``visitors.configData``, or the section of v1alpha2
    minimum: str = ""
    maximum: str = ""
    unit: str = ""
    collect_every: float = 10.0  #: how often it is read
    report_every: float = 10.0  #: how often it is reported at most
    report_to_cloud: bool = True
    push: Mapping[str, Any] = field(default_factory=dict)  #: ``pushMethod`` of v1beta1: where values go besides


@dataclass(frozen=True, slots=True)
class Device:
    namespace: str
    name: str
    model: str
    protocol: str
    config: Mapping[
        str, Any
    ]  #: the protocol's own part of the device: ``protocol.configData``, or the section of v1alpha2
    properties: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """What a driver may use of the process it runs in; the same as a plugin's context has, so that tests can replace it."""

    net: Net
    clock: Clock
    threads: Threads
    random: Random
    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    shared: MutableMapping[Hashable, Any] = field(
        default_factory=dict, compare=False
    )  #: one for all devices of a mapper: where drivers keep what they share, as the line that several machines are on


class Driver(Protocol):
    """Implement these. `connect` is called before anything else and again after a failure; `close` need not be there."""

    protocol: ClassVar[str]  #: as devices name it: "modbus", "opcua", ...

    def __init__(self, device: Device, host: Host) -> None: ...

    async def connect(self) -> None:
        """Reach the machine. Called again after losses; must leave nothing of an earlier connection. Raises DriverError."""
        ...

    async def read(self, prop: Property) -> Value:
        """Return the property's raw value. bytes are converted by the visitor's words (scale, orders, shifts). Raises DriverError."""
        ...

    async def write(self, prop: Property, value: Value) -> None:
        """Have the machine take the value, which is within the model's bounds and of the property's type. Raises DriverError."""
        ...

    async def health(self) -> DeviceState:
        """Say how the machine is. Raises DriverError, which means OFFLINE."""
        ...
