"""Which pods a NoExecute taint drives off a node, and when. Pure.

A pod of an edge node that is out of reach is not evicted unless that is asked for: it most likely runs on, and a deletion would strike
it when the link returns.

Units   Times are seconds since the epoch.
Source  core/v1 Toleration.tolerationSeconds; kube-controller-manager's taint eviction controller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesite.controlplane.nodelifecycle.health import EVICT, UNREACHABLE, is_edge
from edgesite.controlplane.nodematch import tolerates
from edgesite.kube.times import parse_time

__all__ = ["evicted_at"]

Object = Mapping[str, Any]


def evicted_at(pod: Object, node: Object, now: float, *, edge_too: bool = False) -> float | None:
    """Return when the pod is to go, at the earliest ``now``; None if it may stay. ``edge_too``: edge nodes are like all others."""
    taints = [one for one in (node.get("spec") or {}).get("taints") or () if one.get("effect") == "NoExecute"]
    if is_edge(node) and not edge_too and not _asked(pod) and not _asked(node):
        taints = [one for one in taints if one.get("key") != UNREACHABLE]
    tolerations = pod["spec"].get("tolerations") or ()
    due: float | None = None
    for taint in taints:
        holding = [one for one in tolerations if tolerates(one, taint)]
        if not holding:
            return now
        limits = [float(one["tolerationSeconds"]) for one in holding if one.get("tolerationSeconds") is not None]
        if not limits:
            continue
        added = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else now
        at = max(added + max(min(limits), 0.0), now)
        due = at if due is None else min(due, at)
    return due


def _asked(obj: Object) -> bool:
    return (obj["metadata"].get("annotations") or {}).get(EVICT) == "true"
