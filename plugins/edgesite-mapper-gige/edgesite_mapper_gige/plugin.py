"""The hook of this plugin. The driver, and Aravis with it, is loaded when a node has the first of such devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.hookspecs import DriverFactory

PROTOCOLS: Final = ("gigevision",)


@impl
def edgesite_mapper(protocol: str) -> DriverFactory | None:
    if protocol.casefold() not in PROTOCOLS:
        return None
    from edgesite_mapper_gige.driver import GigEDriver

    return GigEDriver
