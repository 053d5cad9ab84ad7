"""metrics.k8s.io: the kinds, and what a node's summary tells, in their form.

Units   CPU in nanocores, memory in KiB, as metrics-server tells them.
Errors  None: what is not known (yet) is None.
State   None.
Source  Metrics API v1beta1 (NodeMetrics, PodMetrics); kubelet's /stats/summary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgesite.kube import times
from edgesite.kube.resourcetable import Resource

__all__ = ["GROUP", "ROWS", "node_metrics", "pod_metrics"]

Object = dict[str, Any]
GROUP: Final = "metrics.k8s.io"
_READ: Final = ("get", "list")
ROWS: Final = (
    Resource(GROUP, "v1beta1", "NodeMetrics", "nodes", namespaced=False, verbs=_READ),
    Resource(GROUP, "v1beta1", "PodMetrics", "pods", verbs=_READ),
)
_WINDOW: Final = "10s"


def node_metrics(metadata: Mapping[str, Any], summary: Mapping[str, Any]) -> Object | None:
    """A node by its summary."""
    told = summary["node"]
    usage = _usage(told)
    return {**_common(metadata, told), "usage": usage} if usage is not None else None


def pod_metrics(metadata: Mapping[str, Any], told: Mapping[str, Any]) -> Object | None:
    """A pod by its part of a summary; None while it has a container without figures, or none."""
    containers = []
    for one in told.get("containers") or ():
        usage = _usage(one)
        if usage is None:
            return None
        containers.append({"name": one["name"], "usage": usage})
    return {**_common(metadata, told), "containers": containers} if containers else None


def _common(metadata: Mapping[str, Any], told: Mapping[str, Any]) -> Object:
    kept = {name: metadata[name] for name in ("name", "namespace", "labels") if name in metadata}
    at = (told.get("cpu") or {}).get("time") or times.format_time(0)
    return {"metadata": {**kept, "creationTimestamp": at}, "timestamp": at, "window": _WINDOW}


def _usage(told: Mapping[str, Any]) -> Object | None:
    """CPU and memory, None where one is not known (yet)."""
    cpu = (told.get("cpu") or {}).get("usageNanoCores")
    memory = (told.get("memory") or {}).get("workingSetBytes")
    if not isinstance(cpu, int) or not isinstance(memory, int):
        return None
    return {"cpu": f"{cpu}n", "memory": f"{memory // 1024}Ki"}
