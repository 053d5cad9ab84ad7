"""Devices and models as the cloud role knows them, and in which form each edge gets them.

A device's version, for an edge, is the resourceVersion at which last something changed that an edge acts upon: reports of the device
itself go into its status and would otherwise send it down again each time. So the version lives in memory; after a start it is the
present one, and edges are sent their devices once more, which changes nothing there.

    edges of ours             v1beta1, without status and without kubectl's copy of the manifest
    KubeEdge since v1.15      v1beta1
    KubeEdge before           v1alpha2

State   Two informers of its own. A device is kept as its JSON: as a dict it is six times as large, and there may be thousands.
Source  KubeEdge v1.12, cloud/pkg/devicecontroller; v1.15 (versions of the API).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import Informer
from edgesite.cloud.edgecontroller.objects import is_since
from edgesite.kube import json
from edgesite.kube.devices import to_v1alpha2, to_v1beta1
from edgesite.kube.devices.conversion import KEPT_ALPHA
from edgesite.wire.delivery import version_number

if TYPE_CHECKING:
    import random

    from edgesite.client import Client
    from edgesite.context import Clock
    from edgesite.kube.resources import Resource

__all__ = ["DEVICE", "MODEL", "DeviceObjects", "knows_beta", "unpacked"]

Object = dict[str, Any]
DEVICE: Final = "device"
MODEL: Final = "devicemodel"
_BY_NODE: Final = "node"
_BY_MODEL: Final = "model"
_BY_NAME: Final = "node-and-name"
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_BETA_SINCE: Final = (1, 15)


def unpacked(one: Object) -> Object:
    """A device of the cache as the API has it, in v1beta1: the caller's own."""
    found: Object = json.loads(one["text"])
    return found


def knows_beta(node: Object) -> bool:
    """Whether a node's edge takes devices in v1beta1. One that does not tell its version is taken for an old one."""
    return is_since(node, _BETA_SINCE)


def pack(obj: Object) -> Object:
    """What is cached of a device."""
    beta = to_v1beta1({"kind": "Device", **obj}) if obj.get("apiVersion") else obj
    metadata = {name: value for name, value in beta["metadata"].items() if name != "managedFields"}
    beta = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", **beta, "metadata": metadata}
    spec = beta.get("spec") or {}
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != _LAST_APPLIED}
    acted_upon = json.dumps([spec, metadata.get("labels"), annotations])
    kept = ("name", "namespace", "uid", "resourceVersion")
    return {
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "node": spec.get("nodeName") or "",
        "model": (spec.get("deviceModelRef") or {}).get("name") or "",
        "alpha": KEPT_ALPHA in annotations,
        "digest": hash(acted_upon),  # to be compared in this process alone
        "reported": hash(json.dumps((beta.get("status") or {}).get("twins") or [])),
        "text": json.dumps(beta),
    }


def _node(one: Object) -> Iterable[str]:
    return (one["node"],) if one["node"] else ()


def _model(one: Object) -> Iterable[str]:
    return (f"{one['metadata'].get('namespace')}/{one['model']}",)


def _name(one: Object) -> Iterable[str]:
    return (f"{one['node']}/{one['metadata']['name']}",) if one["node"] else ()


