"""Which CSI volume a pod means, and what its driver is told of it. Pure: objects are arguments.

Errors  VolumeError: the volume cannot be mounted as it is asked for.
Source  core/v1 CSIVolumeSource, CSIPersistentVolumeSource; storage/v1 CSIDriver, VolumeAttachment; kubelet's csi plugin: how handles
        of inline volumes and names of attachments are made, keys of the volume context, access modes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.volumes.payload import VolumeError

__all__ = ["Claim", "CsiVolume", "attachment_name", "capability", "inline", "persistent", "pod_context", "wants_group"]

#: CSI's access modes. A driver that tells single writers apart from single nodes gets the numbers of `_ONE_WRITER`.
_MODES: Final = {"ReadWriteOnce": 1, "ReadWriteOncePod": 1, "ReadOnlyMany": 3, "ReadWriteMany": 5}
_ONE_WRITER: Final = {"ReadWriteOnce": 7, "ReadWriteOncePod": 6}
_CONTEXT: Final = "csi.storage.k8s.io/"


@dataclass(frozen=True, slots=True)
class Claim:
    """The PersistentVolumeClaim behind a volume, as far as its size goes."""

    namespace: str
    name: str
    uid: str
    capacity: str = ""  #: how large the file system is known to be
    allocated: str = ""  #: how large it is to be
    resize: str = ""  #: how far a change of its size has come
    conditions: tuple[str, ...] = ()  #: types

    @classmethod
    def of(cls, claim: Mapping[str, Any]) -> Claim:
        metadata, status = claim.get("metadata") or {}, claim.get("status") or {}
        return cls(
            str(metadata.get("namespace") or "default"),
            str(metadata.get("name") or ""),
            str(metadata.get("uid") or ""),
            str((status.get("capacity") or {}).get("storage") or ""),
            str((status.get("allocatedResources") or {}).get("storage") or ""),
            str((status.get("allocatedResourceStatuses") or {}).get("storage") or ""),
            tuple(str(one.get("type")) for one in status.get("conditions") or ()),
        )

    def reference(self) -> dict[str, Any]:
        return {
            "kind": "PersistentVolumeClaim",
            "apiVersion": "v1",
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }


@dataclass(frozen=True, slots=True)
class CsiVolume:
    """One volume of one pod. ``name`` is that of the PersistentVolume, or of the pod's volume for an inline one."""

    name: str
    driver: str
    handle: str
    is_inline: bool = False
    is_block: bool = False  #: a device, not a file system
    readonly: bool = False
    fs_type: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    access_modes: Sequence[str] = ()
    mount_flags: Sequence[str] = ()
    stage_secret: tuple[str, str] | None = None  #: namespace and name
    publish_secret: tuple[str, str] | None = None
    expand_secret: tuple[str, str] | None = None
    capacity: str = ""  #: as the PersistentVolume has it
    claim: Claim | None = None


def inline(pod: Pod, volume: Mapping[str, Any]) -> CsiVolume:
    """Read a volume that the pod brings with it. Raises VolumeError."""
    source, name = volume["csi"] or {}, str(volume.get("name", ""))
    if not source.get("driver"):
        raise VolumeError("csi volume without a driver")
    secret = (source.get("nodePublishSecretRef") or {}).get("name")
    return CsiVolume(
        name=name,
        driver=source["driver"],
        handle=f"csi-{hashlib.sha256(f'{pod.uid}{name}'.encode()).hexdigest()}",
        is_inline=True,
        readonly=bool(source.get("readOnly")),
        fs_type=source.get("fsType") or "",
        attributes=dict(source.get("volumeAttributes") or {}),
        access_modes=("ReadWriteOnce",),
        publish_secret=(pod.namespace, secret) if secret else None,
    )


def persistent(volume: Mapping[str, Any], *, readonly: bool, claim: Mapping[str, Any] | None = None) -> CsiVolume:
    """Read a PersistentVolume of a driver, and the claim that it is bound to. Raises VolumeError."""
    spec = volume.get("spec") or {}
    source = spec["csi"]
    if not source.get("driver") or not source.get("volumeHandle"):
        raise VolumeError("csi volume without a driver or a handle")
    return CsiVolume(
        name=str(volume["metadata"]["name"]),
        driver=source["driver"],
        handle=source["volumeHandle"],
        is_block=spec.get("volumeMode") == "Block",
        readonly=readonly or bool(source.get("readOnly")),
        fs_type=source.get("fsType") or "",
        attributes=dict(source.get("volumeAttributes") or {}),
        access_modes=tuple(spec.get("accessModes") or ()),
        mount_flags=tuple(spec.get("mountOptions") or ()),
        stage_secret=_reference(source, "nodeStageSecretRef"),
        publish_secret=_reference(source, "nodePublishSecretRef"),
        expand_secret=_reference(source, "nodeExpandSecretRef"),
        capacity=str((spec.get("capacity") or {}).get("storage") or ""),
        claim=Claim.of(claim) if claim is not None else None,
    )


def _reference(source: Mapping[str, Any], member: str) -> tuple[str, str] | None:
    found = source.get(member) or {}
    return (found.get("namespace") or "", found["name"]) if found.get("name") else None


def attachment_name(volume: CsiVolume, node: str) -> str:
    """Return the name of the VolumeAttachment that tells whether the volume is attached to the node."""
    return f"csi-{hashlib.sha256(f'{volume.handle}{volume.driver}{node}'.encode()).hexdigest()}"


def capability(volume: CsiVolume, capabilities: frozenset[str], group: int | None) -> dict[str, Any]:
    """Return the VolumeCapability; ``group`` is handed to drivers that set ownership themselves."""
    mode = next((one for one in volume.access_modes if one in _MODES), "ReadWriteOnce")  # kubelet takes the first, too
    number = _MODES[mode]
    if "SINGLE_NODE_MULTI_WRITER" in capabilities:
        number = _ONE_WRITER.get(mode, number)
    access = {"mode": number}
    if volume.is_block:
        return {"block": {}, "access_mode": access}
    mount: dict[str, Any] = {"fs_type": volume.fs_type, "mount_flags": list(volume.mount_flags)}
    if group is not None and "VOLUME_MOUNT_GROUP" in capabilities:
        mount["volume_mount_group"] = str(group)
    return {"mount": mount, "access_mode": access}


def pod_context(pod: Pod, volume: CsiVolume) -> dict[str, str]:
    """Return what a driver that asks for it (podInfoOnMount) is told of the pod."""
    return {
        f"{_CONTEXT}pod.name": pod.name,
        f"{_CONTEXT}pod.namespace": pod.namespace,
        f"{_CONTEXT}pod.uid": pod.uid,
        f"{_CONTEXT}serviceAccount.name": pod.spec.get("serviceAccountName") or "",
        f"{_CONTEXT}ephemeral": "true" if volume.is_inline else "false",
    }


def wants_group(volume: CsiVolume, policy: str) -> bool:
    """Whether an fsGroup is applied to the volume's files, by the fsGroupPolicy of its driver."""
    if volume.readonly or volume.is_block or policy == "None":
        return False
    if policy == "File":
        return True
    return bool(volume.fs_type) and not _ONE_WRITER.keys().isdisjoint(volume.access_modes)
