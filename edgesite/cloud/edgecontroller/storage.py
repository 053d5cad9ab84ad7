"""What edges tell and ask of storage drivers: their own CSINode, how large claimed volumes are, and the secrets of volumes that their
pods mount.

    default/csinode/<node>               insert, update, query   the drivers of a node               (ours)
    default/csidriver/<name>             query                   what a driver wants                 (ours)
    <ns>/persistentvolumeclaim/<name>    patch                   that its file system has grown      (ours)

Errors  ApiError of the API; InvalidMessage for content of another shape.
Source  storage/v1 CSINode; core/v1 CSIPersistentVolumeSource: which secrets a node needs; Kubernetes' NodeRestriction: what of a
        claim's status a node may say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.kube.resources import CSI_NODES, PERSISTENT_VOLUME_CLAIMS
from edgesite.wire.message import InvalidMessage

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.wire.resource import ResourcePath

__all__ = ["create_csi_node", "report_claim", "secrets_at_node", "update_csi_node"]

Object = dict[str, Any]
_OF_CLAIM: Final = ("allocatedResourceStatuses", "capacity", "conditions")
_AT_NODE: Final = ("nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef")


def secrets_at_node(volume: Object) -> set[tuple[str, str]]:
    """Return namespace and name of the secrets that a node needs to mount a PersistentVolume."""
    source = (volume.get("spec") or {}).get("csi") or {}
    found = (source.get(member) or {} for member in _AT_NODE)
    return {(one.get("namespace") or "", one["name"]) for one in found if one.get("name")}


async def create_csi_node(client: Client, path: ResourcePath, said: Object) -> Object:
    """Raises ApiError, InvalidMessage."""
    return await client.create(CSI_NODES, _csi_node(path, said))


async def update_csi_node(client: Client, path: ResourcePath, said: Object) -> Object:
    """Change the drivers, and nothing else. Raises ApiError, InvalidMessage."""
    wanted = _csi_node(path, said)
    found = await client.get(CSI_NODES, path.name)
    version = (said.get("metadata") or {}).get("resourceVersion")
    metadata = {**found["metadata"], **({"resourceVersion": version} if version else {})}
    return await client.update(CSI_NODES, {**found, "metadata": metadata, "spec": wanted["spec"]})


async def report_claim(client: Client, path: ResourcePath, patch: Any) -> Object:
    """Write what a node says of the size of a claimed volume. Raises ApiError, InvalidMessage."""
    status = patch.get("status") if isinstance(patch, dict) else None
    metadata = patch.get("metadata") if isinstance(patch, dict) else None
    if not isinstance(status, dict) or not isinstance(metadata, dict) or not metadata.get("uid"):
        raise InvalidMessage(f"content of {path} is not the status of a claim")
    kept = {name: status[name] for name in _OF_CLAIM if name in status}
    return await client.patch(
        PERSISTENT_VOLUME_CLAIMS,
        path.name,
        {"metadata": {"uid": metadata["uid"]}, "status": kept},
        path.object_namespace,
        kind="strategic",
        subresource="status",
    )


def _csi_node(path: ResourcePath, said: Object) -> Object:
    """What a node may say of its drivers; the name is checked by the rules. Raises InvalidMessage."""
    spec, metadata = said.get("spec"), said.get("metadata") or {}
    drivers = spec.get("drivers") if isinstance(spec, dict) else None
    if not isinstance(drivers, list) or metadata.get("name") != path.name:
        raise InvalidMessage(f"content of {path} is not that CSINode")
    owners = [
        one
        for one in metadata.get("ownerReferences") or ()
        if isinstance(one, dict) and (one.get("kind"), one.get("name")) == ("Node", path.name)
    ]
    kept = {"name": path.name, **({"ownerReferences": owners} if owners else {})}
    return {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": kept, "spec": {"drivers": drivers}}
