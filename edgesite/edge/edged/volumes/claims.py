"""From a claim to the volume behind it. Pure: objects are arguments.

Errors  VolumeError: the claim cannot be mounted here; ClaimPending while it is not bound yet.
Source  core/v1 PersistentVolumeClaim, PersistentVolume (hostPath, local, nodeAffinity); texts as kubelet words them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.state import PodState
from edgesite.edge.edged.volumes.payload import VolumeError
from edgesite.kube.selectors import InvalidSelector, from_object

__all__ = [
    "ClaimPending",
    "check_claimed",
    "claim_name",
    "claim_names",
    "holds",
    "is_bound",
    "is_for_one_pod",
    "source_of",
]


class ClaimPending(VolumeError):
    """The claim has no volume yet; one may be found any moment."""


def claim_name(pod: Pod, volume: Mapping[str, Any]) -> str:
    """The claim that a volume of a pod means, or "". An ephemeral one is made for the pod under a name of both."""
    if (source := volume.get("persistentVolumeClaim")) is not None:
        return str(source.get("claimName", ""))
    return f"{pod.name}-{volume.get('name', '')}" if "ephemeral" in volume else ""


def claim_names(pod: Pod) -> Iterator[str]:
    for volume in pod.spec.get("volumes") or ():
        if name := claim_name(pod, volume):
            yield name


def is_bound(claim: Mapping[str, Any] | None) -> bool:
    claim = claim or {}
    phase = (claim.get("status") or {}).get("phase")
    return phase == "Bound" and bool((claim.get("spec") or {}).get("volumeName"))


def is_for_one_pod(volume: Mapping[str, Any]) -> bool:
    """Whether only one pod at a time may use a PersistentVolume: one with other access modes, too, is left to the scheduler."""
    return list((volume.get("spec") or {}).get("accessModes") or ()) == ["ReadWriteOncePod"]


def holds(state: PodState, claim: str) -> bool:
    """Whether a pod has a claim that only one pod may use. After a restart one that ran before has it, even if it has not come to that
    yet."""
    if state.released or state.given_back:
        return False
    ran = any(one.get("containerID") for one in state.pod.status.get("containerStatuses") or ())
    return claim in state.sole_claims or (ran and claim in set(claim_names(state.pod)))


def check_claimed(volume: Mapping[str, Any], claim: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """See that a PersistentVolume is the claim's and reachable from a node with ``labels``. Raises VolumeError."""
    spec = volume.get("spec") or {}
    reference, metadata = spec.get("claimRef") or {}, claim.get("metadata") or {}
    name = (volume.get("metadata") or {}).get("name", "")
    if reference.get("uid") and reference["uid"] != metadata.get("uid"):
        raise VolumeError(f"persistentvolume {name!r} is bound to another claim")
    required = (spec.get("nodeAffinity") or {}).get("required")
    if required is not None and not any(_matches(one, labels) for one in required.get("nodeSelectorTerms") or ()):
        raise VolumeError(f"NodeAffinity check failed for volume {name!r}: no matching NodeSelectorTerms")


def source_of(volume: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a PersistentVolume amounts to: the members of a pod's volume. Raises VolumeError."""
    spec = volume.get("spec") or {}
    if (source := spec.get("hostPath")) is not None:
        return {"hostPath": {"path": source.get("path", ""), "type": source.get("type") or ""}}
    if (source := spec.get("local")) is not None:
        kind = "BlockDevice" if spec.get("volumeMode") == "Block" else "Directory"
        return {"local": {"path": source.get("path", ""), "type": kind}}
    for kind in ("nfs", "csi"):
        if (source := spec.get(kind)) is not None:
            return {kind: source}
    kinds = sorted(set(spec) - _COMMON)
    raise VolumeError(f"persistent volumes of kind {kinds[0] if kinds else 'none'} are not supported")


_COMMON = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


def _matches(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if not term.get("matchExpressions") or term.get("matchFields"):
        return False
    try:
        return from_object({"matchExpressions": term["matchExpressions"]}).matches(labels)
    except InvalidSelector:
        return False  # an operator that labels of a node have no use for
