"""Deliveries by node, in memory, and their copies in the API: ObjectSync and ClusterObjectSync.

A delivery is written down some seconds later, together with others: of several versions of an object only the last is. If the
cloud role dies in between, an edge is sent once more what it has, which it takes without effect.

    metadata.name                 <node>.<uid of the object>
    spec                          objectAPIVersion, objectKind, objectName
    status.objectResourceVersion  the version that the edge has acknowledged

State   One small entry per node and object; `changed` holds what differs from the API.
Source  KubeEdge v1.12.7, cloud/pkg/cloudhub/session; reliablesyncs.kubeedge.io/v1alpha1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import anyio
from msgspec.structs import replace

from edgesite.wire.delivery import ObjectRef, version_number
from edgesite.wire.greeting import digest_of

__all__ = ["Records", "sync_name", "sync_object"]

Object = dict[str, Any]
#: type word -> (apiVersion, kind) of what edges tell by its type word alone
_KINDS: Final = {
    "configmap": ("v1", "ConfigMap"),
    "device": ("devices.kubeedge.io/v1beta1", "Device"),
    "devicemodel": ("devices.kubeedge.io/v1beta1", "DeviceModel"),
    "node": ("v1", "Node"),
    "persistentvolume": ("v1", "PersistentVolume"),
    "persistentvolumeclaim": ("v1", "PersistentVolumeClaim"),
    "pod": ("v1", "Pod"),
    "secret": ("v1", "Secret"),
    "serviceaccountaccess": ("policy.kubeedge.io/v1alpha1", "ServiceAccountAccess"),
    "volumeattachment": ("storage.k8s.io/v1", "VolumeAttachment"),
}


def sync_name(node: str, uid: str) -> str:
    return f"{node}.{uid}"


def sync_object(node: str, ref: ObjectRef) -> Object | None:
    """Return the ObjectSync or ClusterObjectSync of a delivery; None if its kind is not known."""
    api_version, kind = (ref.api_version, ref.kind) if ref.kind else _KINDS.get(ref.type, ("", ""))
    if not kind:
        return None
    metadata = {"name": sync_name(node, ref.uid)}
    if ref.namespace:
        metadata["namespace"] = ref.namespace
    return {
        "apiVersion": "reliablesyncs.kubeedge.io/v1alpha1",
        "kind": "ObjectSync" if ref.namespace else "ClusterObjectSync",
        "metadata": metadata,
        "spec": {"objectAPIVersion": api_version, "objectKind": kind, "objectName": ref.name},
        "status": {"objectResourceVersion": str(ref.version)},
    }


def from_sync(obj: Object) -> tuple[str, ObjectRef] | None:
    """Read a node and a delivery back; None for an object that is not one of ours or Go's."""
    node, _, uid = str(obj["metadata"]["name"]).rpartition(".")
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    kind = str(spec.get("objectKind") or "")
    if not node or not uid or not kind:
        return None
    ref = ObjectRef(
        uid,
        version_number(status.get("objectResourceVersion")),
        kind.lower(),
        str(obj["metadata"].get("namespace") or ""),
        str(spec.get("objectName") or ""),
        str(spec.get("objectAPIVersion") or ""),
        kind,
    )
    return node, ref


