"""Walks over objects by their schema: which fields there are, what changed, merging and pruning for server-side apply.

    walker = Walker(schemas, definition)        definition None: a kind without a schema, whose lists are atomic
    walker.fields_of(config)                    the fields that an applied configuration names
    walker.compare(old, new)                    (fields added or changed, fields removed)
    walker.merge(live, config)                  a new object
    walker.prune(obj, last, kept)               a new object without what ``last`` holds and ``kept`` does not

Objects are never changed; results share parts with them.

Errors  InvalidConfig: a configuration that does not fit its schema, or a list with two elements of one key. Nothing else leaves.
State   None.
Source  structured-merge-diff, packages typed and merge (behaviour, order of merged lists, texts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.kube import json
from edgesite.kube.apply_sets import FieldSet, element_text, is_member
from edgesite.kube.patch_strategic import MergeSchema
from edgesite.kube.schema import Field

__all__ = ["InvalidConfig", "Walker"]

_OBJECT_META: Final = Field("struct", "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
#: Structs that an object or a template always has, even where empty.
_ALWAYS_THERE: Final = frozenset({"metadata", "spec", "status", "strategy", "template", "updateStrategy"})
_UNTYPED: Final = Field("map")


class InvalidConfig(ValueError):
    """The message begins with the path of the field."""


class Walker:
    """The walks for one kind."""

    def __init__(self, schemas: MergeSchema, definition: str | None) -> None:
        self._schemas = schemas
        self._root = Field("struct", definition) if definition is not None else Field("map")

    # -- what the schema says

    def _member(self, holder: Field, name: str) -> Field | None:
        """The field ``name`` of a value of type ``holder``; None if a struct does not have it."""
        if holder.type == "struct":
            definition = self._schemas.definition(holder.definition)
            return definition.fields.get(name) or (_UNTYPED if definition.keeps else None)
        if holder is self._root and name == "metadata":
            return _OBJECT_META
        return holder.items or _UNTYPED

    def _required(self, holder: Field, name: str) -> bool:
        """Whether the member is always there: then nobody is noted as who added it."""
        if holder.type != "struct":
            return holder is self._root and name in _ALWAYS_THERE
        return name in _ALWAYS_THERE or name in self._schemas.definition(holder.definition).required

    # -- fields of a configuration

    def fields_of(self, config: Mapping[str, Any]) -> FieldSet:
        """Return the fields that ``config`` sets. Raises InvalidConfig."""
        return self._fields(config, self._root, "")

    def _fields(self, value: Mapping[str, Any], field: Field, path: str) -> FieldSet:
        found: FieldSet = {}
        for name, one in value.items():
            member = self._member(field, name)
            where = f"{path}.{name}"
            if member is None:
                raise InvalidConfig(f"{where}: field not declared in schema")
            node = self._node(one, member, where)
            if node is None:
                continue
            if node and field.type != "struct":
                node = {".": {}, **node}
            found[f"f:{name}"] = node
        return found

    def _node(self, value: Any, field: Field, path: str) -> FieldSet | None:
        """The node of one value; None where nothing of it is a field, as of an empty list."""
        _check_shape(value, field, path)
        if isinstance(value, dict) and _granular(field):
            return self._fields(value, field, path)
        if not isinstance(value, list) or not _associative(field):
            return {}
        found: FieldSet = {}
        for element, item in self._indexed(value, field, path).items():
            inner = self._node(item, field.items or _UNTYPED, path + element_text(element))
            found[element] = {".": {}, **inner} if inner else {}
        return found or None

    def _indexed(self, items: Sequence[Any], field: Field, path: str) -> dict[str, Any]:
        """Elements by path element. Raises InvalidConfig for a missing key and for two of one key."""
        found: dict[str, Any] = {}
        for place, item in enumerate(items):
            element = element_of(item, field)
            if element is None:
                raise InvalidConfig(
                    f"{path}: element {place}: associative list with keys has an element that omits key field "
                    f'"{field.list_map_keys[0] if field.list_map_keys else ""}" (and doesn\'t have default value)'
                )
            if element in found:
                raise InvalidConfig(f"{path}: duplicate entries for key {element_text(element)}")
            found[element] = item
        return found

    # -- comparison

    def compare(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[FieldSet, FieldSet]:
        """Return what ``new`` adds or changes, and the topmost fields that it no longer has."""
        return self._compare_maps(old, new, self._root)

    def _compare_maps(self, old: Mapping[str, Any], new: Mapping[str, Any], field: Field) -> tuple[FieldSet, FieldSet]:
        changed: FieldSet = {}
        removed: FieldSet = {}
        for name, value in new.items():
            before = old.get(name)
            if before is value or (before == value and before is not None):
                continue
            member = self._member(field, name) or _UNTYPED
            element = f"f:{name}"
            if before is None:
                if value is not None:
                    node = self._added(value, member, self._required(field, name))
                    if node is not None:
                        changed[element] = node
                continue
            if value is None:
                removed[element] = {}
                continue
            self._compare_values(before, value, member, element, changed, removed)
        for name, value in old.items():
            if value is not None and name not in new:
                removed[f"f:{name}"] = {}
        return changed, removed

    def _compare_values(
        self, old: Any, new: Any, field: Field, element: str, changed: FieldSet, removed: FieldSet
    ) -> None:
        if isinstance(old, dict) and isinstance(new, dict) and _granular(field):
            inner, gone = self._compare_maps(old, new, field)
        elif isinstance(old, list) and isinstance(new, list) and _associative(field):
            inner, gone = self._compare_lists(old, new, field)
        else:
            changed[element] = {}
            return
        if inner:
            changed[element] = inner
        if gone:
            removed[element] = gone

    def _compare_lists(self, old: Sequence[Any], new: Sequence[Any], field: Field) -> tuple[FieldSet, FieldSet]:
        before, after = _grouped(old, field), _grouped(new, field)
        changed: FieldSet = {}
        removed: FieldSet = {element: {} for element in before if element not in after}
        items = field.items or _UNTYPED
        for element, group in after.items():
            earlier = before.get(element)
            if earlier is None:
                node = self._added(group[0], items, False)
                changed[element] = node if node is not None else {}
            elif earlier != group:
                if len(group) == len(earlier) == 1:
                    self._compare_values(earlier[0], group[0], items, element, changed, removed)
                else:
                    changed[element] = {}
        return changed, removed

    def _added(self, value: Any, field: Field, required: bool) -> FieldSet | None:
        """The node of a value that was not there before; None where nothing of it is a field."""
        if isinstance(value, dict) and value and _granular(field):
            inner: FieldSet = {}
            for name, one in value.items():
                if one is None:
                    continue
                member = self._member(field, name) or _UNTYPED
                node = self._added(one, member, self._required(field, name))
                if node is not None:
                    inner[f"f:{name}"] = node
        elif isinstance(value, list) and value and _associative(field):
            items = field.items or _UNTYPED
            inner = {}
            for element, group in _grouped(value, field).items():
                node = self._added(group[0], items, False)
                inner[element] = node if node is not None else {}
        else:
            return None if required and value == {} else {}
        if required:
            return inner or None
        return {".": {}, **inner} if inner else {}

    # -- merging

    def merge(self, live: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``live`` with all that ``config`` sets. Call `fields_of` first: it checks."""
        return self._merge_maps(live, config, self._root)

    def _merge_maps(self, live: Mapping[str, Any], config: Mapping[str, Any], field: Field) -> dict[str, Any]:
        merged = dict(live)
        for name, value in config.items():
            current = merged.get(name)
            member = self._member(field, name) or _UNTYPED
            merged[name] = value if current is None else self._merge_values(current, value, member)
        return merged

    def _merge_values(self, live: Any, config: Any, field: Field) -> Any:
        if isinstance(live, dict) and isinstance(config, dict) and _granular(field):
            return self._merge_maps(live, config, field)
        if isinstance(live, list) and isinstance(config, list) and _associative(field):
            return self._merge_lists(live, config, field)
        return config

    def _merge_lists(self, live: Sequence[Any], config: Sequence[Any], field: Field) -> list[Any]:
        """The configuration's order rules; other elements stay before the shared one that they stood before."""
        wanted = {element_of(item, field): item for item in config}
        there = [(element_of(item, field), item) for item in live]
        current: dict[str | None, Any] = {}
        for element, item in there:
            current.setdefault(element, item)
        shared = [element for element in wanted if element in current]
        items = field.items or _UNTYPED
        out: list[Any] = []
        at = done = 0  # in ``there`` and ``shared``
        for element, item in wanted.items():
            target = shared[done] if done < len(shared) else None
            while at < len(there) and (target is None or there[at][0] != target):
                if there[at][0] not in wanted:
                    out.append(there[at][1])
                at += 1
            if element != target or target is None:
                out.append(item)
                continue
            out.append(self._merge_values(current[element], item, items))
            done += 1
            at += 1
        out += [item for element, item in there[at:] if element not in wanted]
        return out

    # -- pruning

    def prune(self, obj: Mapping[str, Any], last: FieldSet, kept: FieldSet) -> dict[str, Any]:
        """Return ``obj`` without the fields of ``last`` that are not in ``kept``; a removed field takes all below with it."""
        pruned = self._prune_map(obj, self._root, last, kept, False, False)
        return dict(obj) if pruned is None else pruned

    def _prune_map(
        self, value: Mapping[str, Any], field: Field, last: FieldSet, kept: FieldSet, under: bool, gone: bool
    ) -> dict[str, Any] | None:
        out: dict[str, Any] | None = None
        struct = field.type == "struct"
        for element, node in last.items():
            name = element[2:]
            if element[:2] != "f:" or name not in value:
                continue
            theirs = kept.get(element)
            named = struct and self._member(field, name) is not None
            in_last = named or is_member(node)
            covered = under or in_last
            unwanted = gone or (covered and (theirs is None or not (named or is_member(theirs))))
            if in_last and unwanted:
                out = dict(value) if out is None else out
                del out[name]
                continue
            member = self._member(field, name) or _UNTYPED
            left = self._prune_value(value[name], member, node, theirs or {}, covered, unwanted)
            if left is not None:
                out = dict(value) if out is None else out
                if left or (theirs is not None and is_member(theirs)):
                    out[name] = left
                else:
                    del out[name]
        return out

    def _prune_value(
        self, value: Any, field: Field, last: FieldSet, kept: FieldSet, under: bool, gone: bool
    ) -> Any | None:
        """The value after pruning; None if nothing of it changed."""
        if isinstance(value, dict) and _granular(field):
            return self._prune_map(value, field, last, kept, under, gone)
        if not isinstance(value, list) or not _associative(field):
            return None
        out: list[Any] = []
        changed = False
        items = field.items or _UNTYPED
        for item in value:
            element = element_of(item, field)
            node = last.get(element) if element is not None else None
            if node is None or element is None:
                out.append(item)
                continue
            theirs = kept.get(element)
            in_last = is_member(node)
            covered = under or in_last
            unwanted = gone or (covered and (theirs is None or not is_member(theirs)))
            if in_last and unwanted:
                changed = True
                continue
            left = self._prune_value(item, items, node, theirs or {}, covered, unwanted)
            changed = changed or left is not None
            out.append(item if left is None else left)
        return out if changed else None


