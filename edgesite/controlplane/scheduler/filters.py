"""Which nodes can take a pod, and why the others cannot, in kube-scheduler's words.

State   None: pure functions of the cache's state.
Source  kube-scheduler's in-tree plugins (rules and messages): NodeUnschedulable, NodeName, TaintToleration, NodeAffinity, NodePorts,
        NodeResourcesFit, VolumeRestrictions, VolumeBinding, PodTopologySpread, InterPodAffinity.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgesite.controlplane.nodematch import first_untolerated, matches_pod_node_rules, tolerates
from edgesite.controlplane.persistentvolumes.matching import claims_of
from edgesite.controlplane.scheduler.cache import NodeState, PodInfo
from edgesite.controlplane.scheduler.refusal import Refusal
from edgesite.controlplane.scheduler.spreading import Spread

__all__ = ["NodeFilter"]

Labels = Mapping[str, str]
_SOLE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
UNSCHEDULABLE = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


@dataclass(slots=True)
class _Affinity:
    """Where pod affinity draws an incoming pod and where anti-affinity keeps it away, by (topology key, value)."""

    existing_anti: set[tuple[str, str]] = field(default_factory=set)
    anti: set[tuple[str, str]] = field(default_factory=set)
    near: list[set[str]] = field(default_factory=list)  # for each required term, topology values with a match
    alone: bool = False  # no pod anywhere matches, and the pod matches its own terms: the first of its group


class NodeFilter:
    """Judges nodes for one pod; what depends on all nodes is computed once."""

    def __init__(
        self,
        pod: PodInfo,
        nodes: Sequence[NodeState],
        namespace_labels: Mapping[str, Labels],
        judge_volumes: Callable[[NodeState], Refusal | None] | None = None,
        sole_claims: Collection[str] = (),
    ) -> None:
        """``judge_volumes`` says why a node cannot have the pod's volumes; None: it has none that matter. ``sole_claims`` are those of
        them which no other pod may use, wherever it is."""
        self._pod = pod
        self._sole_claims = sole_claims
        self._sole_taken = bool(sole_claims) and any(self._shares(one) for node in nodes for one in node.pods.values())
        self._judge_volumes = judge_volumes
        self._tolerations: Sequence[Mapping[str, Any]] = pod.spec.get("tolerations") or ()
        self._namespace_labels = namespace_labels
        self._affinity = self._prepare_affinity(nodes)
        self._spread = Spread(pod, nodes)

    def judge(self, node: NodeState, nominated: Sequence[PodInfo] = ()) -> Refusal | None:
        """Return why ``node`` cannot take the pod beside what is on it and what is ``nominated`` to it; None: it can."""
        pod = self._pod
        if node.unschedulable and not any(tolerates(one, UNSCHEDULABLE) for one in self._tolerations):
            return Refusal(("node(s) were unschedulable",), False)
        wanted = pod.spec.get("nodeName")
        if wanted and wanted != node.name:
            return Refusal(("node(s) didn't match the requested node name",), False)
        taint = first_untolerated(node.taints, self._tolerations, ("NoSchedule", "NoExecute"))
        if taint is not None:
            return Refusal(
                (f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value') or ''}}}",), False
            )
        if not matches_pod_node_rules(pod.spec, node.name, node.labels):
            return Refusal(("node(s) didn't match Pod's node affinity/selector",), False)
        if pod.ports and self._ports_clash(node, nominated):
            return Refusal(("node(s) didn't have free ports for the requested pod ports",), True)
        lacking = _insufficient(pod, node, nominated)
        if lacking:
            return lacking
        if self._sole_taken or (self._sole_claims and any(self._shares(one) for one in nominated)):
            return Refusal((_SOLE,), True)
        if self._judge_volumes is not None and (refusal := self._judge_volumes(node)) is not None:
            return refusal
        return self._spread.refusal(node) or self._judge_affinity(node)

    def _shares(self, other: PodInfo) -> bool:
        """Whether another pod has a claim of this one that only one pod may use."""
        mine, theirs = self._pod.key, other.key
        return (
            mine.namespace == theirs.namespace
            and mine.name != theirs.name
            and not claims_of(other.obj).isdisjoint(self._sole_claims)
        )

    def _ports_clash(self, node: NodeState, nominated: Sequence[PodInfo]) -> bool:
        others = [*(node.pods.values() if node.ports else ()), *nominated]
        return any(mine.clashes(port) for mine in self._pod.ports for other in others for port in other.ports)

    def without(self, node: NodeState, nodes: Sequence[NodeState]) -> NodeFilter:
        """Return the filter as it is when ``node``, with fewer pods, stands in for the node of its name."""
        others = [node if one.name == node.name else one for one in nodes]
        return NodeFilter(self._pod, others, self._namespace_labels, self._judge_volumes, self._sole_claims)

    @property
    def depends_on_other_pods(self) -> bool:
        """Whether taking pods off a node changes more than that node's free resources and ports."""
        return bool(
            self._sole_taken
            or self._affinity.existing_anti
            or self._pod.anti_affinity
            or self._pod.affinity
            or self._spread
        )

    def _prepare_affinity(self, nodes: Sequence[NodeState]) -> _Affinity:
        pod, found = self._pod, _Affinity(near=[set() for _ in self._pod.affinity])
        labels = self._namespace_labels
        for node in nodes:
            for other in node.choosy.values():
                for term in other.anti_affinity:
                    value = node.labels.get(term.topology_key)
                    if value is not None and term.matches(pod, labels):
                        found.existing_anti.add((term.topology_key, value))
            if not pod.anti_affinity and not pod.affinity:
                continue
            for other in node.pods.values():
                for term in pod.anti_affinity:
                    value = node.labels.get(term.topology_key)
                    if value is not None and term.matches(other, labels):
                        found.anti.add((term.topology_key, value))
                for term, values in zip(pod.affinity, found.near, strict=True):
                    value = node.labels.get(term.topology_key)
                    if value is not None and all(one.matches(other, labels) for one in pod.affinity):
                        values.add(value)
        found.alone = not any(found.near) and all(term.matches(pod, labels) for term in pod.affinity)
        return found

    def _judge_affinity(self, node: NodeState) -> Refusal | None:
        pod, affinity = self._pod, self._affinity
        for term, values in zip(pod.affinity, affinity.near, strict=True):
            value = node.labels.get(term.topology_key)
            if value is None or (value not in values and not affinity.alone):
                return Refusal(("node(s) didn't match pod affinity rules",), False)
        for key, value in affinity.anti:
            if node.labels.get(key) == value:
                return Refusal(("node(s) didn't match pod anti-affinity rules",), True)
        for key, value in affinity.existing_anti:
            if node.labels.get(key) == value:
                return Refusal(("node(s) didn't satisfy existing pods anti-affinity rules",), True)
        return None


def _insufficient(pod: PodInfo, node: NodeState, nominated: Sequence[PodInfo]) -> Refusal | None:
    reasons = []
    resolvable = True
    if len(node.pods) + len(nominated) + 1 > node.allocatable.get("pods", 0):
        reasons.append("Too many pods")
    for name, amount in pod.requests.items():
        taken = node.requested.get(name, 0) + sum(one.requests.get(name, 0) for one in nominated)
        if amount and amount > node.allocatable.get(name, 0) - taken:
            reasons.append(f"Insufficient {name}")
            resolvable = resolvable and amount <= node.allocatable.get(name, 0)
    return Refusal(tuple(reasons), resolvable) if reasons else None
