"""Sets of fields, in the form that ``managedFields`` stores them (fieldsV1), and the algebra on them.

A set is a tree of dicts by path element:

    {"f:spec": {"f:replicas": {}, "f:containers": {'k:{"name":"web"}': {".": {}, "f:image": {}}}}}

``f:`` is a member of an object, ``k:`` an element of a list by its keys, ``v:`` one of a list of scalars by value, ``i:`` by place.
A node without children belongs to the set; one with children does where it holds ".". The root never does: ``{}`` as a whole is the
empty set. Operations never change what they are given; results share parts with it.

Errors  InvalidFieldSet from `check` alone.
State   None.
Source  meta/v1 FieldsV1 and structured-merge-diff, fieldpath (format, order and text of path elements).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from edgesite.kube import json

__all__ = [
    "FieldSet",
    "InvalidFieldSet",
    "check",
    "difference",
    "element_text",
    "intersection",
    "is_member",
    "paths",
    "subtract",
    "union",
]

FieldSet: TypeAlias = dict[str, Any]
MAX_DEPTH: Final = 250  #: of a set that a client sends; as deep as a patch may be.
_SELF: Final = "."


class InvalidFieldSet(ValueError):
    """What a client sent as fieldsV1 is none."""


def is_member(node: FieldSet) -> bool:
    """Whether a node below the root belongs to its set."""
    return not node or _SELF in node


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in either set."""
    if not one or not other:
        return one or other
    out = dict(one)
    for element, node in other.items():
        mine = out.get(element)
        out[element] = node if mine is None else _union_nodes(mine, node)
    return out


def _union_nodes(one: FieldSet, other: FieldSet) -> FieldSet:
    if not one:
        return other if is_member(other) else {_SELF: {}, **other}
    if not other:
        return one if is_member(one) else {_SELF: {}, **one}
    return union(one, other)


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in ``one`` and not, itself, in ``other``."""
    return _without(one, other, whole=False)


def subtract(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in ``one`` and neither in ``other`` nor below something that is."""
    return _without(one, other, whole=True)


def _without(one: FieldSet, other: FieldSet, *, whole: bool) -> FieldSet:
    if not one or not other or not any(element in other for element in one):
        return one
    out: FieldSet = {}
    for element, node in one.items():
        theirs = other.get(element)
        if theirs is None or element == _SELF:
            out[element] = node
        elif (left := _node_without(node, theirs, whole)) is not None:
            out[element] = left
    return out


def _node_without(node: FieldSet, theirs: FieldSet, whole: bool) -> FieldSet | None:
    gone = is_member(theirs)
    if gone and whole:
        return None
    if not node:
        return None if gone else node
    left = _without(node, theirs, whole=whole)
    if gone and _SELF in left:
        left = {element: child for element, child in left.items() if element != _SELF}
    if left.keys() == {_SELF}:
        return {}
    return left or None


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """What is in both sets."""
    out: FieldSet = {}
    for element, node in one.items():
        theirs = other.get(element)
        if theirs is None or element == _SELF:
            continue
        both = intersection(node, theirs)
        if is_member(node) and is_member(theirs):
            out[element] = {_SELF: {}, **both} if both else {}
        elif both:
            out[element] = both
    return out


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """The members as text, in order: ``.spec.containers[name="web"].image``."""
    for element in sorted(fields):
        if element == _SELF:
            continue
        path = prefix + element_text(element)
        if is_member(fields[element]):
            yield path
        yield from paths(fields[element], path)


def element_text(element: str) -> str:
    """One path element as users see it: ``.spec``, ``[name="web"]``."""
    kind, value = element[:2], element[2:]
    if kind == "f:":
        return f".{value}"
    if kind == "k:":
        keys = json.loads(value)
        return "[" + ",".join(f"{name}={json.dumps(keys[name]).decode()}" for name in sorted(keys)) + "]"
    return f"[={value}]" if kind == "v:" else f"[{value}]"


def check(fields: Any) -> FieldSet:
    """Return what a client sent as a set, its keys in canonical form. Raises InvalidFieldSet."""
    return _checked(fields, 0)


def _checked(fields: Any, depth: int) -> FieldSet:
    if not isinstance(fields, dict) or depth > MAX_DEPTH:
        raise InvalidFieldSet("a set of fields is an object of objects")
    out: FieldSet = {}
    for element, node in fields.items():
        if element == _SELF:
            if depth and node == {}:
                out[_SELF] = {}
            continue
        out[_canonical(element)] = _checked(node, depth + 1)
    return {} if out.keys() == {_SELF} else out


def _canonical(element: str) -> str:
    kind, value = element[:2], element[2:]
    if kind == "f:":
        return element
    try:
        if kind == "i:":
            return f"i:{int(value)}"
        content = json.loads(value)
    except ValueError:
        raise InvalidFieldSet(f"{element!r} is no path element") from None
    if kind == "v:" and not isinstance(content, dict | list):
        return "v:" + json.dumps(content).decode()
    if kind == "k:" and isinstance(content, dict) and content:
        return "k:" + json.dumps({name: content[name] for name in sorted(content)}).decode()
    raise InvalidFieldSet(f"{element!r} is no path element")
