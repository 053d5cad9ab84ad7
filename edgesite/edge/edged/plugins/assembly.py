"""The node's plugins put together: who finds them, and who has a use for them.

State   See the parts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgesite.context import Context, Folders
from edgesite.edge.edged.devices.manager import DeviceManager
from edgesite.edge.edged.events import Events
from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.plugins.registry import PluginKind, PluginRegistry
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.edge.edged.volumes.csi.attachments import Attachments
from edgesite.edge.edged.volumes.csi.expansion import Expansion
from edgesite.edge.edged.volumes.csi.node import CsiNodeReport
from edgesite.edge.edged.volumes.csi.records import Records
from edgesite.edge.edged.volumes.csi.volumes import CsiVolumes

if TYPE_CHECKING:
    from edgesite.edge.edged.volumes.csi.driver import CsiDriver
    from edgesite.edge.metamanager.meta import Meta

__all__ = ["NodePlugins"]


class NodePlugins:
    """Parts at once; `load` before pods are looked at, `start` when they can be told of plugins that come."""

    def __init__(
        self,
        ctx: Context,
        settings: EdgedSettings,
        paths: Paths,
        meta: Meta,
        objects: Objects,
        *,
        events: Events,
        running: Callable[[], list[Pod]],
        beside: Callable[..., None],
        tell_in_use: Callable[[], Awaitable[Mapping[str, Any]]],
        node_changed: Callable[[], None],
    ) -> None:
        """``running`` gives the pods that have not ended; ``beside(function, *args)`` runs something beside, until edged ends.
        ``tell_in_use`` has the cloud know which volumes are in use and returns the Node; ``node_changed`` is told when there are more
        devices or fewer, or fewer volumes are in use."""
        self._folder = paths.root / "plugins_registry"
        self._devices_folder = settings.device_plugins or paths.root / "device-plugins"
        self._ctx, self._threads, self._beside = ctx, ctx.threads, beside
        self._running = running
        self._resources_folder = settings.pod_resources or paths.root / "pod-resources"
        self._listeners: list[Callable[[], None]] = []
        self._report = CsiNodeReport(meta, ctx.node_name, ctx.clock, ctx.random, ctx.log, lambda: objects.cloud_is_ours)
        self._node_changed = node_changed
        records = Records(paths)
        self.csi = CsiVolumes(
            records,
            ctx.node_name,
            objects,
            ctx.net,
            ctx.threads,
            ctx.log,
            self._drivers_changed,
            beside,
            Attachments(ctx.node_name, objects, tell_in_use, node_changed),
            Expansion(records, objects, events, ctx.clock, ctx.threads),
        )
        self.devices = DeviceManager(
            self._devices_folder,
            ctx.net,
            ctx.clock,
            ctx.threads,
            ctx.log,
            active=lambda: {one.uid for one in running()},
            beside=beside,
        )
        self._kinds: dict[str, PluginKind] = {"CSIPlugin": self.csi, "DevicePlugin": self.devices}

    async def load(self) -> None:
        """Read what plugins gave before. Raises OSError."""
        await self._threads.run(self._make_folders)
        await self.devices.load(self._node_changed)
        await self.csi.load()

    async def start(self, folders: Folders, changed: Callable[[], None], *, with_devices: bool) -> None:
        """Find plugins from now on; ``changed`` is told when what pods wait for may be there. Containers of a runtime that does not
        isolate them have the host's devices anyway: there ``with_devices`` is False."""
        self._listeners.append(changed)
        self._beside(self._report.run)
        ctx = self._ctx
        registry = PluginRegistry(
            self._folder, folders, self._kinds, ctx.net, ctx.clock, ctx.random, ctx.threads, ctx.log, self._beside
        )
        self._beside(registry.run)
        if with_devices:
            from edgesite.edge.edged.devices.server import RegistrationServer

            server = RegistrationServer(self._devices_folder, self.devices, ctx.net, ctx.threads, ctx.log)
            self._beside(server.run)
            from edgesite.edge.edged.devices.podresources import PodResourcesServer

            resources = PodResourcesServer(self._resources_folder, self.devices, self._running, ctx.net, ctx.threads)
            self._beside(resources.run)

    def _drivers_changed(self, drivers: Mapping[str, CsiDriver]) -> None:
        self._report.changed(drivers)
        for listener in self._listeners:
            listener()

    def _make_folders(self) -> None:
        for folder in (self._folder, self._devices_folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
