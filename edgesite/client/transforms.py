"""What informers keep of objects: without what no controller reads, and what is equal in thousands of them kept once.

Errors  None.
State   `NodeTransform` remembers parts of nodes, a bounded number. **Cached objects share them: never change one.**
"""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from typing import Any, Final

from edgesite.kube.resources import LEASES, NODES

__all__ = ["NodeTransform", "transform_of", "without_managed_fields"]

Object = dict[str, Any]
_PARTS: Final = 1024
_LONG: Final = 256
_EQUAL_PARTS: Final = ("allocatable", "capacity", "daemonEndpoints", "nodeInfo")
_EQUAL_TEXTS: Final = ("message", "reason", "status", "type")


def without_managed_fields(obj: Object) -> Object:
    """The default transform: managedFields are often a third of an object, and no controller reads them."""
    metadata = obj["metadata"]
    metadata.pop("managedFields", None)
    for members, name in ((obj, "apiVersion"), (obj, "kind"), (metadata, "namespace")):
        value = members.get(name)
        if type(value) is str:
            members[name] = intern(value)
    return obj


def transform_of(resource: object) -> Callable[[Object], Object]:
    """Return the transform for the cache of a resource."""
    if resource == NODES:
        return NodeTransform()
    return _renewal if resource == LEASES else without_managed_fields


def _renewal(lease: Object) -> Object:
    """Leases are as many as nodes and change all the time: who holds one of a node is its name, once more."""
    without_managed_fields(lease)
    metadata, spec = lease["metadata"], lease.get("spec")
    metadata.pop("creationTimestamp", None)
    if type(spec) is dict and spec.get("holderIdentity") == metadata.get("name"):
        spec["holderIdentity"] = metadata["name"]
    return lease


class NodeTransform:
    """Nodes of a fleet are much alike: what they offer, what they are made of, what their conditions say."""

    def __init__(self) -> None:
        self._parts: dict[tuple[tuple[str, str], ...], Object] = {}

    def __call__(self, node: Object) -> Object:
        without_managed_fields(node)
        labels = node["metadata"].get("labels")
        if labels:
            _intern_texts(labels, labels)
        status = node.get("status") or {}
        for name in _EQUAL_PARTS:
            part = status.get(name)
            if type(part) is dict:
                status[name] = self._known(part)
        for one in status.get("conditions") or ():
            if type(one) is dict:
                _intern_texts(one, _EQUAL_TEXTS)
        return node

    def _known(self, part: Object) -> Object:
        """Return an equal part of another node if there is one; of a part that is nobody else's, the texts at least."""
        key = tuple(part.items())
        try:
            known = self._parts.get(key)
        except TypeError:  # there are lists or objects in it
            return part
        if known is None:
            _intern_texts(part, part)
            if len(self._parts) >= _PARTS:
                del self._parts[next(iter(self._parts))]
            known = self._parts[tuple(part.items())] = part
        return known


def _intern_texts(members: Object, names: Any) -> None:
    for name in tuple(names):
        value = members.get(name)
        if type(value) is str and len(value) < _LONG:
            members[name] = intern(value)
