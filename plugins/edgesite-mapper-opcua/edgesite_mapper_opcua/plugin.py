"""The hook of this plugin. The driver, and asyncua with it, is loaded when a node has the first of such devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.hookspecs import DriverFactory

PROTOCOLS: Final = ("opcua",)


@impl
def edgesite_mapper(protocol: str) -> DriverFactory | None:
    if protocol.casefold() not in PROTOCOLS:
        return None
    from edgesite_mapper_opcua.driver import OpcUaDriver

    return OpcUaDriver
