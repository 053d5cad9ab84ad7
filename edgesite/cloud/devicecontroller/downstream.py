"""Devices and models to the nodes that need them, as they change.

A device goes to the node that it is bound to, its model before it; when it is bound elsewhere, deleted, or no longer bound, its end goes
to whoever holds it, and that of a model to nodes where no device has it any more. Objects are delivered reliably, so that what was
wanted while a node was away arrives when it is back (KubeEdge loses that). Edges of KubeEdge are sent its messages besides.

State   Changes that wait, one for an object and node, the newest wins.
Source  KubeEdge v1.12, cloud/pkg/devicecontroller/controller/downstream.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.client.informer import ObjectKey, key_of
from edgesite.cloud.devicecontroller import membership as words
from edgesite.cloud.devicecontroller.objects import DEVICE, MODEL, DeviceObjects, unpacked
from edgesite.kube.devices import to_v1beta1
from edgesite.wire import resource
from edgesite.wire.message import Message, MessageMaker, Operation

if TYPE_CHECKING:
    from edgesite.context import Bus

__all__ = ["SOURCE", "Downstream"]

Object = dict[str, Any]
SOURCE: Final = "devicecontroller"


@dataclass(frozen=True, slots=True)
class _Key:
    node: str
    type: str
    namespace: str
    name: str
    uid: str


@dataclass(slots=True)
class _Change:
    """``last`` is the object as it was: before its end, or before this change."""

    gone: bool
    last: Object | None


class Downstream:
    """`run` sends until cancelled. ``is_here(node)``: whether a node is connected to this instance; for others nothing is sent, since a session
    begins with a comparison. ``holders(uid)``: nodes that may hold an object; ``has(node, uid)``: whether one is known to;
    ``on_its_way(node, uid)`` says that it soon may. ``changed(device)`` is told of each device that edges or mappers act upon;
    ``is_foreign(key, device)`` tells whether a status was written by others."""

    def __init__(
        self,
        objects: DeviceObjects,
        bus: Bus,
        maker: MessageMaker,
        is_here: Callable[[str], bool],
        holders: Callable[[str], Iterable[str]],
        has: Callable[[str, str], bool],
        on_its_way: Callable[[str, str], None],
        changed: Callable[[Object], None],
        is_foreign: Callable[[ObjectKey, Object], bool],
    ) -> None:
        self._objects = objects
        self._bus = bus
        self._maker = maker
        self._is_here = is_here
        self._holders = holders
        self._has = has
        self._on_its_way = on_its_way
        self._changed = changed
        self._is_foreign = is_foreign
        self._asked: dict[str, dict[str, None]] = {}  # node -> devices that shall report anew
        self._waiting: dict[_Key, _Change] = {}
        self._filled = anyio.Event()

    async def run(self) -> None:
        with ExitStack() as handlers:
            devices, models = self._objects.devices, self._objects.models
            handlers.enter_context(models.add_handler(self._model_added, self._model_updated, self._model_deleted))
            handlers.enter_context(devices.add_handler(self._added, self._updated, self._deleted))
            while True:
                if not self._waiting and not self._asked:
                    self._filled = anyio.Event()
                    await self._filled.wait()
                if self._asked:
                    await self._ask_for_reports()
                    continue
                key = next(iter(self._waiting))
                change = self._waiting.pop(key)
                if self._is_here(key.node):
                    await self._send_change(key, change)

    # -- what changes --------------------------------------------------------------------------------------------

    def _add(self, node: str, type_: str, obj: Object, *, gone: bool = False, last: Object | None = None) -> None:
        metadata = obj["metadata"]
        uid = str(metadata.get("uid") or "")
        key = _Key(node, type_, str(metadata.get("namespace") or ""), str(metadata["name"]), uid)
        old = self._waiting.get(key)
        if old is not None and not gone and not old.gone:
            last = old.last  # the edge has not heard of what was between
        self._waiting[key] = _Change(gone, last)
        self._filled.set()

    def _added(self, one: Object) -> None:
        self._bring(one)
        self._changed(one)

    def _bring(self, one: Object) -> None:
        if not one["node"]:
            return
        model = self._objects.models.get(one["model"], one["metadata"].get("namespace") or "")
        if model is not None:
            self._add(one["node"], MODEL, model)
        self._add(one["node"], DEVICE, one)

    def _updated(self, old: Object, new: Object) -> None:
        if old["reported"] != new["reported"] and new["node"] and self._is_foreign(key_of(new), new):
            # A manifest was applied again, say, with values of the day on which it was written.
            self._asked.setdefault(new["node"], {})[str(key_of(new))] = None
            self._filled.set()
        if old["digest"] == new["digest"]:
            return
        if old["node"] != new["node"]:
            self._take_away(old)
            self._bring(new)
        elif new["node"]:
            if old["model"] != new["model"]:
                self._bring(new)
                self._drop_model(old)
            self._add(new["node"], DEVICE, new, last=old)
        self._changed(old)
        self._changed(new)

    def _deleted(self, one: Object) -> None:
        self._take_away(one)
        self._changed(one)

    def _take_away(self, one: Object) -> None:
        uid = str(one["metadata"].get("uid") or "")
        nodes = dict.fromkeys(self._holders(uid))
        if one["node"]:
            nodes[one["node"]] = None
        for node in nodes:
            self._add(node, DEVICE, one, gone=True, last=one)
        self._drop_model(one)

    def _drop_model(self, one: Object) -> None:
        """End the model where it was needed for this device alone."""
        namespace = one["metadata"].get("namespace") or ""
        model = self._objects.models.get(one["model"], namespace)
        if model is not None and one["node"] and one["node"] not in self._objects.nodes_using(namespace, one["model"]):
            self._add(one["node"], MODEL, model, gone=True, last=model)

    def _model_added(self, model: Object) -> None:
        """Devices may have been there before their model: one that was deleted and made anew, say."""
        self._model_updated(model, model)

    def _model_updated(self, old: Object, new: Object) -> None:
        namespace, name = new["metadata"].get("namespace") or "", new["metadata"]["name"]
        for node in self._objects.nodes_using(namespace, name):
            self._add(node, MODEL, new)
        for one in self._objects.devices_like(namespace, name):
            self._changed(one)

    def _model_deleted(self, model: Object) -> None:
        """Devices that still have it are left without; edges keep them."""
        namespace, name = model["metadata"].get("namespace") or "", model["metadata"]["name"]
        nodes = {**dict.fromkeys(self._holders(str(model["metadata"].get("uid") or "")))}
        for node in nodes | self._objects.nodes_using(namespace, name):
            self._add(node, MODEL, model, gone=True, last=model)

    # -- messages ------------------------------------------------------------------------------------------------

    async def _send_change(self, key: _Key, change: _Change) -> None:
        if change.gone:
            await self._send_end(key, change.last or {"metadata": {}})
            return
        obj = self._present(key)
        if obj is None or str(obj["metadata"].get("uid") or "") != key.uid:
            return  # what has come since is under way by itself
        known = self._has(key.node, key.uid)
        self._on_its_way(key.node, key.uid)
        if key.type == DEVICE and not self._objects.is_own(key.node):
            await self._tell_kubeedge(key, obj, change.last)
        operation = Operation.UPDATE if known else Operation.INSERT
        await self._send_object(key, operation, obj)

    def _present(self, key: _Key) -> Object | None:
        """The object as the node gets it now; None if it should not have it."""
        if key.type == MODEL:
            return self._objects.form_of_model(key.namespace, key.name, key.node)
        one = self._objects.device(key.namespace, key.name)
        if one is None or one["node"] != key.node:
            return None
        return self._objects.form_of_device(one, key.node)

    async def _send_end(self, key: _Key, last: Object) -> None:
        obj = unpacked(last) if "text" in last else to_v1beta1({"kind": "DeviceModel", **last})
        if key.type == DEVICE and not self._objects.is_own(key.node):
            alpha, now_ms = self._objects.takes_alpha(key.node), self._maker.now_ms()
            entry = words.device_entry(obj, alpha=alpha, now_ms=now_ms)
            content = words.membership(self._maker.new_id(), now_ms, removed=entry)
            await self._send_word(key.node, "membership", content)
        await self._send_object(
            key, Operation.DELETE, {"metadata": obj["metadata"]} if self._objects.is_own(key.node) else obj
        )

    async def _send_object(self, key: _Key, operation: Operation, obj: Object) -> None:
        path = resource.build(key.namespace, key.type, key.name, node=key.node)
        version = str(obj["metadata"].get("resourceVersion") or "")
        await self._send(self._maker.make(SOURCE, "resource", operation, path, obj, resource_version=version))

    async def _tell_kubeedge(self, key: _Key, obj: Object, last: Object | None) -> None:
        """Send what an edge of KubeEdge knows besides objects."""
        alpha, now_ms = self._objects.takes_alpha(key.node), self._maker.now_ms()
        if last is None:
            entry = words.device_entry(obj, alpha=alpha, now_ms=now_ms)
            content = words.membership(self._maker.new_id(), now_ms, added=entry)
            await self._send_word(key.node, "membership", content)
        elif alpha:
            content = words.twins_update(self._maker.new_id(), now_ms, obj, unpacked(last))
            await self._send_word(key.node, f"device/{key.name}/twin/cloud_updated", content)

    async def _ask_for_reports(self) -> None:
        """Have values reported anew that somebody has written over. KubeEdge's edges cannot be asked."""
        asked, self._asked = self._asked, {}
        for node, devices in asked.items():
            if self._objects.is_own(node):
                path = resource.add_node(node, "devices/report")
                message = self._maker.make(SOURCE, "twin", Operation.QUERY, path, {"devices": list(devices)})
                await self._send(message)

    async def tell_members(self, node: str) -> None:
        """Send all devices of a node, which it has asked for: so it hears of what has changed while it was away."""
        alpha, now_ms = self._objects.takes_alpha(node), self._maker.now_ms()
        own = self._objects.is_own(node)
        entries = [
            words.device_entry(self._objects.form_of_device(one, node), alpha=alpha and not own, now_ms=now_ms)
            for one in self._objects.devices_of(node)
        ]
        content = words.membership_detail(self._maker.new_id(), now_ms, entries)
        await self._send_word(node, "membership/detail", content)

    async def _send_word(self, node: str, path: str, content: Object) -> None:
        await self._send(self._maker.make(SOURCE, "twin", Operation.UPDATE, resource.add_node(node, path), content))

    async def _send(self, message: Message) -> None:
        try:
            await self._bus.send("cloudhub", message)
        except LookupError:
            return  # no hub, no session: the next one begins with a comparison
