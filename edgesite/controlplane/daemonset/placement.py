"""Which nodes a DaemonSet wants, which pods are missing there, and which must go. Pure; time is an argument.

Source  kube-controller-manager's daemonset controller (tolerations that its pods get, rules of rolling updates).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgesite.controlplane.history import HASH_LABEL
from edgesite.controlplane.nodematch import first_untolerated, matches_pod_node_rules
from edgesite.controlplane.pods import available_at, is_active, is_terminal, is_terminating

__all__ = ["Plan", "is_new", "plan", "suits", "template_for", "tolerant"]

Object = dict[str, Any]


@dataclass(slots=True)
class Plan:
    """What is to be done, and the counts of the status."""

    create: list[str] = field(default_factory=list)  # names of nodes
    delete: list[Object] = field(default_factory=list)
    failed: list[Object] = field(default_factory=list)  # to delete, too, but not too often
    counts: dict[str, int] = field(default_factory=dict)
    next_at: float | None = None  # when a ready pod will count as available


def tolerant(spec: Mapping[str, Any]) -> list[Object]:
    """Return the tolerations of the pods: the template's, and those that keep a daemon on a node in trouble."""
    keys = [("not-ready", "NoExecute"), ("unreachable", "NoExecute")]
    keys += [(name, "NoSchedule") for name in ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")]
    if spec.get("hostNetwork"):
        keys.append(("network-unavailable", "NoSchedule"))
    added = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect} for key, effect in keys]
    own = list(spec.get("tolerations") or ())
    return [*own, *(one for one in added if one not in own)]


def template_for(daemon_set: Object, node: str, digest: str) -> Object:
    """Return the template of the pod for one node: bound to it by affinity, so that the scheduler still checks that it fits."""
    template: Object = copy.deepcopy(daemon_set["spec"]["template"])
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), HASH_LABEL: digest}
    spec = template["spec"]
    spec["tolerations"] = tolerant(spec)
    affinity = spec.setdefault("affinity", {})
    node_affinity = affinity.setdefault("nodeAffinity", {})
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    by_name = {"key": "metadata.name", "operator": "In", "values": [node]}
    own: list[Object] = list(required.get("nodeSelectorTerms") or [{}])
    terms = [{**term, "matchFields": [by_name]} for term in own]
    node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    return template


def suits(daemon_set: Object, node: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether a pod should be started on a node, and whether one that is there may stay."""
    spec = daemon_set["spec"]["template"]["spec"]
    name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
    if not matches_pod_node_rules(spec, name, labels) or spec.get("nodeName") not in (None, "", name):
        return False, False
    taints = (node.get("spec") or {}).get("taints") or ()
    tolerations = tolerant(spec)
    stays = first_untolerated(taints, tolerations, ("NoExecute",)) is None
    return stays and first_untolerated(taints, tolerations, ("NoSchedule",)) is None, stays


def is_new(pod: Mapping[str, Any], digest: str) -> bool:
    return (pod["metadata"].get("labels") or {}).get(HASH_LABEL) == digest


def node_of(pod: Mapping[str, Any]) -> str:
    """Return the node that a pod is on, or is meant for while it waits."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in affinity.get("nodeSelectorTerms") or ():
        for one in term.get("matchFields") or ():
            if one.get("key") == "metadata.name" and len(one.get("values") or ()) == 1:
                return str(one["values"][0])
    return ""


def plan(
    daemon_set: Object, nodes: Iterable[Mapping[str, Any]], pods: Iterable[Object], digest: str, now: float
) -> Plan:
    """Decide for all nodes at once."""
    spec = daemon_set["spec"]
    made = Plan()
    min_ready_s = int(spec.get("minReadySeconds") or 0)
    by_node: dict[str, list[Object]] = {}
    for pod in pods:
        by_node.setdefault(node_of(pod), []).append(pod)
    known: set[str] = set()
    wanted: dict[str, list[Object]] = {}
    tally = dict.fromkeys(("desired", "current", "missed", "ready", "available", "updated"), 0)
    for node in nodes:
        name = node["metadata"]["name"]
        known.add(name)
        here = by_node.get(name, [])
        should, stays = suits(daemon_set, node)
        if should:
            tally["desired"] += 1
            wanted[name] = here
            made.failed.extend(pod for pod in here if is_terminal(pod) and not is_terminating(pod))
            _count(tally, made, here, digest, min_ready_s, now)
        elif here:
            tally["missed"] += 1
            if not stays:
                made.delete.extend(pod for pod in here if not is_terminating(pod))
    made.delete.extend(
        pod for name, some in by_node.items() if name not in known for pod in some if not is_terminating(pod) and name
    )
    _roll(made, daemon_set, wanted, digest, min_ready_s, now)
    made.counts = {
        "desiredNumberScheduled": tally["desired"],
        "currentNumberScheduled": tally["current"],
        "numberMisscheduled": tally["missed"],
        "numberReady": tally["ready"],
        "updatedNumberScheduled": tally["updated"],
        "numberAvailable": tally["available"],
        "numberUnavailable": tally["desired"] - tally["available"],
    }
    return made


def _count(
    tally: dict[str, int], made: Plan, here: Sequence[Object], digest: str, min_ready_s: int, now: float
) -> None:
    active = [pod for pod in here if is_active(pod)]
    if not active:
        return
    tally["current"] += 1
    times = [at for pod in active if (at := available_at(pod, min_ready_s)) is not None]
    tally["ready"] += bool(times)
    tally["available"] += any(at <= now for at in times)
    tally["updated"] += any(is_new(pod, digest) for pod in active)
    for at in times:
        if at > now:
            made.next_at = at if made.next_at is None else min(made.next_at, at)


def _roll(
    made: Plan, daemon_set: Object, wanted: Mapping[str, list[Object]], digest: str, min_ready_s: int, now: float
) -> None:
    """Fill empty nodes; of pods of an old template replace as many as may be unavailable, or stand beside new ones."""
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    rolling = (
        (strategy.get("rollingUpdate") or {}) if strategy.get("type", "RollingUpdate") == "RollingUpdate" else None
    )
    surge = _share((rolling or {}).get("maxSurge", 0), len(wanted))
    unavailable = _share((rolling or {}).get("maxUnavailable", 1), len(wanted))
    if not surge and not unavailable:
        unavailable = 1

    def is_available(pod: Object) -> bool:
        at = available_at(pod, min_ready_s)
        return is_active(pod) and at is not None and at <= now

    surging = 0
    down = 0
    old_available: list[tuple[str, Object]] = []
    for name, here in wanted.items():
        active = sorted(
            (pod for pod in here if is_active(pod)), key=lambda pod: pod["metadata"].get("creationTimestamp") or ""
        )
        new = [pod for pod in active if is_new(pod, digest)]
        old = [pod for pod in active if not is_new(pod, digest)]
        made.delete.extend(new[1:])
        made.delete.extend(old[1:])
        if not here:  # one that ended or is leaving must be gone first
            made.create.append(name)
        if not any(is_available(pod) for pod in active):
            down += 1
        if not old or rolling is None:
            continue
        if new:
            surging += 1
            if is_available(new[0]) or not is_available(old[0]):
                made.delete.append(old[0])
        elif not is_available(old[0]):
            made.delete.append(old[0])  # it serves nobody: replacing it costs nothing
        else:
            old_available.append((name, old[0]))
    for name, pod in old_available:
        if surge:
            if surging < surge:
                made.create.append(name)
                surging += 1
        elif down < unavailable:
            made.delete.append(pod)
            down += 1


def _share(value: Any, whole: int) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return -(-int(value[:-1]) * whole // 100)
    return int(value or 0)
