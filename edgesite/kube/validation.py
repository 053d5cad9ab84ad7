"""Semantic validation: rules beyond the schema, kind by kind, for new objects and for updates.

    validate(row, obj)                     causes for a new object; obj is decoded and defaulted
    validate_update(row, new, old, subresource="")
    bumps_generation(row, new, old)        whether metadata.generation counts this change
    name_problems(row, name)               what a kind's names may look like

The causes are for `errors.invalid`. metadata.name must be there already (generated, if asked for).

Errors  None raised.
Source  Validation of kube-apiserver 1.36 (rules, reasons, texts).
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube import names, validation_cluster, validation_core, validation_workload
from edgesite.kube.causes import Causes
from edgesite.kube.resourcetable import Resource
from edgesite.kube.validation_meta import check_meta, check_meta_update

__all__ = ["bumps_generation", "has_generation", "name_problems", "validate", "validate_update"]

Object = dict[str, Any]
_CHECKS: Final = {**validation_core.CHECKS, **validation_workload.CHECKS, **validation_cluster.CHECKS}
_UPDATES: Final = {**validation_core.UPDATES, **validation_workload.UPDATES, **validation_cluster.UPDATES}

_LABEL_NAMES: Final = frozenset({("", "Namespace")})
_DNS1035_NAMES: Final = frozenset({("", "Service")})
_RBAC: Final = "rbac.authorization.k8s.io"
#: Kinds of Kubernetes whose specs are not counted.
_WITHOUT_GENERATION: Final = frozenset(
    {
        ("", "ConfigMap"),
        ("", "Endpoints"),
        ("", "Event"),
        ("", "LimitRange"),
        ("", "Namespace"),
        ("", "Node"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("", "PodTemplate"),
        ("", "ResourceQuota"),
        ("", "Secret"),
        ("", "Service"),
        ("", "ServiceAccount"),
        ("apps", "ControllerRevision"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("certificates.k8s.io", "CertificateSigningRequest"),
        ("coordination.k8s.io", "Lease"),
        ("events.k8s.io", "Event"),
        ("networking.k8s.io", "IPAddress"),
        ("networking.k8s.io", "ServiceCIDR"),
        ("node.k8s.io", "RuntimeClass"),
        ("storage.k8s.io", "CSINode"),
        ("storage.k8s.io", "CSIStorageCapacity"),
        ("storage.k8s.io", "StorageClass"),
        ("storage.k8s.io", "VolumeAttachment"),
        ("storage.k8s.io", "VolumeAttributesClass"),
    }
)
#: Kinds whose objects start at 1 and stay there.
_KEEPS_GENERATION: Final = frozenset({("scheduling.k8s.io", "PriorityClass")})


def validate(row: Resource, obj: Object) -> list[dict[str, str]]:
    """Return what is wrong with a new object; [] if nothing is."""
    causes = Causes()
    check_meta(causes, obj.get("metadata", {}), row.namespaced, lambda name: name_problems(row, name))
    check = _CHECKS.get((row.group, row.kind))
    if check is not None:
        check(causes, obj)
    return causes.found


def validate_update(row: Resource, new: Object, old: Object, subresource: str = "") -> list[dict[str, str]]:
    """Return what is wrong with a changed object, or with the change.

    Writes to subresources that cannot change the spec check metadata alone.
    """
    causes = Causes()
    meta = new.get("metadata", {})
    check_meta(causes, meta, row.namespaced, lambda name: name_problems(row, name))
    check_meta_update(causes, meta, old.get("metadata", {}))
    key = (row.group, row.kind)
    if subresource in _CHANGING_SPEC and key in _CHECKS:
        _CHECKS[key](causes, new)
    if subresource:
        return causes.found
    if key in _CHECKS and not _same_but_meta(new, old):
        _CHECKS[key](causes, new)
    if key in _UPDATES:
        _UPDATES[key](causes, new, old)
    return causes.found


def has_generation(row: Resource) -> bool:
    """Whether objects of this kind carry metadata.generation, which is 1 at first."""
    return row.group != _RBAC and (row.group, row.kind) not in _WITHOUT_GENERATION


def bumps_generation(row: Resource, new: Object, old: Object) -> bool:
    """Whether an update changed what its user wants: all but metadata and status."""
    if not has_generation(row) or (row.group, row.kind) in _KEEPS_GENERATION:
        return False
    ignored = ("apiVersion", "kind", "metadata", "status") if "status" in row.subresources else _NO_SPEC
    return any(new.get(field) != old.get(field) for field in {*new, *old} if field not in ignored)


_CHANGING_SPEC: Final = ("ephemeralcontainers", "resize")
_NO_SPEC: Final = ("apiVersion", "kind", "metadata")


def name_problems(row: Resource, name: str) -> list[str]:
    """What is wrong with a name of this kind."""
    key = (row.group, row.kind)
    if row.group == _RBAC:
        return names.path_segment_problems(name)
    if key in _DNS1035_NAMES:
        return names.dns1035_label_problems(name)
    if key in _LABEL_NAMES:
        return names.dns1123_label_problems(name)
    return names.dns1123_subdomain_problems(name)


def _same_but_meta(new: Object, old: Object) -> bool:
    """Whether a stored object keeps its content: what was accepted once is not refused for a change of labels."""
    return all(new.get(field) == old.get(field) for field in {*new, *old} if field != "metadata")
