"""Topology spread constraints: how evenly the matching pods lie over zones, nodes or any other label.

State   None: computed for one pod from the cache's state.
Source  core/v1 TopologySpreadConstraint (rules: maxSkew, minDomains, node inclusion policies, matchLabelKeys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesite.controlplane.nodematch import first_untolerated, matches_pod_node_rules
from edgesite.controlplane.scheduler.refusal import Refusal
from edgesite.kube.selectors import LabelSelector, from_object

if TYPE_CHECKING:
    from edgesite.controlplane.scheduler.cache import NodeState, PodInfo

__all__ = ["Spread"]


@dataclass(slots=True)
class _Constraint:
    key: str
    max_skew: int
    min_domains: int
    hard: bool
    itself: int  # 1 if the pod counts for the constraint
    selector: LabelSelector
    counts: dict[str, int] = field(default_factory=dict)  # topology value to matching pods


class Spread:
    """The constraints of one pod, with the counts as they are now. Falsy if it has none."""

    def __init__(self, pod: PodInfo, nodes: Sequence[NodeState]) -> None:
        self._constraints = [self._count(one, pod, nodes) for one in pod.spec.get("topologySpreadConstraints") or ()]

    def __bool__(self) -> bool:
        return bool(self._constraints)

    def refusal(self, node: NodeState) -> Refusal | None:
        """Whether a constraint with DoNotSchedule forbids the node."""
        for one in self._constraints:
            if not one.hard:
                continue
            value = node.labels.get(one.key)
            if value is None:
                return Refusal(
                    ("node(s) didn't match pod topology spread constraints (missing required label)",), False
                )
            lowest = min(one.counts.values(), default=0) if len(one.counts) >= one.min_domains else 0
            if one.counts.get(value, 0) + one.itself - lowest > one.max_skew:
                return Refusal(("node(s) didn't match pod topology spread constraints",), True)
        return None

    def crowding(self, node: NodeState) -> float:
        """Matching pods near the node, over the constraints that are wishes only; the fewer the better."""
        return sum(
            one.counts.get(node.labels.get(one.key, ""), 0) / one.max_skew for one in self._constraints if not one.hard
        )

    @staticmethod
    def _count(constraint: Mapping[str, Any], pod: PodInfo, nodes: Sequence[NodeState]) -> _Constraint:
        selector = dict(constraint.get("labelSelector") or {})
        same = [
            {"key": key, "operator": "In", "values": [pod.labels[key]]}
            for key in constraint.get("matchLabelKeys") or ()
            if key in pod.labels
        ]
        if same:
            selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), *same]
        compiled = from_object(selector if constraint.get("labelSelector") is not None else None)
        one = _Constraint(
            constraint.get("topologyKey", ""),
            int(constraint.get("maxSkew") or 1),
            int(constraint.get("minDomains") or 1),
            constraint.get("whenUnsatisfiable") != "ScheduleAnyway",
            int(compiled.matches(pod.labels)),
            compiled,
        )
        tolerations = pod.spec.get("tolerations") or ()
        for node in nodes:
            value = node.labels.get(one.key)
            if value is None:
                continue
            if constraint.get("nodeAffinityPolicy") != "Ignore" and not matches_pod_node_rules(
                pod.spec, node.name, node.labels
            ):
                continue
            if constraint.get("nodeTaintsPolicy") == "Honor" and first_untolerated(
                node.taints, tolerations, ("NoSchedule", "NoExecute")
            ):
                continue
            found = sum(
                other.key.namespace == pod.key.namespace
                and not other.obj["metadata"].get("deletionTimestamp")
                and compiled.matches(other.labels)
                for other in node.pods.values()
            )
            one.counts[value] = one.counts.get(value, 0) + found
        return one
