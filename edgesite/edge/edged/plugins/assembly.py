"""The node's plugins put together: who finds them, and who has a use for them.

State   See the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgesite.context import Context
from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.plugins.registry import PluginRegistry
from edgesite.edge.edged.volumes.csi.driver import CsiDriver
from edgesite.edge.edged.volumes.csi.node import CsiNodeReport
from edgesite.edge.edged.volumes.csi.records import Records
from edgesite.edge.edged.volumes.csi.volumes import CsiVolumes

if TYPE_CHECKING:
    from edgesite.edge.metamanager.meta import Meta

__all__ = ["NodePlugins"]


class NodePlugins:
    """Parts at once; `start` when pods can be told of drivers that come."""

    def __init__(self, ctx: Context, paths: Paths, meta: Meta, objects: Objects, beside: Callable[..., None]) -> None:
        """``beside(function, *args)`` runs something beside, until edged ends."""
        self._folder = paths.root / "plugins_registry"
        self._threads, self._beside = ctx.threads, beside
        self._listeners: list[Callable[[], None]] = []
        self._report = CsiNodeReport(meta, ctx.node_name, ctx.clock, ctx.random, ctx.log, lambda: objects.cloud_is_ours)
        self.csi = CsiVolumes(
            Records(paths), ctx.node_name, objects, ctx.threads, ctx.log, self._drivers_changed, beside
        )
        self._registry = PluginRegistry(
            self._folder, {"CSIPlugin": self.csi}, ctx.clock, ctx.random, ctx.threads, ctx.log, beside
        )

    async def start(self, changed: Callable[[], None]) -> None:
        """Find plugins from now on; ``changed`` is told when what pods wait for may be there. Raises OSError."""
        self._listeners.append(changed)
        await self._threads.run(_make_folder, self._folder)
        self._beside(self._report.run)
        self._beside(self._registry.run)

    def _drivers_changed(self, drivers: Mapping[str, CsiDriver]) -> None:
        self._report.changed(drivers)
        for listener in self._listeners:
            listener()


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
