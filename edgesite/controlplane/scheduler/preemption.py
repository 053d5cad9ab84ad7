"""Which pods of lower priority would have to go so that a pod fits, and on which node that hurts least.

State   None: pure functions of the cache's state.
Source  kube-scheduler, DefaultPreemption (rules: reprieve from the highest priority down; choose by highest victim priority, then
        sum of priorities, then number of victims, then the latest start).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgesite.controlplane.pods import is_terminating
from edgesite.controlplane.scheduler.cache import Cache, NodeState, PodInfo
from edgesite.controlplane.scheduler.filters import NodeFilter
from edgesite.controlplane.scheduler.refusal import Refusal, refused_message

__all__ = ["Plan", "explain", "may_preempt", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Delete ``victims`` and the pod fits on ``node``."""

    node: str
    victims: tuple[PodInfo, ...]


def may_preempt(pod: PodInfo, cache: Cache) -> bool:
    """Whether the pod may ask for room: not if it must not, nor while victims of its own still leave."""
    if pod.spec.get("preemptionPolicy") == "Never":
        return False
    nominated = (pod.obj.get("status") or {}).get("nominatedNodeName")
    node = cache.node(nominated) if nominated else None
    return node is None or not any(
        other.priority < pod.priority and is_terminating(other.obj) for other in node.pods.values()
    )


def plan(
    pod: PodInfo, cache: Cache, judge: NodeFilter, nodes: Sequence[NodeState], refusals: Mapping[str, Refusal]
) -> Plan | None:
    """Return what to do, or None if removing pods of lower priority helps nowhere."""
    plans = []
    for node in nodes:
        refusal = refusals.get(node.name)
        if refusal is None or not refusal.resolvable:
            continue
        found = _victims(pod, cache, judge, node, nodes)
        if found is not None:
            plans.append(Plan(node.name, found))
    return min(plans, key=_cost, default=None)


def explain(total: int, refusals: Mapping[str, Refusal]) -> str:
    """Return why no plan was found, to follow the refusals: "preemption: 0/1 nodes are available: ...."."""
    reasons = [
        Refusal(
            ("No preemption victims found for incoming pod",)
            if one.resolvable
            else ("Preemption is not helpful for scheduling",),
            one.resolvable,
        )
        for one in refusals.values()
    ]
    return f"preemption: {refused_message(total, reasons)}"


def _victims(
    pod: PodInfo, cache: Cache, judge: NodeFilter, node: NodeState, nodes: Sequence[NodeState]
) -> tuple[PodInfo, ...] | None:
    lower = sorted(
        (other for other in node.pods.values() if other.priority < pod.priority),
        key=lambda other: (-other.priority, _started(other), other.uid),
    )
    if not lower:
        return None
    nominated = cache.nominated_to(node.name, pod)
    gone = {other.uid for other in lower}
    if not _fits(judge, node, gone, nominated, nodes):
        return None
    for other in lower:  # let stay whom it does not hurt, the most important first
        if _fits(judge, node, gone - {other.uid}, nominated, nodes):
            gone.discard(other.uid)
    return tuple(other for other in lower if other.uid in gone)


def _fits(
    judge: NodeFilter, node: NodeState, gone: set[str], nominated: Sequence[PodInfo], nodes: Sequence[NodeState]
) -> bool:
    cleared = node.without(gone)
    if judge.depends_on_other_pods:
        judge = judge.without(cleared, nodes)
    return judge.judge(cleared, nominated) is None


def _started(pod: PodInfo) -> str:
    status = pod.obj.get("status") or {}
    return status.get("startTime") or pod.obj["metadata"].get("creationTimestamp") or ""


def _cost(one: Plan) -> tuple[int, int, int, str, str]:
    earliest = min((_started(pod) for pod in one.victims), default="")
    later_is_better = "".join(chr(0x10FFFF - ord(char)) for char in earliest)
    return (
        max((pod.priority for pod in one.victims), default=0),
        sum(pod.priority for pod in one.victims),
        len(one.victims),
        later_is_better,
        one.node,
    )
