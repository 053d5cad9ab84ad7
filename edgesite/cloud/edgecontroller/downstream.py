"""What edges need, sent as it changes: pods, the ConfigMaps and Secrets that these refer to, volumes and claims that they have
asked for, their Node to those that want it, and the end of a node.

What a pod refers to is sent before the pod. Changes that wait are kept by object, the newest wins. The status of a pod, which most
often comes from the edge itself, is not urgent there: it waits a moment for the next one.

Units   Seconds.
Source  KubeEdge v1.12.7, cloud/pkg/edgecontroller/controller/downstream.go (v1.23: nodes are sent).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.cloud.cloudhub.identities import is_barred
from edgesite.cloud.edgecontroller.objects import DEVICE_TYPES, EdgeObject, EdgeObjects, typed, wants_node
from edgesite.kube.resources import NODES, PODS
from edgesite.wire import resource
from edgesite.wire.delivery import version_number
from edgesite.wire.message import Message, MessageMaker, Operation

if TYPE_CHECKING:
    from edgesite.context import Bus
    from edgesite.kube.resources import Resource

__all__ = ["Downstream", "object_message", "removal_message"]

Object = dict[str, Any]
SOURCE = "edgecontroller"
GROUP = "resource"
STATUS_S: Final = 2.0  #: how long a change of nothing but a pod's status waits for another


def object_message(maker: MessageMaker, node: str, operation: str, one: EdgeObject, word: str = "") -> Message:
    """Return the message that brings an object to a node. ``word`` is the namespace word if it is not the namespace."""
    return maker.make(
        _source(one.type),
        GROUP,
        operation,
        resource.build(word or one.namespace, one.type, one.name, node=node),
        one.obj,
        resource_version=str(one.obj["metadata"].get("resourceVersion") or ""),
    )


def removal_message(
    maker: MessageMaker, node: str, type_: str, namespace: str, name: str, uid: str, word: str = ""
) -> Message:
    """Return the message that ends an object of which no more is known."""
    metadata = {"namespace": namespace, "name": name, "uid": uid}
    path = resource.build(word or namespace, type_, name, node=node)
    return maker.make(_source(type_), GROUP, Operation.DELETE, path, {"metadata": metadata})


def _source(type_: str) -> str:
    """An edge of KubeEdge gives devices to its DeviceTwin only if they come from there."""
    if type_ in DEVICE_TYPES:
        return "devicecontroller"
    return "policycontroller" if type_ == "serviceaccountaccess" else SOURCE


@dataclass(slots=True)
class _Change:
    operation: str
    object: EdgeObject
    nodes: dict[str, None]  #: in order: runs with the same input are the same
    due: float = 0.0  #: on the loop's clock, while it is held back


class Downstream:
    """Turns changes of the caches into messages. ``run`` sends until cancelled. ``holders(uid)``: nodes that may hold an object;
    ``on_its_way(node, uid)`` says that one more soon may. Of pods it is known without."""

    def __init__(
        self,
        objects: EdgeObjects,
        bus: Bus,
        maker: MessageMaker,
        holders: Callable[[str], Iterable[str]],
        on_its_way: Callable[[str, str], None],
        went_back: Callable[[], None] = lambda: None,
    ) -> None:
        """``went_back`` is called when the API tells of an older version than before."""
        self._objects = objects
        self._went_back = went_back
        self._holders = holders
        self._on_its_way = on_its_way
        self._bus = bus
        self._maker = maker
        self._waiting: dict[str, _Change] = {}  # by uid, in order
        self._held: dict[str, _Change] = {}  # by uid, the first that is due first
        self._ended_nodes: dict[str, str | None] = {}  # node -> why, if it was not deleted
        self._filled = anyio.Event()

    async def run(self) -> None:
        with ExitStack() as handlers:
            pods = self._objects.pods
            handlers.enter_context(pods.add_handler(self._pod_added, self._pod_updated, self._pod_deleted))
            nodes = self._objects.nodes
            handlers.enter_context(nodes.add_handler(self._node_changed, self._node_updated, self._node_deleted))
            for type_, (informer, kind) in {**self._objects.configs, **self._objects.followed}.items():
                watch = _ConfigHandler(self, type_, kind)
                handlers.enter_context(informer.add_handler(watch.changed, watch.updated, watch.deleted))
            while True:
                if not self._waiting and not self._ended_nodes:
                    self._filled = anyio.Event()
                    with anyio.CancelScope(deadline=next((one.due for one in self._held.values()), math.inf)):
                        await self._filled.wait()
                self._take_due()
                if self._waiting or self._ended_nodes:
                    await self._send_next()

    def _take_due(self) -> None:
        if not self._held:
            return
        now = anyio.current_time()
        while self._held:
            uid, change = next(iter(self._held.items()))
            if change.due > now:
                return
            del self._held[uid]
            self._waiting[uid] = change

    async def _send_next(self) -> None:
        if self._ended_nodes:
            node = next(iter(self._ended_nodes))
            why = self._ended_nodes.pop(node)
            path = resource.add_node(node, resource.build("namespace", "node", node))
            await self._send(self._maker.make(SOURCE, GROUP, Operation.DELETE, path, why))
            return
        change = self._waiting.pop(next(iter(self._waiting)))
        for node in change.nodes:
            word = self._objects.word(node, change.object.type, change.object.namespace)
            if change.operation != Operation.DELETE and change.object.type != "pod":
                self._on_its_way(node, change.object.uid)
            await self._send(object_message(self._maker, node, change.operation, change.object, word))

    async def _send(self, message: Message) -> None:
        try:
            await self._bus.send("cloudhub", message)
        except LookupError:
            return  # no hub, no session: the next one begins with a comparison

    def add(self, operation: str, one: EdgeObject, nodes: Iterable[str], *, hold_s: float = 0.0) -> None:
        """Queue a change in place of an older one of the same object. With ``hold_s`` it may wait so long for the next one."""
        targets = dict.fromkeys(nodes)
        older = self._waiting.get(one.uid) or self._held.get(one.uid)
        if not one.uid or not (targets or older):
            return
        if older is None and hold_s:
            self._held[one.uid] = _Change(operation, one, targets, anyio.current_time() + hold_s)
        elif older is None:
            self._waiting[one.uid] = _Change(operation, one, targets)
        else:
            if not hold_s and self._held.pop(one.uid, None) is not None:
                self._waiting[one.uid] = older
            keeps = older.operation == Operation.INSERT and operation == Operation.UPDATE
            older.operation = older.operation if keeps else operation
            older.object = one
            older.nodes |= targets
        self._filled.set()

    # -- handlers of the informers -------------------------------------------------------------------------------

    def _pod_added(self, pod: Object) -> None:
        ending = bool(pod["metadata"].get("deletionTimestamp"))
        self._pod(Operation.UPDATE if ending else Operation.INSERT, pod)

    def look(self, old: Object, new: Object) -> None:
        """Versions grow, except over a restore from a backup."""
        before, now = (version_number(one["metadata"].get("resourceVersion")) for one in (old, new))
        if 0 < now < before:
            self._went_back()

    def _pod_updated(self, old: Object, pod: Object) -> None:
        self.look(old, pod)
        bound_now = not (old.get("spec") or {}).get("nodeName")
        hold_s = STATUS_S if _is_status_alone(old, pod) else 0.0
        self._pod(Operation.INSERT if bound_now else Operation.UPDATE, pod, hold_s)

    def _pod_deleted(self, pod: Object) -> None:
        self._pod(Operation.DELETE, pod)

    def _pod(self, operation: str, pod: Object, hold_s: float = 0.0) -> None:
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            return
        if operation != Operation.DELETE and not hold_s:
            for needed in self._objects.needed_by(pod):
                self.add(Operation.UPDATE, needed, (node,))
        self.add(operation, EdgeObject("pod", typed(pod, PODS)), (node,), hold_s=hold_s)

    def _node_changed(self, node: Object) -> None:
        if is_barred(node):
            self._ended_nodes[node["metadata"]["name"]] = "the node is barred"
            self._filled.set()
        elif wants_node(node):
            self.add(Operation.UPDATE, EdgeObject("node", typed(node, NODES)), (node["metadata"]["name"],))

    def _node_updated(self, old: Object, node: Object) -> None:
        self._node_changed(node)

    def _node_deleted(self, node: Object) -> None:
        self._ended_nodes[node["metadata"]["name"]] = None
        self._filled.set()

    def config_changed(self, operation: str, type_: str, kind: Resource, obj: Object) -> None:
        """A ConfigMap, a Secret or a volume changed."""
        one = EdgeObject(type_, typed(obj, kind))
        if self._objects.is_followed(type_):
            nodes = dict.fromkeys(self._holders(one.uid))
        else:
            nodes = self._objects.nodes_needing(type_, one.namespace, one.name)
            if operation == Operation.DELETE:  # also nodes whose pods no longer refer to it: a later pod might
                nodes |= dict.fromkeys(self._holders(one.uid))
        self.add(operation, one, nodes)


def _is_status_alone(old: Object, pod: Object) -> bool:
    """Whether nothing changed that an edge acts upon. Conditions that readiness gates name come from elsewhere."""
    spec, before, after = pod.get("spec") or {}, old["metadata"], pod["metadata"]
    return (
        spec == old.get("spec")
        and not spec.get("readinessGates")
        and {**before, "resourceVersion": ""} == {**after, "resourceVersion": ""}
    )


class _ConfigHandler:
    def __init__(self, downstream: Downstream, type_: str, kind: Resource) -> None:
        self._downstream = downstream
        self._type = type_
        self._kind = kind

    def changed(self, obj: Object) -> None:
        self._downstream.config_changed(Operation.UPDATE, self._type, self._kind, obj)

    def updated(self, old: Object, obj: Object) -> None:
        self._downstream.look(old, obj)
        self.changed(obj)

    def deleted(self, obj: Object) -> None:
        self._downstream.config_changed(Operation.DELETE, self._type, self._kind, obj)
