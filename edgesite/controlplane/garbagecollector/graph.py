"""Who owns what, over all kinds: informers that keep metadata only, indexed by owner.

State   One informer a kind. Kinds that other controllers cache in full anyway are shared with them; of the others only what ownership
        needs is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edgesite.client import Informer, ObjectKey
from edgesite.kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    Resource,
)

if TYPE_CHECKING:
    from edgesite.controlplane.cluster import Cluster

__all__ = ["Graph", "Item"]

SHARED: Final = frozenset(
    {PODS, NODES, REPLICA_SETS, DEPLOYMENTS, SERVICES, ENDPOINTS, ENDPOINT_SLICES, NAMESPACES, LEASES}
)
_KEPT: Final = ("name", "namespace", "uid", "resourceVersion", "ownerReferences", "finalizers", "deletionTimestamp")
Object = dict[str, Any]


class Item(NamedTuple):
    """An object, by what it is called."""

    resource: Resource
    key: ObjectKey

    def __str__(self) -> str:
        return f"{self.resource.group_resource} {self.key}"


class Graph:
    """Looks objects and their dependents up."""

    def __init__(self, cluster: Cluster, changed: Callable[[Item, Object, bool], None]) -> None:
        """``changed`` is called for each object that comes or changes, and, with True, for each that goes."""
        self._cluster = cluster
        self._changed = changed
        self._informers: dict[Resource, Informer] = {}
        self._by_kind: dict[tuple[str, str], Resource] = {}  # group, kind

    def add(self, resource: Resource) -> Informer | None:
        """Follow one more kind; returns the informer if it is new and to be run by the caller."""
        if resource in self._informers:
            return None
        own = resource not in SHARED
        if own:
            ctx = self._cluster.ctx
            informer = Informer(
                self._cluster.client, resource, ctx.clock, ctx.random, metadata_only=True, transform=_trim, log=ctx.log
            )
        else:
            informer = self._cluster.informers.of(resource)
        informer.add_index("owner", _owners)
        self._informers[resource] = informer
        self._by_kind[resource.group, resource.kind] = resource
        return informer if own else None

    def subscribe(self, resource: Resource) -> Any:
        """Report the changes of one kind from now on; returns the subscription."""

        def seen(obj: Object) -> None:
            self._changed(Item(resource, _key(obj)), obj, False)

        def gone(obj: Object) -> None:
            self._changed(Item(resource, _key(obj)), obj, True)

        return self._informers[resource].add_handler(seen, lambda old, new: seen(new), gone)

    def informers(self) -> list[Informer]:
        return list(self._informers.values())

    def resources(self) -> list[Resource]:
        return list(self._informers)

    def remove(self, resource: Resource) -> None:
        """The kind is served no more."""
        self._informers.pop(resource, None)
        self._by_kind.pop((resource.group, resource.kind), None)

    def get(self, item: Item) -> Object | None:
        informer = self._informers.get(item.resource)
        return informer.by_key(item.key) if informer is not None else None

    def owner_item(self, reference: Mapping[str, Any], namespace: str) -> Item | None:
        """Return what an owner reference names, seen from an object in ``namespace``.

        None if its kind is not served, or if an object without a namespace names an owner that needs one: neither proves it gone.
        """
        group = str(reference.get("apiVersion") or "").rpartition("/")[0]
        resource = self._by_kind.get((group, str(reference.get("kind") or "")))
        if resource is None or (resource.namespaced and not namespace):
            return None
        return Item(resource, ObjectKey(namespace if resource.namespaced else "", str(reference.get("name") or "")))

    def dependents(self, uid: str) -> list[tuple[Item, Object]]:
        """Return the cached objects that name ``uid`` as an owner."""
        return [
            (Item(resource, _key(obj)), obj)
            for resource, informer in self._informers.items()
            for obj in informer.by_index("owner", uid)
        ]


def _trim(obj: Object) -> Object:
    meta = obj["metadata"]
    return {"metadata": {name: meta[name] for name in _KEPT if meta.get(name)}}


def _owners(obj: Object) -> Iterable[str]:
    return [one.get("uid") or "" for one in obj["metadata"].get("ownerReferences") or ()]


def _key(obj: Object) -> ObjectKey:
    return ObjectKey(obj["metadata"].get("namespace") or "", obj["metadata"]["name"])
