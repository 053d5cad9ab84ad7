"""Which pod goes first, and what it is told. Pure.

Units   Bytes.
Source  Kubernetes: "Node-pressure Eviction", pod selection: who uses more than requested first, then the lower priority, then who is
        further above the request; critical and static pods are never chosen. Texts as kubelet words them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from edgesite.edge.edged.eviction.thresholds import RESOURCES, Observation, Threshold
from edgesite.edge.edged.pod import Pod, amount_nano, effective_requests
from edgesite.edge.edged.resources import is_critical
from edgesite.edge.edged.state import Termination
from edgesite.kube.quantity import of

__all__ = ["Usage", "choose", "has_storage_limits", "local_storage_excess", "termination"]

_NANO: Final = 10**9
_BINARY: Final = 1024


@dataclass(slots=True)
class Usage:
    """What one pod uses now. Storage counts writable layers, logs and emptyDirs on disk."""

    memory: dict[str, int] = field(default_factory=dict)  #: by container
    storage: dict[str, int] = field(default_factory=dict)  #: by container: writable layer and logs
    volumes: dict[str, int] = field(default_factory=dict)  #: by emptyDir volume

    def total(self, resource: str) -> int:
        if resource == "memory":
            return sum(self.memory.values())
        if resource == "pids":
            return 0  # no runtime tells: the priority decides
        return sum(self.storage.values()) + sum(self.volumes.values())


def choose(threshold: Threshold, pods: Iterable[tuple[Pod, Usage]]) -> list[Pod]:
    """Return the pods that may be evicted, the first to go first."""
    resource = RESOURCES[threshold.signal]

    def rank(one: tuple[Pod, Usage]) -> tuple[bool, int, int, str]:
        pod, usage = one
        used = usage.total(resource)
        asked = effective_requests(pod, resource) // _NANO if resource in ("memory", "ephemeral-storage") else 0
        above = resource in ("memory", "ephemeral-storage") and used > asked
        return (not above, int(pod.spec.get("priority") or 0), asked - used, pod.uid)

    return [pod for pod, _ in sorted((one for one in pods if not is_critical(one[0])), key=rank)]


def termination(threshold: Threshold, seen: Observation, pod: Pod, usage: Usage) -> Termination:
    """Return what an evicted pod's status says."""
    resource = RESOURCES[threshold.signal]
    least, left = threshold.least(seen.capacity), seen.available
    text = f"The node was low on resource: {resource}. Threshold quantity: {_shown(least, resource)}, available: {_shown(left, resource)}. "
    if resource in ("memory", "ephemeral-storage"):
        amounts = usage.memory if resource == "memory" else usage.storage
        for container in pod.containers:
            used, name = amounts.get(container["name"], 0), container["name"]
            asked = amount_nano(container, "requests", resource) // _NANO
            if used > asked:
                text += f"Container {name} was using {_shown(used, resource)}, request is {_shown(asked, resource)}, has larger consumption of {resource}. "
    return Termination("Evicted", text, disruption=True)


def _shown(amount: int, resource: str) -> str:
    if resource in ("pids", "inodes"):
        return str(amount)
    return f"{amount // _BINARY}Ki" if amount % _BINARY == 0 and amount else str(amount)


def local_storage_excess(pod: Pod, usage: Usage) -> Termination | None:
    """Return why the pod has used up its own limits of local storage, or None."""
    for volume in pod.spec.get("volumes") or ():
        limit = _limit((volume.get("emptyDir") or {}).get("sizeLimit"))
        if limit and usage.volumes.get(volume["name"], 0) > limit:
            text = (
                f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{volume["emptyDir"]["sizeLimit"]}". '
            )
            return Termination("Evicted", text, disruption=True)
    total, limited = 0, bool(pod.containers)
    for container in pod.containers:
        limit = amount_nano(container, "limits", "ephemeral-storage") // _NANO
        if limit and usage.storage.get(container["name"], 0) > limit:
            asked = container["resources"]["limits"]["ephemeral-storage"]
            said = f'Container {container["name"]} exceeded its local ephemeral storage limit "{asked}". '
            return Termination("Evicted", said, disruption=True)
        total, limited = total + limit, limited and bool(limit)
    if limited and usage.total("ephemeral-storage") > total:
        said = f"Pod ephemeral local storage usage exceeds the total limit of containers {of(total)}. "
        return Termination("Evicted", said, disruption=True)
    return None


def _limit(text: Any) -> int:
    return amount_nano({"resources": {"limits": {"x": text}}}, "limits", "x") // _NANO if text else 0


def has_storage_limits(pod: Pod) -> bool:
    """Whether the pod's use of the disk has to be looked at even when there is plenty."""
    if any((volume.get("emptyDir") or {}).get("sizeLimit") for volume in pod.spec.get("volumes") or ()):
        return True
    return any(amount_nano(one, "limits", "ephemeral-storage") for one in pod.containers)
