"""What each edge should hold: pods bound to it, and the ConfigMaps and Secrets that they refer to.

Devices and their models are devicecontroller's, the rights of service accounts policycontroller's (`Others`), as long as these are there.
Volumes, claims and attachments are never sent unasked, but an edge that has asked for one keeps it: it hears of their changes
and of their end (``followed``). A KubeEdge edge of v1.23 or later is also sent its Node, which it no longer asks for.

`EdgeObjects` is offered to synccontroller once the caches are full: nothing may be judged by a half-filled cache.

State   Informers of pods, ConfigMaps, Secrets, nodes and volumes, shared with the role; indexes on the pods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgesite.cloud.edgecontroller.references import claims_of, references_of
from edgesite.cloud.edgecontroller.storage import secrets_at_node
from edgesite.kube.resources import (
    BUILTIN,
    CONFIG_MAPS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
)
from edgesite.wire.delivery import version_number

if TYPE_CHECKING:
    from edgesite.client import Informer, SharedInformers
    from edgesite.kube.resources import Resource

__all__ = ["DEVICE_TYPES", "EdgeObject", "EdgeObjects", "Others", "is_since", "takes_errors", "typed", "wants_node"]

Object = dict[str, Any]
DEVICE_TYPES: Final = frozenset({"device", "devicemodel"})
_BY_NODE: Final = "edge-node"
_BY_REFERENCE: Final = "edge-reference"
_BY_CLAIM: Final = "edge-claim"
_VOLUME_ATTACHMENTS: Final = next(one for one in BUILTIN if one.plural == "volumeattachments")
_EDGE_VERSION: Final = re.compile(r"-kubeedge-v(\d+)\.(\d+)")
_ASKED_BELOW_DEFAULT: Final = frozenset({"persistentvolume", "volumeattachment"})
_ERRORS_SINCE: Final = (1, 13)
_NODE_PUSHED_SINCE: Final = (1, 23)


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


def wants_node(node: Object) -> bool:
    """Whether this node's edge waits to be sent its Node: KubeEdge since v1.23 does, which its version tells."""
    return is_since(node, _NODE_PUSHED_SINCE)


def takes_errors(node: Object) -> bool:
    """Whether this node's edge knows an error when a query is answered with one: an older one stores it as the object."""
    return is_since(node, _ERRORS_SINCE)


def is_since(node: Object, version: tuple[int, int]) -> bool:
    """Whether this node's edge is KubeEdge of that version or a later one."""
    info = (node.get("status") or {}).get("nodeInfo") or {}
    found = _EDGE_VERSION.search(str(info.get("kubeletVersion") or ""))
    return found is not None and (int(found[1]), int(found[2])) >= version


def _node_of(pod: Object) -> Iterable[str]:
    node = (pod.get("spec") or {}).get("nodeName")
    return (node,) if node else ()


def _references(pod: Object) -> Iterator[str]:
    namespace = pod["metadata"].get("namespace") or ""
    return (f"{type_}/{namespace}/{name}" for type_, name in references_of(pod))


def _claims(pod: Object) -> Iterator[str]:
    namespace = pod["metadata"].get("namespace") or ""
    return (f"{namespace}/{name}" for name in claims_of(pod))


class Others(Protocol):
    """Objects of further types, whoever keeps them."""

    @property
    def kinds(self) -> Mapping[str, Resource]:
        """The kind behind each type word."""
        ...

    def get(self, type_: str, namespace: str, name: str) -> Object | None:
        """An object with the version that edges know."""
        ...

    def desired(self, node: str) -> Iterator[tuple[str, Object]]:
        """Type word and object of all that a node should hold."""
        ...

    def belongs(self, type_: str, namespace: str, name: str, node: str) -> bool:
        """Whether a node should hold this object."""
        ...


