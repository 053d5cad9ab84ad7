"""What the workers of all pods share: the runtime, the way to the cloud, paths, facts of the node."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anyio.abc import TaskGroup

from edgesite.context import Clock, Net, Threads
from edgesite.edge.edged.backoff import Backoff
from edgesite.edge.edged.clusterfacts import ClusterFacts
from edgesite.edge.edged.devices.manager import DeviceManager
from edgesite.edge.edged.environment import Facts
from edgesite.edge.edged.events import Events
from edgesite.edge.edged.images import Images
from edgesite.edge.edged.metrics import EdgedMetrics
from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.podgroups import PodGroups
from edgesite.edge.edged.resources import SwapRule, linux_resources
from edgesite.edge.edged.runtime import DnsConfig, LinuxResources, Runtime
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.edge.edged.state import PodState
from edgesite.edge.edged.userranges import UserRanges
from edgesite.edge.edged.volumes.csi.volumes import CsiVolumes
from edgesite.edge.edged.volumes.images import ImageVolumes

if TYPE_CHECKING:
    from edgesite.edge.metamanager.meta import Meta

__all__ = ["NodeFacts", "PodServices"]


@dataclass(slots=True)
class NodeFacts:
    """The node as pods meet it; filled by the node's own task as things become known."""

    name: str
    runtime_name: str = ""  #: "containerd": what container ids in statuses begin with
    ips: tuple[str, ...] = ()
    memory_bytes: int = 0
    swap_bytes: int = 0
    unified_cgroups: bool = False
    mounts: bool = True  #: whether file systems may be mounted here
    cgroup_driver: str = ""  #: as the runtime tells it; "" where it does not
    allocatable_nano: Mapping[str, int] = field(default_factory=dict)  #: cpu, memory, ephemeral-storage
    max_pods: int = 110
    dns: DnsConfig = field(default_factory=DnsConfig)
    hosts_text: str = ""
    #: extended resources that plugins offer: how many there are, and how many are well
    devices: Callable[[], Mapping[str, tuple[int, int]]] = dict
    volumes_in_use: Callable[[], Sequence[str]] = list
    recursive_read_only: bool = False  #: whether a whole tree of mounts can be made read-only here
    labels: Mapping[str, str] = field(default_factory=dict)
    allowed_sysctls: tuple[str, ...] = ()  #: unsafe ones that the configuration allows; "net.*" is all below
    shutting_down: bool = False  #: The host is about to go; no pod is taken any more.
    stress: frozenset[str] = frozenset()  #: conditions of the node that hold: MemoryPressure, DiskPressure, PIDPressure

    @property
    def huge_page_sizes(self) -> list[str]:
        """Those that this host has pages of: "2Mi"."""
        found = [name for name, amount in self.allocatable_nano.items() if amount]
        return [name.removeprefix("hugepages-") for name in found if name.startswith("hugepages-")]

    def seen_by(self, pod_ips: tuple[str, ...]) -> Facts:
        """What the downward API tells a pod with these addresses."""
        return Facts(self.name, self.ips, pod_ips, self.allocatable_nano)


@dataclass(frozen=True, slots=True)
class PodServices:
    settings: EdgedSettings
    node: NodeFacts
    runtime: Runtime
    meta: Meta
    objects: Objects
    cluster: ClusterFacts
    events: Events
    images: Images
    csi: CsiVolumes
    devices: DeviceManager
    image_volumes: ImageVolumes
    cgroups: PodGroups
    users: UserRanges
    paths: Paths
    clock: Clock
    random: random.Random
    threads: Threads
    net: Net
    tasks: TaskGroup  #: of the module: for what goes on beside a worker
    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    metrics: EdgedMetrics
    restarts: Backoff[tuple[str, str]]  #: by pod uid and container
    pods: Callable[[], Iterable[PodState]]  #: of all workers

    def resources_of(self, pod: Pod, container: Mapping[str, Any]) -> LinuxResources:
        """What a container of a pod is limited to on this node."""
        settings, node = self.settings, self.node
        return linux_resources(
            pod,
            dict(container),
            node.memory_bytes,
            cfs_quota=settings.cpu_cfs_quota,
            period_us=settings.cpu_cfs_period_us,
            huge_pages=node.huge_page_sizes,
            swap=SwapRule(settings.swap_behavior, node.swap_bytes, node.unified_cgroups),
        )

    def beside(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run something beside the workers. What goes wrong in it is logged: one pod's trouble must not end the module."""
        self.tasks.start_soon(self._guarded, function, args)

    async def _guarded(self, function: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        try:
            await function(*args)
        except Exception:
            self.log.exception("%s failed", getattr(function, "__qualname__", function))
