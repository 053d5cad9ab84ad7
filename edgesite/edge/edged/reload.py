"""Settings of edged that are taken over while it runs: those that only say when something is looked at, and how much of it is enough.

Evictions, image and log collection go by them from their next look on, the Node's labels and amounts are told to the cloud, and what
concerns containers holds for those that start from then on. Taints are not among them: they are given to a node when it registers, and are
the cluster's from then on, as kubelet has it.

Errors  ValueError: a duration or a size that cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgesite.edge.edged.settings import EdgedSettings

if TYPE_CHECKING:
    from edgesite.edge.edged.events import Events
    from edgesite.edge.edged.node import NodeAgent
    from edgesite.edge.edged.services import NodeFacts
    from edgesite.edge.edged.upkeep import Upkeep

__all__ = ["RELOADS", "Reloader"]

_KUBELET: Final = (
    "clusterDNS",
    "clusterDomain",
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "eventBurst",
    "eventRecordQPS",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "fileCheckFrequency",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMinimumGCAge",
    "maxPods",
    "nodeLeaseDurationSeconds",
    "nodeStatusMaxImages",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
)
RELOADS: Final = frozenset(
    {
        "keepTerminatedPodVolumes",
        "maxContainerCount",
        "maxPerPodContainerCount",
        "minimumGCAge",
        "nodeLabels",
        *(f"tailoredKubeletConfig.{one}" for one in _KUBELET),
    }
)


@dataclass(frozen=True, slots=True)
class Reloader:
    """The parts of a running edged that must hear of it; all others read the shared settings when they need them."""

    settings: EdgedSettings
    node: NodeFacts
    agent: NodeAgent
    events: Events
    upkeep: Upkeep

    def take(self, section: Mapping[str, Any]) -> None:
        """Go on by this ``modules.edged``. Raises ValueError."""
        self.settings.take_over(EdgedSettings.of(section))
        self.node.max_pods = self.settings.max_pods
        self.events.set_rate(self.settings.event_rate, self.settings.event_burst)
        self.upkeep.reload()
        self.agent.reload()