class Records:
    """Implements `edgesite.cloud.cloudhub.records.DeliveryRecords`."""

    def __init__(self) -> None:
        self._by_node: dict[str, dict[str, ObjectRef]] = {}
        self._on_its_way: dict[str, dict[str, None]] = {}  # node -> uids that it may hold before it says so
        self.written: dict[tuple[str, str], ObjectRef] = {}  #: (node, uid) -> as it stands in the API
        self.changed: dict[tuple[str, str], None] = {}  #: what differs from that, in order
        self.suspect: Callable[[str], None] = lambda node: None  #: told of a node that is to be compared now
        self.suspect_all: Callable[[], None] = lambda: None
        self._denied: dict[str, dict[str, ObjectRef]] = {}
        self._filled = anyio.Event()
        self._urgent = anyio.Event()

    # -- DeliveryRecords -----------------------------------------------------------------------------------------

    def version_at_edge(self, node: str, uid: str) -> int | None:
        ref = self._by_node.get(node, {}).get(uid)
        return None if ref is None else ref.version

    def digest(self, node: str) -> str:
        return digest_of((uid, ref.version) for uid, ref in self._by_node.get(node, {}).items() if ref.type != "node")

    def holders(self, uid: str) -> Iterator[str]:
        held = (node for node, refs in self._by_node.items() if uid in refs)
        return iter({**dict.fromkeys(held), **{node: None for node, uids in self._on_its_way.items() if uid in uids}})

    def on_its_way(self, node: str, uid: str) -> None:
        if uid not in self._by_node.get(node, {}):
            self._on_its_way.setdefault(node, {})[uid] = None

    def left(self, node: str) -> None:
        """The node's session has ended: what was on its way comes again, if it is still wanted."""
        self._on_its_way.pop(node, None)
        self._denied.pop(node, None)

    def sent(self, node: str, ref: ObjectRef) -> None:
        held = self._by_node.setdefault(node, {})
        if ref.uid not in held:
            held[ref.uid] = replace(ref, version=0)
            self._mark(node, ref.uid)
            self._urgent.set()

    def delivered(self, node: str, ref: ObjectRef) -> None:
        held = self._by_node.setdefault(node, {})
        self._arrived(node, ref.uid)
        old = held.get(ref.uid)
        if old is None or old.version < ref.version:
            held[ref.uid] = ref
            self._mark(node, ref.uid)

    def _arrived(self, node: str, uid: str) -> None:
        under_way = self._on_its_way.get(node)
        if under_way is not None:
            under_way.pop(uid, None)

    def removed(self, node: str, uid: str) -> None:
        self._arrived(node, uid)
        if self._by_node.get(node, {}).pop(uid, None) is not None:
            self._mark(node, uid)

    def replace(self, node: str, refs: Iterable[ObjectRef]) -> None:
        held = self._by_node.get(node, {})
        told = {}
        for ref in refs:
            old = held.get(ref.uid)
            told[ref.uid] = ref if old is None else replace(old, version=ref.version)
        self._by_node[node] = told
        for uid in {**held, **told}:
            if held.get(uid) != told.get(uid):
                self._mark(node, uid)

    def denied(self, node: str, ref: ObjectRef) -> None:
        self._denied.setdefault(node, {})[ref.uid] = ref
        self.suspect(node)

    def lost(self, node: str) -> None:
        for uid in self._by_node.get(node, {}):
            self.unknown(node, uid)
        self.suspect(node)

    def went_back(self) -> None:
        self.suspect_all()

    # -- for the module ------------------------------------------------------------------------------------------

    def load(self, objects: Iterable[Object]) -> None:
        """Take what stands in the API."""
        for obj in objects:
            found = from_sync(obj)
            if found is not None:
                node, ref = found
                self._by_node.setdefault(node, {})[ref.uid] = ref
                self.written[node, ref.uid] = ref

    def catch_up(self, objects: Iterable[Object], nodes: set[str]) -> None:
        """Take what another instance of the cloud role has recorded of these nodes, where it knows more."""
        for obj in objects:
            found = from_sync(obj)
            if found is None or found[0] not in nodes:
                continue
            node, ref = found
            held = self._by_node.setdefault(node, {})
            old = held.get(ref.uid)
            if old is None or old.version < ref.version:
                held[ref.uid] = ref
            self.written[node, ref.uid] = ref
            self._mark(node, ref.uid)

    def of(self, node: str) -> list[ObjectRef]:
        return list(self._by_node.get(node, {}).values())

    def find(self, node: str, uid: str) -> ObjectRef | None:
        return self._by_node.get(node, {}).get(uid)

    def nodes(self) -> list[str]:
        return list(self._by_node)

    def take_denied(self, node: str) -> list[ObjectRef]:
        """What the node has refused, since the last call, because it has ended there."""
        return list(self._denied.pop(node, {}).values())

    def unknown(self, node: str, uid: str) -> None:
        """The node may hold anything of this object."""
        ref = self.find(node, uid)
        if ref is not None:
            self._by_node[node][uid] = replace(ref, version=0)
            self._mark(node, uid)

    def forget_node(self, node: str) -> None:
        self.left(node)
        for uid in self._by_node.pop(node, {}):
            self._mark(node, uid)

    def wrote(self, node: str, uid: str, ref: ObjectRef | None) -> None:
        """The API now has this record, or none. The edge may have told something newer meanwhile."""
        if ref is None:
            self.written.pop((node, uid), None)
        else:
            self.written[node, uid] = ref
        self._mark(node, uid)

    def _mark(self, node: str, uid: str) -> None:
        if self._by_node.get(node, {}).get(uid) == self.written.get((node, uid)):
            self.changed.pop((node, uid), None)
        else:
            self.changed[node, uid] = None
            self._filled.set()

    async def wait_changed(self) -> None:
        while not self.changed:
            self._filled = anyio.Event()
            await self._filled.wait()

    def hurry(self) -> None:
        """Write soon what has changed: another instance may need it."""
        self._urgent.set()

    async def wait_urgent(self) -> None:
        """Wait for something that must be written at once: without it an edge's object could be forgotten."""
        await self._urgent.wait()
        self._urgent = anyio.Event()
