"""Containers that a kubelet of Go made (KubeEdge's edgecore has one inside), taken over without a restart; and what it finds on ours.

A container tells by annotations what it was made from. Ours carry both our own mark and what a kubelet of Kubernetes 1.15 to 1.30
writes, so that a Go edgecore v1.12 that comes back takes them over in turn. A kubelet since 1.31 hashes otherwise: it starts our
containers once anew.

A container of another make is wanted as it is if its hash is the spec's, in either form. If it is not, the spec may have come through
another version of the API, with other defaults; of what the API lets change in a pod, only a container's image asks for a new one,
so then the image decides.

Errors  RuntimeFault of the runtime, when it is asked for an image.
Source  Kubernetes v1.22, pkg/kubelet/kuberuntime/labels.go (keys and forms), pkg/kubelet/kuberuntime/kuberuntime_manager.go (when a
        container is replaced).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from edgesite.edge.edged.gohash import hash_1_22, hash_1_31
from edgesite.edge.edged.imagenames import InvalidImageName, normalized
from edgesite.edge.edged.pleg import PodInventory
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import ANNOTATION_HASH, LABEL_CONTAINER, ContainerInfo, ContainerStatus, Runtime
from edgesite.kube import json
from edgesite.kube.gojson import go_json

__all__ = ["ANNOTATION_SPEC", "LABEL_NODE", "container_annotations", "container_hash", "is_wanted", "stray_pod"]

#: Which edge role a sandbox belongs to: several may share one runtime. A Go kubelet's sandboxes have none.
LABEL_NODE: Final = "edgesite.kubeedge.io/node"
#: Our own mark of what a container was made from.
ANNOTATION_SPEC: Final = "edgesite.kubeedge.io/container-hash"
ANNOTATION_GRACE: Final = "io.kubernetes.pod.terminationGracePeriod"
ANNOTATION_PRE_STOP: Final = "io.kubernetes.container.preStopHandler"
ANNOTATION_PORTS: Final = "io.kubernetes.container.ports"


def container_hash(container: Mapping[str, Any]) -> str:
    """Return what tells two versions of a container apart: a running one with another hash is replaced.

    Only what the API lets change in place counts, so that new defaults never restart what runs.
    """
    text = json.dumps([container.get("name"), container.get("image")])
    return hashlib.sha256(text).hexdigest()[:8]


def container_annotations(pod: Pod, container: Mapping[str, Any]) -> dict[str, str]:
    """Return what a container says of the spec that it was made from, and how it is to be stopped when nobody has that any more."""
    found = {ANNOTATION_SPEC: container_hash(container), ANNOTATION_HASH: hash_1_22(container)}
    if (grace := pod.spec.get("terminationGracePeriodSeconds")) is not None:
        found[ANNOTATION_GRACE] = str(grace)
    if hook := (container.get("lifecycle") or {}).get("preStop"):
        found[ANNOTATION_PRE_STOP] = go_json(hook)
    if ports := container.get("ports"):
        found[ANNOTATION_PORTS] = go_json(ports)
    return found


async def is_wanted(runtime: Runtime, status: ContainerStatus, container: Mapping[str, Any]) -> bool:
    """Whether a running container is what the spec asks for. Raises RuntimeFault."""
    if (own := status.annotations.get(ANNOTATION_SPEC)) is not None:
        return own == container_hash(container)
    other = status.annotations.get(ANNOTATION_HASH)
    if other is None or other == hash_1_22(container) or other == hash_1_31(container):
        return True
    return await _has_image(runtime, status, container.get("image") or "")


async def _has_image(runtime: Runtime, status: ContainerStatus, wanted: str) -> bool:
    try:
        name = normalized(wanted)
    except InvalidImageName:
        return False
    if (found := await runtime.image_status(wanted)) is not None:
        return bool({status.image, status.image_ref} & {found.id, *found.tags, *found.digests})
    return name in (status.image, status.image_ref)


def stray_pod(uid: str, found: PodInventory) -> Pod | None:
    """Make up the pod that sandboxes and containers belonged to, from what they tell; None if there is no sandbox."""
    sandbox = next(iter(found.sandboxes), None)
    if sandbox is None:
        return None
    newest = {one.labels.get(LABEL_CONTAINER, one.name): one for one in sorted(found.containers, key=_age)}
    spec: dict[str, Any] = {"containers": [_made_up(name, one) for name, one in sorted(newest.items())]}
    graces = [text for one in newest.values() if (text := one.annotations.get(ANNOTATION_GRACE, "")).isdecimal()]
    if graces:
        spec["terminationGracePeriodSeconds"] = max(map(int, graces))
    return Pod({"metadata": {"name": sandbox.name, "namespace": sandbox.namespace, "uid": uid}, "spec": spec})


def _age(one: ContainerInfo) -> tuple[int, int]:
    return one.attempt, one.created_ns


def _made_up(name: str, one: ContainerInfo) -> dict[str, Any]:
    container: dict[str, Any] = {"name": name}
    for annotation, kind in ((ANNOTATION_PORTS, list), (ANNOTATION_PRE_STOP, dict)):
        try:
            value = json.loads(one.annotations.get(annotation, "null"))
        except json.InvalidJson:
            continue
        if isinstance(value, kind) and annotation == ANNOTATION_PORTS:
            container["ports"] = value
        elif isinstance(value, kind):
            container["lifecycle"] = {"preStop": value}
    return container