def _granular(field: Field) -> bool:
    return field.type in ("struct", "map") and field.map_type != "atomic"


def _associative(field: Field) -> bool:
    return field.type == "array" and field.list_type in ("set", "map")


def element_of(item: Any, field: Field) -> str | None:
    """The path element of one item of an associative list; None if it has none of the keys."""
    if field.list_type == "set":
        return "v:" + json.dumps(item).decode()
    if not isinstance(item, dict):
        return None
    keys: dict[str, Any] = {}
    given = False
    defaults = field.key_defaults
    for name in sorted(field.list_map_keys):
        value = item.get(name)
        if value is not None:
            given = True
            keys[name] = value
        elif name in defaults:
            keys[name] = defaults[name]
    return "k:" + json.dumps(keys).decode() if given else None


def _grouped(items: Sequence[Any], field: Field) -> dict[str, list[Any]]:
    """Items by path element; stored lists may hold several of one key, and items with none."""
    groups: dict[str, list[Any]] = {}
    for place, item in enumerate(items):
        groups.setdefault(element_of(item, field) or f"i:{place}", []).append(item)
    return groups


def _check_shape(value: Any, field: Field, path: str) -> None:
    """Raise InvalidConfig where a map, list or scalar stands in for another."""
    if value is None:
        return
    kind = field.type
    if kind in ("struct", "map") and field is not _UNTYPED:
        if not isinstance(value, dict):
            raise InvalidConfig(f"{path}: expected map, got {_shown(value)}")
    elif kind == "array":
        if not isinstance(value, list):
            raise InvalidConfig(f"{path}: expected list, got {_shown(value)}")
    elif kind in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidConfig(f"{path}: expected numeric (int or float), got {_shown(value)}")
    elif kind == "boolean":
        if not isinstance(value, bool):
            raise InvalidConfig(f"{path}: expected boolean, got {_shown(value)}")
    elif kind in ("string", "bytes", "time", "microtime"):
        if not isinstance(value, str):
            raise InvalidConfig(f"{path}: expected string, got {_shown(value)}")
    elif kind in ("quantity", "int-or-string") and isinstance(value, dict | list | bool):
        raise InvalidConfig(f"{path}: expected scalar, got {_shown(value)}")


def _shown(value: Any) -> str:
    return json.dumps(value).decode()[:100]
