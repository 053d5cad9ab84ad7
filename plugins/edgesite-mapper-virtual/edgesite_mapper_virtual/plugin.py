"""The hook of this plugin: it answers before edgesite's own driver of the protocol, whose machines it has, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.hookspecs import DriverFactory

PROTOCOLS: Final = ("virtual",)


@impl
def edgesite_mapper(protocol: str) -> DriverFactory | None:
    if protocol.casefold() not in PROTOCOLS:
        return None
    from edgesite_mapper_virtual.driver import MachinesDriver

    return MachinesDriver
