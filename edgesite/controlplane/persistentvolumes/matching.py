"""Which volume suits a claim. Pure functions on API objects.

Units   Capacities are exact quantities.
Source  core/v1 PersistentVolumeClaim: access modes, class, volume mode, selector, capacity; the smallest volume that suffices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from edgesite.controlplane.nodematch import matches_term
from edgesite.kube import storage
from edgesite.kube.quantity import ZERO, InvalidQuantity, Quantity, parse
from edgesite.kube.selectors import InvalidSelector, from_object

__all__ = [
    "ON_FIRST_USE",
    "SELECTED_NODE",
    "amount_of",
    "choose",
    "claims_of",
    "class_of",
    "is_claimed_by",
    "provisioner_of",
    "reachable_from",
]

ON_FIRST_USE: Final = "WaitForFirstConsumer"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"  #: annotation of a claim: where its pod is to run
_NO_PROVISIONER: Final = "kubernetes.io/no-provisioner"
Object = Mapping[str, Any]


def class_of(obj: Object) -> str:
    """The storage class of a claim or a volume; "" is that of volumes made by hand."""
    return storage.class_of(obj) or ""


def claims_of(pod: Object) -> set[str]:
    """The names of the claims that a pod mounts; ephemeral ones are named after pod and volume."""
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    named = {(one.get("persistentVolumeClaim") or {}).get("claimName", "") for one in volumes}
    return (named | {f"{pod['metadata']['name']}-{one['name']}" for one in volumes if "ephemeral" in one}) - {""}


def provisioner_of(storage_class: Object | None) -> str:
    """The program that makes volumes of a class; "" where they are made by hand."""
    name = str((storage_class or {}).get("provisioner") or "")
    return "" if name == _NO_PROVISIONER else name


def is_claimed_by(volume: Object, claim: Object) -> bool:
    """Whether the volume is bound to, or kept for, this very claim."""
    reference = (volume.get("spec") or {}).get("claimRef") or {}
    metadata = claim["metadata"]
    same = (reference.get("namespace"), reference.get("name")) == (metadata.get("namespace"), metadata["name"])
    return same and reference.get("uid") in (None, "", metadata["uid"])


def reachable_from(volume: Object, node: str, labels: Mapping[str, str]) -> bool:
    """Whether a node may use the volume."""
    required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
    return required is None or any(matches_term(one, node, labels) for one in required.get("nodeSelectorTerms") or ())


def choose(claim: Object, volumes: Iterable[Object]) -> Object | None:
    """Return the volume for a claim: one that is kept for it, else the smallest free one that suffices."""
    spec = claim.get("spec") or {}
    suitable = []
    for volume in volumes:
        if volume["metadata"].get("deletionTimestamp"):
            continue
        if is_claimed_by(volume, claim):
            return volume
        if not (volume.get("spec") or {}).get("claimRef") and _suffices(volume, claim, spec):
            suitable.append(volume)
    return min(suitable, key=lambda one: (_capacity(one), one["metadata"]["name"]), default=None)


def _suffices(volume: Object, claim: Object, wanted: Object) -> bool:
    spec = volume.get("spec") or {}
    if (volume.get("status") or {}).get("phase") not in (None, "", "Pending", "Available"):
        return False
    if class_of(volume) != class_of(claim):
        return False
    if (spec.get("volumeMode") or "Filesystem") != (wanted.get("volumeMode") or "Filesystem"):
        return False
    if not set(wanted.get("accessModes") or ()) <= set(spec.get("accessModes") or ()):
        return False
    selector = wanted.get("selector")
    try:
        if selector is not None and not from_object(selector).matches(volume["metadata"].get("labels") or {}):
            return False
    except InvalidSelector:
        return False
    requests = (wanted.get("resources") or {}).get("requests") or {}
    return amount_of(requests.get("storage")) <= _capacity(volume)


def _capacity(volume: Object) -> Quantity:
    return amount_of(((volume.get("spec") or {}).get("capacity") or {}).get("storage"))


def amount_of(text: Any) -> Quantity:
    """Read an amount; what is not there, or cannot be read, is none."""
    try:
        return parse(text) if text is not None else ZERO
    except InvalidQuantity:
        return ZERO
