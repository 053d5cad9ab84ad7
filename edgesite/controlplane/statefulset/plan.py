"""The next step of a StatefulSet. Pure; time is an argument.

Source  apps/v1 StatefulSet; kube-controller-manager's statefulset controller (order, partitions, labels, names of claims).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgesite.controlplane.history import HASH_LABEL
from edgesite.controlplane.pods import available_at, is_active, is_ready, is_terminal, is_terminating

__all__ = ["Plan", "claims_for", "ordinal_of", "plan", "template_for"]

NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"
Object = dict[str, Any]


@dataclass(slots=True)
class Plan:
    """What to do now, and the counts of the status."""

    create: list[tuple[int, bool]] = field(default_factory=list)  # ordinal; whether of the new template
    delete: list[Object] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    complete: bool = False  # every pod is of the new template and ready
    next_at: float | None = None  # when a ready pod will count as available


def ordinal_of(stateful_set: Object, pod: Mapping[str, Any]) -> int | None:
    """Return the number in a pod's name; None if the name is not of this set."""
    head, _, tail = pod["metadata"]["name"].rpartition("-")
    if head != stateful_set["metadata"]["name"] or not tail.isdecimal() or str(int(tail)) != tail:
        return None
    return int(tail)


def template_for(stateful_set: Object, template: Object, ordinal: int, revision: str) -> Object:
    """Return the template of one pod: with its labels, host name and the claims of its own."""
    made: Object = copy.deepcopy(template)
    name = f"{stateful_set['metadata']['name']}-{ordinal}"
    meta, spec = made.setdefault("metadata", {}), made["spec"]
    own = {NAME_LABEL: name, INDEX_LABEL: str(ordinal), HASH_LABEL: revision}
    meta["labels"] = {**(meta.get("labels") or {}), **own}
    spec["hostname"] = name
    if stateful_set["spec"].get("serviceName"):
        spec["subdomain"] = stateful_set["spec"]["serviceName"]
    claims = {one["metadata"]["name"] for one in stateful_set["spec"].get("volumeClaimTemplates") or ()}
    if claims:
        others = [one for one in spec.get("volumes") or () if one.get("name") not in claims]
        mine = [{"name": one, "persistentVolumeClaim": {"claimName": f"{one}-{name}"}} for one in sorted(claims)]
        spec["volumes"] = [*others, *mine]
    return made


def claims_for(stateful_set: Object, ordinal: int) -> list[Object]:
    """Return the claims that the pod of an ordinal needs; they outlive it."""
    meta = stateful_set["metadata"]
    made = []
    for one in stateful_set["spec"].get("volumeClaimTemplates") or ():
        labels = {
            **(one["metadata"].get("labels") or {}),
            **((stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}),
        }
        claim_meta: Object = {
            "name": f"{one['metadata']['name']}-{meta['name']}-{ordinal}",
            "namespace": meta["namespace"],
            "labels": labels,
        }
        if one["metadata"].get("annotations"):
            claim_meta["annotations"] = dict(one["metadata"]["annotations"])
        spec = copy.deepcopy(one.get("spec") or {})
        made.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": claim_meta, "spec": spec})
    return made


def plan(stateful_set: Object, pods: Iterable[Object], revision: str, now: float) -> Plan:
    """Decide what to do next; in order, one thing at a time unless the set is Parallel."""
    spec = stateful_set["spec"]
    replicas = spec.get("replicas")
    first = int((spec.get("ordinals") or {}).get("start") or 0)
    wanted = range(first, first + (1 if replicas is None else int(replicas)))
    min_ready_s = int(spec.get("minReadySeconds") or 0)
    by_ordinal = {at: pod for pod in pods if (at := ordinal_of(stateful_set, pod)) is not None}
    made = Plan()
    _count(made, by_ordinal, wanted, revision, min_ready_s, now)

    def is_available(pod: Object) -> bool:
        at = available_at(pod, min_ready_s)
        return is_active(pod) and at is not None and at <= now

    parallel = spec.get("podManagementPolicy") == "Parallel"
    busy = _fill(made, stateful_set, by_ordinal, wanted, revision, is_available, parallel)
    if not busy or parallel:
        busy = _shrink(made, by_ordinal, wanted, parallel) or busy
    _update(made, stateful_set, by_ordinal, wanted, revision, is_available, only_broken=busy and not parallel)
    return made


