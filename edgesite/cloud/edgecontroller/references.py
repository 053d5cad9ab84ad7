"""Which ConfigMaps and Secrets a pod needs at its node.

Looks at all kinds of containers and volumes; KubeEdge leaves out init and ephemeral containers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["claims_of", "references_of"]

Pod = dict[str, Any]
CONFIG_MAP: Final = "configmap"
SECRET: Final = "secret"
_CONTAINERS: Final = ("initContainers", "containers", "ephemeralContainers")
#: volume source -> its member that refers to a secret
_SECRET_REFS: Final = {
    "cephfs": "secretRef",
    "csi": "nodePublishSecretRef",
    "flexVolume": "secretRef",
    "iscsi": "secretRef",
    "rbd": "secretRef",
    "scaleIO": "secretRef",
    "storageos": "secretRef",
}


def references_of(pod: Pod) -> set[tuple[str, str]]:
    """Return (type word, name) of each; they are in the pod's namespace."""
    spec = pod.get("spec") or {}
    found = set(_of_volumes(spec.get("volumes") or ()))
    for member in _CONTAINERS:
        for container in spec.get(member) or ():
            found.update(_of_container(container))
    found.update((SECRET, one.get("name") or "") for one in spec.get("imagePullSecrets") or ())
    return {(type_, name) for type_, name in found if name}


def _of_container(container: Pod) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or ():
        yield CONFIG_MAP, (source.get("configMapRef") or {}).get("name") or ""
        yield SECRET, (source.get("secretRef") or {}).get("name") or ""
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        yield CONFIG_MAP, (source.get("configMapKeyRef") or {}).get("name") or ""
        yield SECRET, (source.get("secretKeyRef") or {}).get("name") or ""


def _of_volumes(volumes: Any) -> Iterator[tuple[str, str]]:
    for volume in volumes:
        yield CONFIG_MAP, (volume.get("configMap") or {}).get("name") or ""
        yield SECRET, (volume.get("secret") or {}).get("secretName") or ""
        yield SECRET, (volume.get("azureFile") or {}).get("secretName") or ""
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield CONFIG_MAP, (source.get("configMap") or {}).get("name") or ""
            yield SECRET, (source.get("secret") or {}).get("name") or ""
        for member, reference in _SECRET_REFS.items():
            yield SECRET, ((volume.get(member) or {}).get(reference) or {}).get("name") or ""


def claims_of(pod: Pod) -> set[str]:
    """Return the names of the claims whose volumes the pod mounts; ephemeral ones are named after pod and volume."""
    found = set()
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim:
            found.add(claim)
        elif volume.get("ephemeral") is not None:
            found.add(f"{pod['metadata']['name']}-{volume.get('name')}")
    return found
