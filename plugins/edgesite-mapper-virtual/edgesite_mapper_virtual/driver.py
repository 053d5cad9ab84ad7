"""The driver of protocol ``virtual`` with the machines of this distribution added to edgesite's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from edgesite.mapper.virtual.driver import Machine, VirtualDriver
from edgesite_mapper_virtual.press import Press
from edgesite_mapper_virtual.tank import Tank

__all__ = ["MachinesDriver"]


class MachinesDriver(VirtualDriver):
    """See `VirtualDriver`."""

    machines: ClassVar[Mapping[str, Callable[[Mapping[str, Any]], Machine]]] = {
        **VirtualDriver.machines,
        "press": Press.of,
        "tank": Tank.of,
    }
