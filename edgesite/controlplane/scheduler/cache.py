"""Nodes and what runs on them, as the scheduler counts it: confirmed by the API, or assumed while a binding is under way.

Units   CPU in milli, everything else in its base unit.
State   In memory; follows the informers. An assumed pod stays until the API shows it bound, or its binding failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgesite.client import ObjectKey, key_of
from edgesite.controlplane.pods import amounts, controller_of, is_terminal, requests
from edgesite.kube.quantity import InvalidQuantity
from edgesite.kube.selectors import InvalidSelector, LabelSelector, from_object

__all__ = ["Cache", "HostPort", "NodeState", "PodInfo", "PodTerm"]

Object = Mapping[str, Any]
#: CPU and memory that a container counts for that requests none: else all such pods would pile up on one node.
UNSPOKEN = (100, 200 << 20)
UNSPECIFIED = frozenset({"", "0.0.0.0", "::"})


class HostPort(NamedTuple):
    address: str
    protocol: str
    port: int

    def clashes(self, other: HostPort) -> bool:
        """Two ports clash on the same address, or if either is on all addresses."""
        if (self.protocol, self.port) != (other.protocol, other.port):
            return False
        return self.address == other.address or self.address in UNSPECIFIED or other.address in UNSPECIFIED


@dataclass(frozen=True, slots=True)
class PodTerm:
    """A term of pod affinity or anti-affinity, ready to match."""

    selector: LabelSelector
    topology_key: str
    namespaces: frozenset[str]  #: together with those that ``namespace_selector`` matches
    namespace_selector: LabelSelector | None
    weight: int = 0

    def matches(self, pod: PodInfo, namespace_labels: Mapping[str, Mapping[str, str]]) -> bool:
        if pod.key.namespace not in self.namespaces and (
            self.namespace_selector is None
            or not self.namespace_selector.matches(namespace_labels.get(pod.key.namespace) or {})
        ):
            return False
        return self.selector.matches(pod.labels)


@dataclass(frozen=True, slots=True, eq=False)
class PodInfo:
    """A pod with what scheduling needs of it, read once."""

    key: ObjectKey
    uid: str
    obj: Object
    labels: Mapping[str, str]
    priority: int
    requests: Mapping[str, int]
    ports: tuple[HostPort, ...]
    affinity: tuple[PodTerm, ...]
    anti_affinity: tuple[PodTerm, ...]
    preferred: tuple[PodTerm, ...]  #: weights below zero are of anti-affinity
    owner: str  #: uid of its controller
    weight: tuple[int, int]  #: CPU and memory that it counts for when nodes are compared

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.obj["spec"]  # type: ignore[no-any-return]

    @classmethod
    def of(cls, pod: Object) -> PodInfo:
        """Raises InvalidQuantity or InvalidSelector where the API server let something unreadable pass."""
        meta, spec = pod["metadata"], pod["spec"]
        affinity = spec.get("affinity") or {}
        near, far = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
        needed = requests(spec)
        containers = len(spec.get("containers") or ())
        required, wished = (
            "requiredDuringSchedulingIgnoredDuringExecution",
            "preferredDuringSchedulingIgnoredDuringExecution",
        )
        return cls(
            key_of(pod),
            meta.get("uid", ""),
            pod,
            meta.get("labels") or {},
            int(spec.get("priority") or 0),
            needed,
            tuple(_host_ports(spec)),
            tuple(_term(one, meta) for one in near.get(required) or ()),
            tuple(_term(one, meta) for one in far.get(required) or ()),
            (
                *(_term(one["podAffinityTerm"], meta, one["weight"]) for one in near.get(wished) or ()),
                *(_term(one["podAffinityTerm"], meta, -one["weight"]) for one in far.get(wished) or ()),
            ),
            (controller_of(pod) or {}).get("uid", ""),
            (needed.get("cpu") or UNSPOKEN[0] * containers, needed.get("memory") or UNSPOKEN[1] * containers),
        )

    @property
    def has_terms(self) -> bool:
        """Whether it cares what other pods are near."""
        return bool(self.affinity or self.anti_affinity or self.preferred)


def _host_ports(spec: Object) -> list[HostPort]:
    sidecars = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    return [
        HostPort(port.get("hostIP") or "", port.get("protocol") or "TCP", port["hostPort"])
        for container in (*(spec.get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]


def _term(term: Object, meta: Object, weight: int = 0) -> PodTerm:
    selector = dict(term.get("labelSelector") or {})
    labels = meta.get("labels") or {}
    extra = [
        {"key": key, "operator": "In", "values": [labels[key]]}
        for key in term.get("matchLabelKeys") or ()
        if key in labels
    ]
    extra += [
        {"key": key, "operator": "NotIn", "values": [labels[key]]}
        for key in term.get("mismatchLabelKeys") or ()
        if key in labels
    ]
    if extra:
        selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), *extra]
    names = frozenset(term.get("namespaces") or ())
    namespace_selector = term.get("namespaceSelector")
    if not names and namespace_selector is None:
        names = frozenset({meta.get("namespace") or ""})
    return PodTerm(
        from_object(selector if term.get("labelSelector") is not None else None),
        term.get("topologyKey", ""),
        names,
        None if namespace_selector is None else from_object(namespace_selector),
        weight,
    )


@dataclass(slots=True)
class NodeState:
    """A node, what it offers, and what the pods on it take. ``obj`` is None for a node that is only known from its pods."""

    name: str
    obj: Object | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Object, ...] = ()
    unschedulable: bool = False
    allocatable: dict[str, int] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)  #: name to size in bytes
    pods: dict[str, PodInfo] = field(default_factory=dict)  #: by uid
    requested: dict[str, int] = field(default_factory=dict)
    weight: list[int] = field(default_factory=lambda: [0, 0])  #: sums of the pods' weights
    owners: dict[str, int] = field(default_factory=dict)  #: pods of each controller
    choosy: dict[str, PodInfo] = field(default_factory=dict)  #: pods with affinity terms, by uid
    ports: int = 0  #: host ports in use

    def offer(self, node: Object) -> bool:
        """Take a new form of the node; returns whether anything changed that may let a pod in."""
        spec, status = node.get("spec") or {}, node.get("status") or {}
        before = self.labels, self.taints, self.unschedulable, self.allocatable
        first = self.obj is None
        self.obj = node
        self.labels = node["metadata"].get("labels") or {}
        self.taints = tuple(spec.get("taints") or ())
        self.unschedulable = bool(spec.get("unschedulable"))
        try:
            self.allocatable = amounts(status.get("allocatable") or status.get("capacity"))
        except InvalidQuantity:
            self.allocatable = {}
        self.images = {
            name: image.get("sizeBytes") or 0
            for image in status.get("images") or ()
            for name in image.get("names") or ()
        }
        return first or before != (self.labels, self.taints, self.unschedulable, self.allocatable)

    def add(self, pod: PodInfo) -> None:
        self.remove(pod.uid)
        self.pods[pod.uid] = pod
        if pod.has_terms:
            self.choosy[pod.uid] = pod
        self._count(pod, 1)

    def remove(self, uid: str) -> None:
        pod = self.pods.pop(uid, None)
        if pod is not None:
            self.choosy.pop(uid, None)
            self._count(pod, -1)

    def _count(self, pod: PodInfo, sign: int) -> None:
        for name, amount in pod.requests.items():
            self.requested[name] = self.requested.get(name, 0) + sign * amount
        self.weight[0] += sign * pod.weight[0]
        self.weight[1] += sign * pod.weight[1]
        self.ports += sign * len(pod.ports)
        if pod.owner:
            left = self.owners.get(pod.owner, 0) + sign
            if left:
                self.owners[pod.owner] = left
            else:
                self.owners.pop(pod.owner, None)

    def without(self, uids: set[str]) -> NodeState:
        """Return the node as it would be without these pods."""
        state = NodeState(
            self.name, self.obj, self.labels, self.taints, self.unschedulable, self.allocatable, self.images
        )
        for uid, pod in self.pods.items():
            if uid not in uids:
                state.add(pod)
        return state


class Cache:
    """All nodes with their pods, and which pods are nominated to nodes that are being cleared for them."""

    def __init__(self) -> None:
        self._states: dict[str, NodeState] = {}
        self._place: dict[str, str] = {}  # uid of a pod to the node that it counts on
        self._assumed: set[str] = set()
        self._nominated: dict[str, tuple[str, PodInfo]] = {}  # by uid

    @property
    def nodes(self) -> list[NodeState]:
        """The nodes that exist."""
        return [one for one in self._states.values() if one.obj is not None]

    def node(self, name: str) -> NodeState | None:
        state = self._states.get(name)
        return state if state is not None and state.obj is not None else None

    def put_node(self, node: Object) -> bool:
        """Returns whether a pod that fitted nowhere may fit now."""
        return self._state(node["metadata"]["name"]).offer(node)

    def drop_node(self, name: str) -> None:
        state = self._states.get(name)
        if state is not None:
            state.obj = None
            self._prune(state)

    def put_pod(self, pod: Object) -> None:
        """Take a pod as the API has it: on its node, or off it once it has ended."""
        uid, node = pod["metadata"].get("uid", ""), pod["spec"].get("nodeName")
        if not node:
            return
        if is_terminal(pod):
            self.drop_pod(uid)
            return
        try:
            info = PodInfo.of(pod)
        except (InvalidQuantity, InvalidSelector):
            return
        self._move(info, node)
        self._assumed.discard(uid)
        self._nominated.pop(uid, None)

    def drop_pod(self, uid: str) -> None:
        """Forget a pod that is gone, or that ended."""
        self._assumed.discard(uid)
        self._nominated.pop(uid, None)
        if (place := self._place.pop(uid, None)) is not None:
            state = self._states[place]
            state.remove(uid)
            self._prune(state)

    def assume(self, pod: PodInfo, node: str) -> None:
        """Count a pod on a node before the API confirms it."""
        self._move(pod, node)
        self._assumed.add(pod.uid)
        self._nominated.pop(pod.uid, None)

    def forget(self, uid: str) -> None:
        """The binding failed; a pod that the API has shown bound meanwhile stays."""
        if uid in self._assumed:
            self.drop_pod(uid)

    def is_placed(self, uid: str) -> bool:
        return uid in self._place

    def nominate(self, pod: PodInfo, node: str) -> None:
        """Count a pod against others of no higher priority while its victims leave the node."""
        self._nominated[pod.uid] = (node, pod)

    def unnominate(self, uid: str) -> None:
        self._nominated.pop(uid, None)

    def nominated_to(self, node: str, than: PodInfo) -> list[PodInfo]:
        """Pods nominated to ``node`` that come before ``than``."""
        return [
            pod
            for uid, (name, pod) in self._nominated.items()
            if name == node and uid != than.uid and pod.priority >= than.priority
        ]

    def _move(self, pod: PodInfo, node: str) -> None:
        old = self._place.get(pod.uid)
        if old is not None and old != node:
            self._states[old].remove(pod.uid)
            self._prune(self._states[old])
        self._place[pod.uid] = node
        self._state(node).add(pod)

    def _state(self, name: str) -> NodeState:
        if (state := self._states.get(name)) is None:
            state = self._states[name] = NodeState(name)
        return state

    def _prune(self, state: NodeState) -> None:
        if state.obj is None and not state.pods:
            self._states.pop(state.name, None)
