"""What edges need, sent as it changes: pods, the ConfigMaps and Secrets that these refer to, volumes and claims that they have
asked for, their Node to those that want it, and the end of a node.

What a pod refers to is sent before the pod. Changes that wait are kept by object, the newest wins.

Source  KubeEdge v1.12.7, cloud/pkg/edgecontroller/controller/downstream.go (v1.23: nodes are sent).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from edgesite.cloud.cloudhub.identities import is_barred
from edgesite.cloud.edgecontroller.objects import EdgeObject, EdgeObjects, typed, wants_node
from edgesite.kube.resources import NODES, PODS
from edgesite.wire import resource
from edgesite.wire.message import Message, MessageMaker, Operation

if TYPE_CHECKING:
    from edgesite.context import Bus
    from edgesite.kube.resources import Resource

__all__ = ["Downstream", "object_message", "removal_message"]

Object = dict[str, Any]
SOURCE = "edgecontroller"
GROUP = "resource"


def object_message(maker: MessageMaker, node: str, operation: str, one: EdgeObject, word: str = "") -> Message:
    """Return the message that brings an object to a node. ``word`` is the namespace word if it is not the namespace."""
    return maker.make(
        SOURCE,
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
    return maker.make(SOURCE, GROUP, Operation.DELETE, path, {"metadata": metadata})


@dataclass(slots=True)
class _Change:
    operation: str
    object: EdgeObject
    nodes: dict[str, None]  #: in order: runs with the same input are the same


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
    ) -> None:
        self._objects = objects
        self._holders = holders
        self._on_its_way = on_its_way
        self._bus = bus
        self._maker = maker
        self._waiting: dict[str, _Change] = {}  # by uid, in order
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
                    await self._filled.wait()
                await self._send_next()

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

    def add(self, operation: str, one: EdgeObject, nodes: Iterable[str]) -> None:
        """Queue a change in place of an older one of the same object."""
        targets = dict.fromkeys(nodes)
        older = self._waiting.get(one.uid)
        if not one.uid or not (targets or older):
            return
        if older is None:
            self._waiting[one.uid] = _Change(operation, one, targets)
        else:
            keeps = older.operation == Operation.INSERT and operation == Operation.UPDATE
            older.operation = older.operation if keeps else operation
            older.object = one
            older.nodes |= targets
        self._filled.set()

    # -- handlers of the informers -------------------------------------------------------------------------------

    def _pod_added(self, pod: Object) -> None:
        ending = bool(pod["metadata"].get("deletionTimestamp"))
        self._pod(Operation.UPDATE if ending else Operation.INSERT, pod)

    def _pod_updated(self, old: Object, pod: Object) -> None:
        bound_now = not (old.get("spec") or {}).get("nodeName")
        self._pod(Operation.INSERT if bound_now else Operation.UPDATE, pod)

    def _pod_deleted(self, pod: Object) -> None:
        self._pod(Operation.DELETE, pod)

    def _pod(self, operation: str, pod: Object) -> None:
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            return
        if operation != Operation.DELETE:
            for needed in self._objects.needed_by(pod):
                self.add(Operation.UPDATE, needed, (node,))
        self.add(operation, EdgeObject("pod", typed(pod, PODS)), (node,))

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


class _ConfigHandler:
    def __init__(self, downstream: Downstream, type_: str, kind: Resource) -> None:
        self._downstream = downstream
        self._type = type_
        self._kind = kind

    def changed(self, obj: Object) -> None:
        self._downstream.config_changed(Operation.UPDATE, self._type, self._kind, obj)

    def updated(self, old: Object, obj: Object) -> None:
        self.changed(obj)

    def deleted(self, obj: Object) -> None:
        self._downstream.config_changed(Operation.DELETE, self._type, self._kind, obj)
