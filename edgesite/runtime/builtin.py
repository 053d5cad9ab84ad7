"""Plugin ``runtime``: the modules that belong to the host itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgesite.hookspecs import impl

if TYPE_CHECKING:
    from edgesite.context import Module, Settings


@impl
def edgesite_modules(settings: Settings) -> Iterable[type[Module]]:
    monitored = settings.cloud is not None and settings.cloud.get("commonConfig", {}).get("monitorServer", {}).get(
        "bindAddress"
    )
    if not settings.edges and not monitored:
        return []
    from edgesite.runtime.healthserver import HealthServer, MonitorServer

    return [HealthServer, *([MonitorServer] if monitored else [])]
