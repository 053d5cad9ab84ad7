"""What each edge should hold: pods bound to it, and the ConfigMaps and Secrets that they refer to.

`EdgeObjects` is offered to synccontroller once the caches are full: nothing may be judged by a half-filled cache.

State   Informers of pods, ConfigMaps, Secrets and nodes, shared with the role; indexes on the pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.edgecontroller.references import claims_of, references_of
from edgesite.kube.resources import CONFIG_MAPS, NODES, PODS, SECRETS
from edgesite.wire.delivery import version_number

if TYPE_CHECKING:
    from edgesite.client import Informer, SharedInformers
    from edgesite.kube.resources import Resource

__all__ = ["EdgeObject", "EdgeObjects", "typed"]

Object = dict[str, Any]
_BY_NODE: Final = "edge-node"
_BY_REFERENCE: Final = "edge-reference"
_BY_CLAIM: Final = "edge-claim"


@dataclass(frozen=True, slots=True)
class EdgeObject:
    """An object with its type word."""

    type: str
    obj: Object

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"].get("uid") or "")

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"].get("namespace") or "")

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def version(self) -> int:
        return version_number(self.obj["metadata"].get("resourceVersion"))


def typed(obj: Object, resource: Resource) -> Object:
    """Return the object with kind and apiVersion, which items of lists do not have."""
    if obj.get("kind") and obj.get("apiVersion"):
        return obj
    return {"kind": resource.kind, "apiVersion": resource.api_version, **obj}


def _node_of(pod: Object) -> Iterable[str]:
    node = (pod.get("spec") or {}).get("nodeName")
    return (node,) if node else ()


def _references(pod: Object) -> Iterator[str]:
    namespace = pod["metadata"].get("namespace") or ""
    return (f"{type_}/{namespace}/{name}" for type_, name in references_of(pod))


def _claims(pod: Object) -> Iterator[str]:
    namespace = pod["metadata"].get("namespace") or ""
    return (f"{namespace}/{name}" for name in claims_of(pod))


class EdgeObjects:
    """Read-only view of the caches."""

    def __init__(self, informers: SharedInformers) -> None:
        self.pods: Informer = informers.of(PODS)
        self.nodes: Informer = informers.of(NODES)
        self.configs: dict[str, tuple[Informer, Resource]] = {
            "configmap": (informers.of(CONFIG_MAPS), CONFIG_MAPS),
            "secret": (informers.of(SECRETS), SECRETS),
        }
        self.pods.add_index(_BY_NODE, _node_of)
        self.pods.add_index(_BY_REFERENCE, _references)
        self.pods.add_index(_BY_CLAIM, _claims)

    async def wait_synced(self) -> None:
        for informer in (self.nodes, self.pods, *(one for one, _ in self.configs.values())):
            await informer.wait_synced()

    def node_exists(self, node: str) -> bool:
        return self.nodes.get(node) is not None

    def pods_of(self, node: str) -> list[Object]:
        return self.pods.by_index(_BY_NODE, node)

    def nodes_needing(self, type_: str, namespace: str, name: str) -> dict[str, None]:
        """Nodes with a pod that refers to a ConfigMap or Secret."""
        pods = self.pods.by_index(_BY_REFERENCE, f"{type_}/{namespace}/{name}")
        return {node: None for pod in pods for node in _node_of(pod)}

    def nodes_claiming(self, namespace: str, claim: str) -> set[str]:
        """Nodes with a pod that mounts a claim."""
        return {node for pod in self.pods.by_index(_BY_CLAIM, f"{namespace}/{claim}") for node in _node_of(pod)}

    def needed_by(self, pod: Object) -> Iterator[EdgeObject]:
        """The ConfigMaps and Secrets that exist and that the pod refers to."""
        namespace = pod["metadata"].get("namespace") or ""
        for type_, name in sorted(references_of(pod)):
            found = self.get(type_, namespace, name)
            if found is not None:
                yield found

    def get(self, type_: str, namespace: str, name: str) -> EdgeObject | None:
        """A pod, ConfigMap or Secret from the cache."""
        informer, resource = (self.pods, PODS) if type_ == "pod" else self.configs[type_]
        obj = informer.get(name, namespace)
        return None if obj is None else EdgeObject(type_, typed(obj, resource))

    def manages(self, type_: str) -> bool:
        return type_ == "pod" or type_ in self.configs

    def desired(self, node: str) -> Iterator[EdgeObject]:
        """All that a node should hold, what a pod needs before the pod; an object may come more than once."""
        for pod in self.pods_of(node):
            yield from self.needed_by(pod)
            yield EdgeObject("pod", typed(pod, PODS))

    def is_gone(self, type_: str, namespace: str, name: str, uid: str, node: str) -> bool:
        """Whether an edge that holds this object must drop it: it was deleted, or the pod is bound elsewhere."""
        found = self.get(type_, namespace, name)
        if found is None or found.uid != uid:
            return True
        return type_ == "pod" and node not in _node_of(found.obj)
