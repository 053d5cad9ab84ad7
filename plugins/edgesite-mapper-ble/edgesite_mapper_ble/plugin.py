"""The hook of this plugin. The driver, and bleak with it, is loaded when a node has the first of such devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.hookspecs import DriverFactory

PROTOCOLS: Final = ("bluetooth", "ble")


@impl
def edgesite_mapper(protocol: str) -> DriverFactory | None:
    if protocol.casefold() not in PROTOCOLS:
        return None
    from edgesite_mapper_ble.driver import BleDriver

    return BleDriver