def _is_new(pod: Mapping[str, Any], revision: str) -> bool:
    return (pod["metadata"].get("labels") or {}).get(HASH_LABEL) == revision


def _count(
    made: Plan, by_ordinal: Mapping[int, Object], wanted: Sequence[int], revision: str, min_ready_s: int, now: float
) -> None:
    active = {at: pod for at, pod in by_ordinal.items() if is_active(pod)}
    times = [at for pod in active.values() if (at := available_at(pod, min_ready_s)) is not None]
    updated = [pod for pod in active.values() if _is_new(pod, revision)]
    made.counts = {
        "replicas": len([pod for pod in by_ordinal.values() if not is_terminal(pod)]),
        "readyReplicas": len([pod for pod in active.values() if is_ready(pod)]),
        "availableReplicas": sum(at <= now for at in times),
        "currentReplicas": len(active) - len(updated),
        "updatedReplicas": len(updated),
    }
    made.complete = set(active) == set(by_ordinal) == set(wanted) and all(
        _is_new(pod, revision) and is_ready(pod) for pod in active.values()
    )
    made.next_at = min((at for at in times if at > now), default=None)


def _partition(stateful_set: Object, wanted: Sequence[int]) -> int:
    """Return the first ordinal that the new template is for; all stay as they are under OnDelete."""
    strategy = stateful_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return wanted.stop if isinstance(wanted, range) else 0
    return (wanted[0] if wanted else 0) + int((strategy.get("rollingUpdate") or {}).get("partition") or 0)


def _fill(
    made: Plan,
    stateful_set: Object,
    by_ordinal: Mapping[int, Object],
    wanted: Sequence[int],
    revision: str,
    is_available: Any,
    parallel: bool,
) -> bool:
    """Start what is missing, clear away what ended; returns whether the order now waits for a pod."""
    strategy = (stateful_set["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
    partition = _partition(stateful_set, wanted)
    busy = False
    for at in wanted:
        pod = by_ordinal.get(at)
        if pod is None:
            above = [other for number, other in by_ordinal.items() if number > at and number in wanted]
            # a rollout comes from above: a pod that it has not reached yet comes back as it was
            reached = at >= partition and all(_is_new(other, revision) for other in above)
            made.create.append((at, reached or strategy == "OnDelete"))
        elif is_terminal(pod) and not is_terminating(pod):
            made.delete.append(pod)
        elif is_available(pod):
            continue
        busy = True
        if not parallel:
            return True
    return busy


def _shrink(made: Plan, by_ordinal: Mapping[int, Object], wanted: Sequence[int], parallel: bool) -> bool:
    """End what is too many, the highest first; returns whether the order now waits for a pod."""
    extra = sorted((at for at in by_ordinal if at not in wanted), reverse=True)
    for at in extra:
        pod = by_ordinal[at]
        if not is_terminating(pod):
            made.delete.append(pod)
        if not parallel:
            return True
    return bool(extra)


def _update(
    made: Plan,
    stateful_set: Object,
    by_ordinal: Mapping[int, Object],
    wanted: Sequence[int],
    revision: str,
    is_available: Any,
    *,
    only_broken: bool,
) -> None:
    """Replace one pod of an old template, the highest first, when those above are well.

    While the order waits for a pod, only one that serves nobody: else a template that never gets ready could not be mended.
    """
    partition = _partition(stateful_set, wanted)
    for at in reversed(wanted):
        pod = by_ordinal.get(at)
        if at < partition or pod is None:
            return
        if not _is_new(pod, revision):
            if not is_terminating(pod) and pod not in made.delete and not (only_broken and is_available(pod)):
                made.delete.append(pod)
            return
        if not is_available(pod):
            return
