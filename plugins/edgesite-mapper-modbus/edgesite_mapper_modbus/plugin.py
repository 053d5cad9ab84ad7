"""The hook of this plugin. The driver, and pymodbus with it, is loaded when a node has the first of such devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.hookspecs import DriverFactory

PROTOCOLS: Final = ("modbus",)


@impl
def edgesite_mapper(protocol: str) -> DriverFactory | None:
    if protocol.casefold() not in PROTOCOLS:
        return None
    from edgesite_mapper_modbus.driver import ModbusDriver

    return ModbusDriver
