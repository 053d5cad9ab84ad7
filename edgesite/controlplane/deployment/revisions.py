"""Replica sets as revisions of a Deployment: which is the new one, what it is called, how its history is written. Pure.

Source  kube-controller-manager and kubectl: annotations under deployment.kubernetes.io, label pod-template-hash. The hash need only be
        stable: a set made by another controller is recognised by its template, not by its name.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from edgesite.controlplane.ownership import reference_to
from edgesite.kube.names import safe_encode
from edgesite.kube.resources import DEPLOYMENTS

__all__ = [
    "DESIRED",
    "HASH_LABEL",
    "MOST",
    "REVISION",
    "annotations_of",
    "by_age",
    "find_new",
    "inherited_annotations",
    "make_new",
    "next_revision",
    "number",
    "replicas_of",
    "revision_of",
    "same_template",
    "with_revision",
]

HASH_LABEL: Final = "pod-template-hash"
REVISION: Final = "deployment.kubernetes.io/revision"
HISTORY: Final = "deployment.kubernetes.io/revision-history"
DESIRED: Final = "deployment.kubernetes.io/desired-replicas"
MOST: Final = "deployment.kubernetes.io/max-replicas"
_OWN: Final = frozenset(
    {
        REVISION,
        HISTORY,
        DESIRED,
        MOST,
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
    }
)
Object = dict[str, Any]


def number(text: Any) -> int:
    """Return an annotation's number; 0 for none and for what is no number."""
    try:
        return int(text or 0)
    except ValueError:
        return 0


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return obj["metadata"].get("annotations") or {}


def revision_of(obj: Mapping[str, Any]) -> int:
    return number(annotations_of(obj).get(REVISION))


def replicas_of(obj: Mapping[str, Any]) -> int:
    replicas = obj["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def by_age(sets: Iterable[Object]) -> list[Object]:
    """Oldest first."""
    return sorted(sets, key=lambda one: (one["metadata"].get("creationTimestamp") or "", one["metadata"]["name"]))


def same_template(deployment: Object, one: Object) -> bool:
    """Whether a replica set has the Deployment's template, the hash label aside."""
    return _bare(deployment["spec"]["template"]) == _bare(one["spec"]["template"])


def _bare(template: Object) -> tuple[Object, Object]:
    meta = {name: value for name, value in (template.get("metadata") or {}).items() if value}
    meta["labels"] = {name: value for name, value in (meta.get("labels") or {}).items() if name != HASH_LABEL}
    meta.pop("creationTimestamp", None)
    return meta, template["spec"]


def find_new(deployment: Object, sets: Iterable[Object]) -> Object | None:
    """Return the set of the current template; of several, the oldest."""
    return next((one for one in by_age(sets) if same_template(deployment, one)), None)


def template_hash(template: Object, collisions: int) -> str:
    """Return a short name of a template; ``collisions`` gives another one where that is taken."""
    text = msgspec.json.encode(template, order="sorted") + (str(collisions).encode() if collisions else b"")
    return safe_encode(str(int.from_bytes(hashlib.blake2s(text, digest_size=4).digest(), "big")))


def next_revision(deployment: Object, old: Sequence[Object]) -> int:
    return max((revision_of(one) for one in old), default=0) + 1


def make_new(deployment: Object, revision: int, replicas: int, most: int) -> Object:
    """Return the replica set of the current template, not yet written."""
    meta, spec = deployment["metadata"], deployment["spec"]
    digest = template_hash(spec["template"], number((deployment.get("status") or {}).get("collisionCount")))
    template = copy.deepcopy(spec["template"])
    template_meta = template.setdefault("metadata", {})
    template_meta["labels"] = {**(template_meta.get("labels") or {}), HASH_LABEL: digest}
    selector = copy.deepcopy(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
    one: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-{digest}",
            "namespace": meta["namespace"],
            "labels": template_meta["labels"],
            "annotations": {
                **inherited_annotations(deployment),
                REVISION: str(revision),
                DESIRED: str(replicas_of(deployment)),
                MOST: str(most),
            },
            "ownerReferences": [reference_to(deployment, DEPLOYMENTS)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        one["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return one


def inherited_annotations(deployment: Object) -> dict[str, str]:
    """Return what a Deployment hands to its replica sets."""
    return {name: value for name, value in annotations_of(deployment).items() if name not in _OWN}


def with_revision(deployment: Object, one: Object, revision: int, most: int) -> Object:
    """Return ``one`` as the current revision; the same object if nothing is to be changed."""
    annotations = {**annotations_of(one), **inherited_annotations(deployment)}
    was = number(annotations.get(REVISION))
    if was < revision:
        if was:
            history = [text for text in (annotations.get(HISTORY), str(was)) if text]
            annotations[HISTORY] = ",".join(history)
        annotations[REVISION] = str(revision)
    annotations.setdefault(DESIRED, str(replicas_of(deployment)))
    annotations.setdefault(MOST, str(most))
    spec = dict(one["spec"])
    if (spec.get("minReadySeconds") or 0) != (deployment["spec"].get("minReadySeconds") or 0):
        spec["minReadySeconds"] = deployment["spec"].get("minReadySeconds") or 0
    if annotations == annotations_of(one) and spec == one["spec"]:
        return one
    return {**one, "metadata": {**one["metadata"], "annotations": annotations}, "spec": spec}