class EdgeObjects:
    """Read-only view of the caches."""

    def __init__(
        self, informers: SharedInformers, others: Mapping[str, Callable[[], Others | None]] | None = None
    ) -> None:
        """``others``: who knows the objects of a type word that are not here, as long as it is there."""
        self._others = others or {}
        self.pods: Informer = informers.of(PODS)
        self.nodes: Informer = informers.of(NODES)
        self.configs: dict[str, tuple[Informer, Resource]] = {
            "configmap": (informers.of(CONFIG_MAPS), CONFIG_MAPS),
            "secret": (informers.of(SECRETS), SECRETS),
        }
        self.followed: dict[str, tuple[Informer, Resource]] = {
            "persistentvolume": (informers.of(PERSISTENT_VOLUMES), PERSISTENT_VOLUMES),
            "persistentvolumeclaim": (informers.of(PERSISTENT_VOLUME_CLAIMS), PERSISTENT_VOLUME_CLAIMS),
            "volumeattachment": (informers.of(_VOLUME_ATTACHMENTS), _VOLUME_ATTACHMENTS),
        }
        self._caches = {"pod": (self.pods, PODS), **self.configs, **self.followed, "node": (self.nodes, NODES)}
        self.pods.add_index(_BY_NODE, _node_of)
        self.pods.add_index(_BY_REFERENCE, _references)
        self.pods.add_index(_BY_CLAIM, _claims)

    async def wait_synced(self) -> None:
        for informer, _ in self._caches.values():
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

    def mounts_with(self, node: str, namespace: str, secret: str) -> bool:
        """Whether a node has a pod whose claimed volume is mounted with the help of a secret."""
        for volume in self.followed["persistentvolume"][0].list():
            if (namespace, secret) in secrets_at_node(volume):
                claim = (volume.get("spec") or {}).get("claimRef") or {}
                if node in self.nodes_claiming(str(claim.get("namespace") or ""), str(claim.get("name") or "")):
                    return True
        return False

    def needed_by(self, pod: Object) -> Iterator[EdgeObject]:
        """The ConfigMaps and Secrets that exist and that the pod refers to."""
        namespace = pod["metadata"].get("namespace") or ""
        for type_, name in sorted(references_of(pod)):
            found = self.get(type_, namespace, name)
            if found is not None:
                yield found

    def get(self, type_: str, namespace: str, name: str) -> EdgeObject | None:
        """An object of one of the types that `manages` knows, from the cache."""
        if type_ in self._others:
            other = self._other(type_)
            found = None if other is None else other.get(type_, namespace, name)
            return None if found is None else EdgeObject(type_, found)
        informer, resource = self._caches[type_]
        obj = informer.get(name, namespace)
        return None if obj is None else EdgeObject(type_, typed(obj, resource))

    def kind_of(self, type_: str) -> Resource:
        """The kind behind a type word that `manages` knows."""
        other = self._other(type_)
        return self._caches[type_][1] if other is None else other.kinds[type_]

    def manages(self, type_: str) -> bool:
        return type_ in self._caches or self._other(type_) is not None

    def _other(self, type_: str) -> Others | None:
        find = self._others.get(type_)
        return None if find is None else find()

    def word(self, node: str, type_: str, namespace: str) -> str:
        """The namespace word under which this edge keeps an object: before v1.23 edges ask for volumes below "default"."""
        if namespace or type_ not in _ASKED_BELOW_DEFAULT or wants_node(self.nodes.get(node) or {}):
            return namespace
        return "default"

    def is_followed(self, type_: str) -> bool:
        """Whether an edge that asked for such an object hears of its changes."""
        return type_ in self.followed

    def desired(self, node: str) -> Iterator[EdgeObject]:
        """All that a node should hold, what a pod needs before the pod; an object may come more than once."""
        for pod in self.pods_of(node):
            yield from self.needed_by(pod)
            yield EdgeObject("pod", typed(pod, PODS))
        own = self.nodes.get(node)
        if own is not None and wants_node(own):
            yield EdgeObject("node", typed(own, NODES))
        for other in dict.fromkeys(find() for find in self._others.values()):
            if other is not None:
                yield from (EdgeObject(type_, obj) for type_, obj in other.desired(node))

    def is_gone(self, type_: str, namespace: str, name: str, uid: str, node: str) -> bool:
        """Whether an edge that holds this object must drop it: it was deleted, or the pod is bound elsewhere."""
        found = self.get(type_, namespace, name)
        if found is None or found.uid != uid:
            return True
        other = self._other(type_)
        if other is not None:
            return not other.belongs(type_, namespace, name, node)
        return type_ == "pod" and node not in _node_of(found.obj)
