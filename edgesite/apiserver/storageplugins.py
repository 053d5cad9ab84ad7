"""Built-in admission of storage: default classes, who may grow, and protection of what is in use.

Errors  ApiError Forbidden.
State   None; looks into the store.
Source  Kubernetes: Admission control (DefaultStorageClass, PersistentVolumeClaimResize, StorageObjectInUseProtection): rules, finalizers,
        texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import errors, json
from edgesite.kube.quantity import parse
from edgesite.kube.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES, Resource
from edgesite.kube.storage import class_of, default_class

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kinds
    from edgesite.hookspecs import Admission, AdmissionRequest
    from edgesite.store.store import Store

__all__ = ["ClaimResize", "DefaultStorageClass", "StorageProtection", "storage_admission"]

Object = dict[str, Any]
_FINALIZERS: Final = {
    PERSISTENT_VOLUME_CLAIMS.plural: "kubernetes.io/pvc-protection",
    PERSISTENT_VOLUMES.plural: "kubernetes.io/pv-protection",
}


def storage_admission(store: Store, kinds: Kinds) -> list[Admission]:
    """All of these."""
    return [DefaultStorageClass(store, kinds), ClaimResize(store, kinds), StorageProtection()]


class DefaultStorageClass:
    """A claim that names no class gets the default one."""

    name = "DefaultStorageClass"
    mutating = True

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store, self._kinds = store, kinds

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return operation == "CREATE" and resource == PERSISTENT_VOLUME_CLAIMS and not subresource

    def admit(self, request: AdmissionRequest) -> None:
        claim: Object = request.object or {}
        if class_of(claim) is not None:
            return
        rows = self._store.list(self._kinds.of(STORAGE_CLASSES).prefix).rows
        if (found := default_class(json.loads(row.value) for row in rows)) is not None:
            claim.setdefault("spec", {})["storageClassName"] = found["metadata"]["name"]


class ClaimResize:
    """A claim may only ask for more where its class can give it."""

    name = "PersistentVolumeClaimResize"
    mutating = False

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store, self._kinds = store, kinds

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return operation == "UPDATE" and resource == PERSISTENT_VOLUME_CLAIMS and not subresource

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError (Forbidden)."""
        new, old = request.object or {}, request.old_object or {}
        if parse(_size(new)) <= parse(_size(old)):
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            why = "Only bound persistent volume claims can be expanded"
            raise errors.forbidden(PERSISTENT_VOLUME_CLAIMS.plural, request.name, why)
        row = self._store.latest(self._kinds.of(STORAGE_CLASSES).key("", class_of(old) or ""))
        if row is None or not json.loads(row.value).get("allowVolumeExpansion"):
            why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
            raise errors.forbidden(PERSISTENT_VOLUME_CLAIMS.plural, request.name, why)


def _size(claim: Object) -> str:
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return str(requests.get("storage") or "0")


class StorageProtection:
    """Claims and volumes get a finalizer, which a controller takes away once nobody uses them."""

    name = "StorageObjectInUseProtection"
    mutating = True

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        kinds = (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES)
        return operation == "CREATE" and resource in kinds and not subresource

    def admit(self, request: AdmissionRequest) -> None:
        metadata: Object = (request.object or {}).setdefault("metadata", {})
        wanted = _FINALIZERS[request.resource.plural]
        if wanted not in (metadata.get("finalizers") or ()):
            metadata["finalizers"] = [*(metadata.get("finalizers") or ()), wanted]
