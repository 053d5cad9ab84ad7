"""Which of the nodes that can take a pod suits it best.

Units   Each scorer rates from 0 to 100; the weights are kube-scheduler's defaults.
State   None: pure functions of the cache's state.
Source  kube-scheduler's in-tree plugins (rules and weights): TaintToleration 3, NodeAffinity 2, PodTopologySpread 2, InterPodAffinity 2,
        NodeResourcesFit (LeastAllocated) 1, NodeResourcesBalancedAllocation 1, ImageLocality 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.controlplane.nodematch import matches_term, tolerates
from edgesite.controlplane.scheduler.cache import NodeState, PodInfo
from edgesite.controlplane.scheduler.spreading import Spread

__all__ = ["rate"]

MOST: Final = 100.0
IMAGE_MIN_BYTES: Final = 23 << 20
IMAGE_MAX_BYTES: Final = 1000 << 20
Labels = Mapping[str, str]


def rate(
    pod: PodInfo, fitting: Sequence[NodeState], nodes: Sequence[NodeState], namespace_labels: Mapping[str, Labels]
) -> list[float]:
    """Return the rating of each of the ``fitting`` nodes among all ``nodes``; the highest is best."""
    if len(fitting) == 1:
        return [0.0]
    spread = Spread(pod, nodes)
    near = _nearness(pod, nodes, namespace_labels)
    columns = (
        (3.0, _inverted([_disliked_taints(pod, node) for node in fitting])),
        (2.0, _normalized([_preferred_nodes(pod, node) for node in fitting])),
        (2.0, _normalized([_pull(node, near) for node in fitting])),
        (2.0, _inverted([spread.crowding(node) if spread else _siblings(pod, node) for node in fitting])),
        (1.0, [_least_allocated(pod, node) for node in fitting]),
        (1.0, [_balanced(pod, node) for node in fitting]),
        (1.0, [_image_locality(pod, node, nodes) for node in fitting]),
    )
    return [sum(weight * column[at] for weight, column in columns) for at in range(len(fitting))]


def _normalized(raw: Sequence[float]) -> list[float]:
    low, high = min(raw), max(raw)
    low = min(low, 0.0)
    return [0.0 if high == low else MOST * (one - low) / (high - low) for one in raw]


def _inverted(raw: Sequence[float]) -> list[float]:
    high = max(raw)
    return [MOST if not high else MOST * (1.0 - one / high) for one in raw]


def _disliked_taints(pod: PodInfo, node: NodeState) -> float:
    tolerations: Sequence[Mapping[str, Any]] = pod.spec.get("tolerations") or ()
    disliked = [one for one in node.taints if one.get("effect") == "PreferNoSchedule"]
    return float(sum(not any(tolerates(one, taint) for one in tolerations) for taint in disliked))


def _preferred_nodes(pod: PodInfo, node: NodeState) -> float:
    affinity = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    wishes = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return float(sum(one["weight"] for one in wishes if matches_term(one["preference"], node.name, node.labels)))


def _nearness(
    pod: PodInfo, nodes: Sequence[NodeState], namespace_labels: Mapping[str, Labels]
) -> dict[tuple[str, str], float]:
    """Return how strongly each topology value draws the pod: its own wishes, and those of the pods that are there."""
    found: dict[tuple[str, str], float] = {}

    def add(node: NodeState, key: str, weight: float) -> None:
        if (value := node.labels.get(key)) is not None:
            found[key, value] = found.get((key, value), 0.0) + weight

    for node in nodes:
        for term in pod.preferred:
            for other in node.pods.values():
                if term.matches(other, namespace_labels):
                    add(node, term.topology_key, term.weight)
        for other in node.choosy.values():
            for term in other.preferred:
                if term.matches(pod, namespace_labels):
                    add(node, term.topology_key, term.weight)
            for term in other.affinity:  # a required term of a pod there is a mild wish for this one
                if term.matches(pod, namespace_labels):
                    add(node, term.topology_key, 1.0)
    return found


def _pull(node: NodeState, near: Mapping[tuple[str, str], float]) -> float:
    return sum(weight for (key, value), weight in near.items() if node.labels.get(key) == value)


def _siblings(pod: PodInfo, node: NodeState) -> float:
    return float(node.owners.get(pod.owner, 0)) if pod.owner else 0.0


def _used_after(pod: PodInfo, node: NodeState) -> tuple[float, float]:
    """Return the shares of CPU and memory that are taken once the pod is there, from 0 to 1."""
    cpu, memory = node.allocatable.get("cpu", 0), node.allocatable.get("memory", 0)
    return (
        min((node.weight[0] + pod.weight[0]) / cpu, 1.0) if cpu else 1.0,
        min((node.weight[1] + pod.weight[1]) / memory, 1.0) if memory else 1.0,
    )


def _least_allocated(pod: PodInfo, node: NodeState) -> float:
    cpu, memory = _used_after(pod, node)
    return MOST * (1.0 - (cpu + memory) / 2.0)


def _balanced(pod: PodInfo, node: NodeState) -> float:
    cpu, memory = _used_after(pod, node)
    return MOST * (1.0 - abs(cpu - memory) / 2.0)


def _image_locality(pod: PodInfo, node: NodeState, nodes: Sequence[NodeState]) -> float:
    containers = [*(pod.spec.get("initContainers") or ()), *(pod.spec.get("containers") or ())]
    here = 0.0
    for container in containers:
        image = _full_name(container.get("image") or "")
        if size := node.images.get(image):
            here += size * sum(image in other.images for other in nodes) / len(nodes)
    low, high = IMAGE_MIN_BYTES, IMAGE_MAX_BYTES * max(len(containers), 1)
    return MOST * (min(max(here, low), high) - low) / (high - low)


def _full_name(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"