class DeviceObjects:
    """Read-only view of the caches. ``is_own(node)`` tells whether a connected node is one of ours, ``node_of(name)`` its Node."""

    def __init__(
        self,
        client: Client,
        device_kind: Resource,
        model_kind: Resource,
        clock: Clock,
        draw: random.Random,
        is_own: Callable[[str], bool],
        node_of: Callable[[str], Object | None],
    ) -> None:
        self.kinds = {DEVICE: device_kind, MODEL: model_kind}
        self.devices = Informer(client, device_kind, clock, draw, transform=self._packed)
        self.models = Informer(client, model_kind, clock, draw)
        self._is_own = is_own
        self._node_of = node_of
        self._versions: dict[str, int] = {}  # uid -> version for edges, where it is not the resourceVersion
        for name, indexer in ((_BY_NODE, _node), (_BY_MODEL, _model), (_BY_NAME, _name)):
            self.devices.add_index(name, indexer)
        self.devices.add_handler(None, self._updated, self._deleted)

    def _packed(self, obj: Object) -> Object:
        """For the informer, which may hand over twice what it has."""
        if "text" in obj:
            return obj
        return pack({**obj, "apiVersion": self.kinds[DEVICE].api_version})

    async def wait_synced(self) -> None:
        await self.devices.wait_synced()
        await self.models.wait_synced()

    # -- versions ------------------------------------------------------------------------------------------------

    def _updated(self, old: Object, new: Object) -> None:
        uid = new["metadata"]["uid"]
        if old["digest"] == new["digest"]:
            self._versions[uid] = self.version_of(old)
        else:
            self._versions.pop(uid, None)

    def _deleted(self, one: Object) -> None:
        self._versions.pop(one["metadata"].get("uid") or "", None)

    def version_of(self, one: Object) -> int:
        """The version of a cached device for edges."""
        metadata = one["metadata"]
        return self._versions.get(metadata.get("uid") or "") or version_number(metadata.get("resourceVersion"))

    # -- looking up ----------------------------------------------------------------------------------------------

    def device(self, namespace: str, name: str) -> Object | None:
        """As it is cached."""
        return self.devices.get(name, namespace)

    def model(self, namespace: str, name: str) -> Object | None:
        """A DeviceModel in v1beta1."""
        found = self.models.get(name, namespace)
        if found is None:
            return None
        return to_v1beta1({"apiVersion": self.kinds[MODEL].api_version, "kind": "DeviceModel", **found})

    def devices_of(self, node: str) -> list[Object]:
        return self.devices.by_index(_BY_NODE, node)

    def devices_like(self, namespace: str, model: str) -> list[Object]:
        """Devices of a model."""
        return self.devices.by_index(_BY_MODEL, f"{namespace}/{model}")

    def find(self, node: str, id_text: str) -> Object | None:
        """The device that an edge means by an id: "namespace/name", or a name, which is then the one in "default" or the only one."""
        namespace, slash, name = id_text.partition("/")
        if slash:
            one = self.device(namespace, name)
            return one if one is not None and one["node"] == node else None
        same = self.devices.by_index(_BY_NAME, f"{node}/{id_text}")
        if len(same) == 1:
            return same[0]
        return next((one for one in same if one["metadata"].get("namespace") == "default"), None)

    def nodes_using(self, namespace: str, model: str) -> dict[str, None]:
        return {one["node"]: None for one in self.devices_like(namespace, model) if one["node"]}

    # -- forms ---------------------------------------------------------------------------------------------------

    def is_own(self, node: str) -> bool:
        return self._is_own(node)

    def takes_alpha(self, node: str) -> bool:
        """Whether this node's edge is KubeEdge's of before v1.15."""
        return not self._is_own(node) and not knows_beta(self._node_of(node) or {})

    def form_of_device(self, one: Object, node: str) -> Object:
        """A device as this node gets it."""
        obj = unpacked(one)
        obj["metadata"]["resourceVersion"] = str(self.version_of(one))
        return self._form(obj, node)

    def form_of_model(self, namespace: str, name: str, node: str) -> Object | None:
        """A model as this node gets it."""
        found = self.model(namespace, name)
        return None if found is None else self._form(found, node)

    def _form(self, obj: Object, node: str) -> Object:
        if self._is_own(node):
            metadata = dict(obj["metadata"])
            annotations = {
                key: value for key, value in (metadata.get("annotations") or {}).items() if key != _LAST_APPLIED
            }
            metadata.pop("annotations", None)
            if annotations:
                metadata["annotations"] = annotations
            return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}
        return obj if knows_beta(self._node_of(node) or {}) else to_v1alpha2(obj)

    # -- for the comparison of what an edge holds ----------------------------------------------------------------

    def desired(self, node: str) -> Iterator[tuple[str, Object]]:
        """Type word and object of all that a node should hold, a device's model before it."""
        seen = set()
        for one in self.devices_of(node):
            place = one["metadata"].get("namespace") or "", one["model"]
            if place not in seen:
                seen.add(place)
                model = self.form_of_model(*place, node)
                if model is not None:
                    yield MODEL, model
            yield DEVICE, self.form_of_device(one, node)

    def get(self, type_: str, namespace: str, name: str) -> Object | None:
        """An object with the version that edges know."""
        if type_ == MODEL:
            return self.model(namespace, name)
        one = self.device(namespace, name)
        if one is None:
            return None
        return {"metadata": {**one["metadata"], "resourceVersion": str(self.version_of(one))}}

    def belongs(self, type_: str, namespace: str, name: str, node: str) -> bool:
        """Whether a node should hold this object."""
        if type_ == MODEL:
            return node in self.nodes_using(namespace, name)
        one = self.device(namespace, name)
        return one is not None and one["node"] == node
