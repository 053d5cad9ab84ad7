"""Which nodes a job is for, and how each of their edges is told; pure.

    v1.12 to v1.15    upgrades alone: source and group ``nodeupgradejobcontroller``, answered by POST /nodeupgrade
    v1.21 and ours    source and group ``taskmanager``, operation = first action, content = the job's spec, answered over the hub

Edges of v1.16 to v1.20 have a protocol of their own, which is not spoken here.

Source  KubeEdge v1.12.7 cloud/pkg/nodeupgradejobcontroller; v1.23.1 (recorded); v1.21 (resource names).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from edgesite.kube.selectors import from_object

__all__ = ["BUSY", "Speech", "is_edge", "nodes_of", "own_version", "speech_of"]

Object = dict[str, Any]
BUSY: Final = "nodeupgradejob.operations.kubeedge.io/status"  #: label: an upgrade is under way
_EDGE: Final = "node-role.kubernetes.io/edge"
_VERSION: Final = re.compile(r"-kubeedge-(v(\d+)\.(\d+)\.\S*)")
_TASKS: Final = (1, 21)
_OLD: Final = ((1, 12), (1, 16))


class Speech(Enum):
    """How an edge is told."""

    UPGRADE_ONLY = "upgrade only"
    TASKS = "tasks"
    NONE = "none"


def own_version(node: Object) -> str:
    """The version of KubeEdge in a Node, "v1.12.7"; "" if it tells none."""
    found = _VERSION.search(_kubelet(node))
    return found[1] if found else ""


def speech_of(node: Object, *, is_ours: bool) -> Speech:
    """How this node's edge is told; ``is_ours``: it is connected, and one of ours."""
    found = _VERSION.search(_kubelet(node))
    if is_ours:
        return Speech.TASKS
    if found is None:
        return Speech.NONE
    version = (int(found[2]), int(found[3]))
    if version >= _TASKS:
        return Speech.TASKS
    return Speech.UPGRADE_ONLY if _OLD[0] <= version < _OLD[1] else Speech.NONE


def is_edge(node: Object) -> bool:
    """KubeEdge's rule: the label is there, and empty."""
    return (node["metadata"].get("labels") or {}).get(_EDGE) == ""


def nodes_of(nodes: Iterable[Object], spec: Object) -> list[Object]:
    """The edge nodes that a job names, or else selects; an empty selection selects none."""
    named, selector = spec.get("nodeNames") or (), spec.get("labelSelector")
    if named:
        found = {node["metadata"]["name"]: node for node in nodes}
        return [found[name] for name in dict.fromkeys(named) if name in found and is_edge(found[name])]
    if not selector:
        return []
    matches = from_object(selector).matches
    chosen = [node for node in nodes if is_edge(node) and matches(node["metadata"].get("labels") or {})]
    return sorted(chosen, key=lambda node: str(node["metadata"]["name"]))


def _kubelet(node: Object) -> str:
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion") or "")
