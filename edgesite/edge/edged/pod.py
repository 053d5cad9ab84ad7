"""A pod as edged works with it: the API object, with the members that are asked for again and again read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgesite.kube.quantity import InvalidQuantity, parse

__all__ = ["FINAL_PHASES", "Pod", "amount_nano", "effective_amount", "effective_requests"]

DEFAULT_GRACE_S: Final = 30.0
MIRROR: Final = "kubernetes.io/config.mirror"  #: annotation of what stands in the API for a static pod
SOURCE: Final = "kubernetes.io/config.source"  #: annotation: "file" of a pod that this node was told of by a file
FINAL_PHASES: Final = frozenset({"Succeeded", "Failed"})


class Pod:
    """One version of a pod; frozen by convention. ``raw`` is the API object."""

    __slots__ = ("name", "namespace", "raw", "spec", "uid")

    def __init__(self, raw: dict[str, Any]) -> None:
        metadata = raw.get("metadata") or {}
        self.raw = raw
        self.name: str = metadata.get("name", "")
        self.namespace: str = metadata.get("namespace", "default")
        self.uid: str = metadata.get("uid", "")
        self.spec: dict[str, Any] = raw.get("spec") or {}

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def metadata(self) -> dict[str, Any]:
        return self.raw.get("metadata") or {}

    @property
    def status(self) -> dict[str, Any]:
        """As the API had it when this version was sent."""
        return self.raw.get("status") or {}

    @property
    def labels(self) -> dict[str, str]:
        return self.metadata.get("labels") or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.metadata.get("annotations") or {}

    @property
    def containers(self) -> list[dict[str, Any]]:
        return self.spec.get("containers") or []

    @property
    def init_containers(self) -> list[dict[str, Any]]:
        return self.spec.get("initContainers") or []

    @property
    def ephemeral_containers(self) -> list[dict[str, Any]]:
        return self.spec.get("ephemeralContainers") or []

    def member_of(self, name: str) -> str:
        """Return the member of the spec that holds the container of this name."""
        members = ("initContainers", "ephemeralContainers")
        for member in members:
            if any(one.get("name") == name for one in self.spec.get(member) or ()):
                return member
        return "containers"

    @property
    def is_static(self) -> bool:
        """Whether a file of this node, not the API, wants it."""
        return self.annotations.get(SOURCE, "api") != "api"

    @property
    def deleting(self) -> bool:
        return bool(self.metadata.get("deletionTimestamp"))

    @property
    def grace_s(self) -> float:
        """How long its containers have to end by themselves."""
        for grace in (self.metadata.get("deletionGracePeriodSeconds"), self.spec.get("terminationGracePeriodSeconds")):
            if grace is not None:
                return float(grace)
        return DEFAULT_GRACE_S

    @property
    def restart_policy(self) -> str:
        return self.spec.get("restartPolicy") or "Always"

    @property
    def host_network(self) -> bool:
        return bool(self.spec.get("hostNetwork"))

    @property
    def log_directory_name(self) -> str:
        """As kubelet names it, below the root of container logs."""
        return f"{self.namespace}_{self.name}_{self.uid}"

    def is_sidecar(self, container: dict[str, Any]) -> bool:
        """Whether an init container goes on beside the main ones."""
        return container.get("restartPolicy") == "Always"

    def reference(self) -> dict[str, Any]:
        """What an Event's ``involvedObject`` says of this pod."""
        return {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "resourceVersion": self.metadata.get("resourceVersion", ""),
        }

    def __repr__(self) -> str:
        return f"Pod({self.key}, uid={self.uid})"


def amount_nano(container: dict[str, Any], kind: str, resource: str) -> int:
    """Billionths of a resource in ``kind`` (limits or requests) of a container; 0 when absent or unreadable."""
    text = ((container.get("resources") or {}).get(kind) or {}).get(resource)
    if text is None:
        return 0
    try:
        return parse(str(text)).nano
    except InvalidQuantity:
        return 0


def effective_requests(pod: Pod, resource: str) -> int:
    """Billionths of a resource that the pod takes on the node: the main containers together, or the largest init container; and
    what its runtime class costs on top."""
    return effective_amount(pod, lambda one: _request(one, resource), resource)


def effective_amount(pod: Pod, of: Callable[[dict[str, Any]], int], resource: str) -> int:
    """What the containers of a pod come to at the most at one time, with what ``of`` says of each, and its overhead."""
    running = sum(map(of, pod.containers))
    sidecars = largest = 0
    for one in pod.init_containers:
        if pod.is_sidecar(one):
            sidecars += of(one)
        else:
            largest = max(largest, sidecars + of(one))
    overhead = amount_nano({"resources": pod.spec}, "overhead", resource)
    return max(running + sidecars, largest) + overhead


def _request(container: dict[str, Any], resource: str) -> int:
    # A limit without a request stands for the request too; the API server's defaulting usually has done this.
    return amount_nano(container, "requests", resource) or amount_nano(container, "limits", resource)
