"""What follows from a node's silence and from its conditions. Pure.

Source  kube-controller-manager's node lifecycle controller (conditions, reasons, taint keys and effects).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgesite.controlplane.pods import condition
from edgesite.kube.times import format_time

__all__ = ["EDGE", "EVICT", "NOT_READY", "UNREACHABLE", "heartbeat", "is_edge", "silenced", "with_taints"]

NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
EDGE: Final = "node-role.kubernetes.io/edge"
#: On a node or a pod, "true": evict when the node is out of reach, even though it is an edge node that works on by itself.
EVICT: Final = "edgesite.kubeedge.io/evict-unreachable"
_PRESSURES: Final = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_CORDON: Final = "node.kubernetes.io/unschedulable"
_OURS: Final = frozenset(
    {(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute"), (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
    | {(key, "NoSchedule") for key in (*_PRESSURES.values(), _CORDON)}
)
_REPORTED: Final = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
Object = dict[str, Any]


def is_edge(node: Mapping[str, Any]) -> bool:
    return EDGE in (node["metadata"].get("labels") or {})


def heartbeat(node: Mapping[str, Any]) -> Any:
    """Return what differs after each status report of a node, changed or not."""
    return [one.get("lastHeartbeatTime") for one in (node.get("status") or {}).get("conditions") or ()]


def silenced(node: Mapping[str, Any], now: float) -> list[Object] | None:
    """Return the conditions of a node that has gone silent; None if they say so already."""
    stamp = format_time(now)
    conditions = [dict(one) for one in (node.get("status") or {}).get("conditions") or ()]
    changed = False
    for kind in _REPORTED:
        old = next((one for one in conditions if one.get("type") == kind), None)
        if old is None:
            conditions.append(
                {
                    "type": kind,
                    "status": "Unknown",
                    "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": node["metadata"].get("creationTimestamp"),
                    "lastTransitionTime": stamp,
                }
            )
            changed = True
        elif old.get("status") != "Unknown":
            old.update(
                status="Unknown",
                reason="NodeStatusUnknown",
                message="Kubelet stopped posting node status.",
                lastTransitionTime=stamp,
            )
            changed = True
    return conditions if changed else None


def with_taints(node: Mapping[str, Any], now: float) -> list[Object] | None:
    """Return the taints that follow from the node's conditions, beside those of others; None if it has them already."""
    wanted = _wanted(node)
    have: list[Object] = list((node.get("spec") or {}).get("taints") or ())
    kept = [one for one in have if _id(one) not in _OURS or _id(one) in wanted]
    there = {_id(one) for one in kept}
    missing = [one for one in wanted if one not in there]
    if len(kept) == len(have) and not missing:
        return None
    for key, effect in missing:
        kept.append(
            {"key": key, "effect": effect, **({"timeAdded": format_time(now)} if effect == "NoExecute" else {})}
        )
    return kept


def _id(taint: Mapping[str, Any]) -> tuple[str, str]:
    return taint.get("key", ""), taint.get("effect", "")


def _wanted(node: Mapping[str, Any]) -> list[tuple[str, str]]:
    ready = condition(node, "Ready")
    status = ready.get("status") if ready is not None else "False"
    wanted = []
    if status == "False":
        wanted += [(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]
    elif status != "True":
        wanted += [(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]
    for kind, key in _PRESSURES.items():
        found = condition(node, kind)
        if found is not None and found.get("status") == "True":
            wanted.append((key, "NoSchedule"))
    if (node.get("spec") or {}).get("unschedulable"):
        wanted.append((_CORDON, "NoSchedule"))
    return wanted
