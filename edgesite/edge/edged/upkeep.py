"""What goes on beside the pods' own work: logs are kept small, unused images and old containers removed, the node's resources watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgesite.edge.edged.containergc import ContainerCollector
from edgesite.edge.edged.eviction.manager import EvictionParts, Evictions
from edgesite.edge.edged.imagegc import ImageCollector
from edgesite.edge.edged.logrotation import LogRotation
from edgesite.edge.edged.machine import Machine
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.shutdown.manager import NodeShutdown

if TYPE_CHECKING:
    from pathlib import Path

    from edgesite.edge.edged.pods import Pods

__all__ = ["Upkeep"]


class Upkeep:
    """`prepare` before the node is reported for the first time, then `start`."""

    def __init__(
        self,
        services: PodServices,
        pods: Pods,
        machine: Machine,
        data_dir: Path,
        *,
        changed: Callable[[], None],
        report: Callable[[str, str, str], None],
    ) -> None:
        """``changed``: the node's conditions are others; ``report(type, reason, message)`` speaks of the node."""
        settings, runtime, clock, threads = services.settings, services.runtime, services.clock, services.threads
        self._services = services
        self._rotation = LogRotation(
            runtime,
            clock,
            threads,
            services.log,
            pods.states,
            max_bytes=settings.log_max_bytes,
            max_files=settings.log_max_files,
        )
        self._images = ImageCollector(
            runtime,
            machine,
            clock,
            threads,
            settings,
            services.log,
            pods=lambda: (one.pod for one in pods.states()),
            report=report,
        )
        self._containers = ContainerCollector(services, pods.states)
        self._evictions = Evictions(
            EvictionParts(
                settings, services.node, runtime, machine, self._images, services.paths, clock, threads, services.log
            ),
            data_dir,
            pods=pods.states,
            terminate=pods.terminate,
            changed=changed,
            report=report,
        )
        self._shutdown = NodeShutdown(services, pods, changed=changed)

    async def prepare(self) -> None:
        """Find out what the node is short of already. Raises OSError."""
        await self._evictions.note_stress()

    def reload(self) -> None:
        """Go on by the settings as they are now."""
        settings = self._services.settings
        self._rotation.max_bytes, self._rotation.max_files = settings.log_max_bytes, settings.log_max_files
        self._evictions.reload()

    def start(self) -> None:
        for part in (self._rotation, self._images, self._containers, self._evictions, self._shutdown):
            self._services.beside(part.run)
