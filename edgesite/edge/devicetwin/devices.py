"""`Devices`: the devices and models of this node, and what mappers report of them. Provided by module ``devicetwin``.

Objects are those of devices.kubeedge.io/v1beta1, whatever the cloud sent: `edgesite.kube.devices.to_v1alpha2` gives the older form.
They are read from disk when asked for; a thousand of them in memory would be worth more than the rest of the program.

Units   Times are milliseconds since the Unix epoch (``*_ms``).
Errors  ApiError NotFound for a device that is not here, Invalid for values that its model does not allow, InternalError for the disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["DeviceChange", "DeviceWatch", "Devices", "Reported"]


@dataclass(frozen=True, slots=True)
class Reported:
    """The value of one property, as a mapper reads it."""

    property: str
    value: str
    timestamp_ms: int | None = None  #: when it was read; None: now
    type: str = ""  #: "int", "float", ...: what the mapper says; "" leaves it to the model
    observed_desired: str | None = None  #: the desired value that the mapper acts upon (v1beta1)


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """A device or a model has come, changed or gone. Read it with `Devices.device` or `Devices.model`."""

    kind: Literal["device", "devicemodel"]
    operation: Literal["insert", "update", "delete"]
    namespace: str
    name: str


class DeviceWatch(Protocol):
    """Changes from the moment on at which it was made. Of several changes of one object that wait, the newest is told."""

    def __aiter__(self) -> AsyncIterator[DeviceChange]: ...

    def close(self) -> None: ...


class Devices(Protocol):
    """See the module docstring."""

    async def device(self, namespace: str, name: str) -> dict[str, Any] | None: ...

    async def model(self, namespace: str, name: str) -> dict[str, Any] | None: ...

    async def devices(self) -> list[dict[str, Any]]: ...

    async def models(self) -> list[dict[str, Any]]: ...

    def namespace_of(self, name: str) -> str | None:
        """The namespace of the device that a bare name means, as DMI v1alpha1 has it: the one in "default", else the only one."""
        ...

    def watch(self) -> DeviceWatch:
        """Close it at the end. Desired values are part of the device: a change of one is an update."""
        ...

    async def report_twins(self, namespace: str, name: str, values: Sequence[Reported]) -> None:
        """Take values as a publication on ``.../twin/update`` would be taken, all or none; on return they are durable.

        The answer is published on MQTT besides. Raises ApiError.
        """
        ...

    async def report_state(self, namespace: str, name: str, state: str) -> None:
        """Take the state of a device ("online", "offline", ...). Raises ApiError; Invalid for a word that is no state."""
        ...

    def last_online(self, namespace: str, name: str) -> str:
        """When a state was last taken, as RFC 3339 in UTC; "" if never."""
        ...
