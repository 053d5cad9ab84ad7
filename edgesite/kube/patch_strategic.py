"""Strategic merge patch: objects merge by what the schema says of each field.

    strategic_merge(schemas, definition, obj, patch)     a new object

Lists merge by their merge key where the schema names one, else they are replaced. Directives in the patch:

    $patch: replace | delete | merge            of a map, or of one element of a list
    $retainKeys: [names]                        drop every other member of the map
    $deleteFromPrimitiveList/<field>: [values]  drop these from a merged list of scalars
    $setElementOrder/<field>: [keys or values]  the order of what the list holds afterwards

What is given is never changed; the result may share parts with it. Kinds without a schema have no strategic merge (415).

Errors  ApiError: 400 for a patch of a bad shape, 415 without schema. Nothing else leaves.
State   None.
Source  apimachinery pkg/util/strategicpatch, documentation and tests (behaviour, texts); kubernetes.io, "Update API Objects in Place Using kubectl patch".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from edgesite.kube.errors import bad_request, unsupported_media_type
from edgesite.kube.patch import check_depth
from edgesite.kube.schema import Definition, Field

__all__ = ["MergeSchema", "strategic_merge"]

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_LIST: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"
_ACCEPTED: Final = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"


class MergeSchema(Protocol):
    """What merging needs of `edgesite.kube.schema.Schemas`."""

    def definition(self, name: str) -> Definition:
        """Raises KeyError for an unknown name."""
        ...


def strategic_merge(schemas: MergeSchema, definition: str | None, obj: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """Return ``obj`` with ``patch`` merged as its kind's definition says. Raises ApiError."""
    if definition is None:
        raise unsupported_media_type(_ACCEPTED)
    if not isinstance(patch, dict):
        raise bad_request("invalid JSON document")
    check_depth(patch)
    return _Merger(schemas).merge_map(obj, patch, Field("struct", definition))


class _Merger:
    """Walks object, patch and schema together. A field of None is unknown to the schema: maps merge, lists are replaced."""

    def __init__(self, schemas: MergeSchema) -> None:
        self._schemas = schemas

    def _member(self, holder: Field | None, name: str) -> Field | None:
        if holder is None:
            return None
        if holder.type == "struct":
            return self._schemas.definition(holder.definition).fields.get(name)
        return holder.items

    def merge_map(self, original: Mapping[str, Any], patch: Mapping[str, Any], field: Field | None) -> dict[str, Any]:
        if _PATCH in patch:
            return _directed(patch)
        rest = dict(patch)
        merged = _retained(original, rest)
        for name in [one for one in rest if one.startswith(_ORDER)]:
            self._order(merged, rest, name, field)
        for name, value in rest.items():
            if name.startswith(_DELETE_LIST):
                self._delete_scalars(merged, name[len(_DELETE_LIST) :], value)
            elif value is None:
                merged.pop(name, None)
            else:
                self._member_into(merged, name, value, self._member(field, name))
        return merged

    def _member_into(self, merged: dict[str, Any], name: str, value: Any, field: Field | None) -> None:
        current = merged.get(name)
        if isinstance(value, dict) and isinstance(current, dict):
            merged[name] = _plain(value)[0] if _replaces(field) else self.merge_map(current, value, field)
        elif isinstance(value, list) and isinstance(current, list):
            merged[name] = self.merge_list(current, value, field)
        else:
            plain, keep = _plain(value)
            if keep:
                merged[name] = plain
            elif current is not None:
                merged.pop(name, None)

    def _delete_scalars(self, merged: dict[str, Any], name: str, values: Any) -> None:
        if not name or not isinstance(values, list):
            raise bad_request("invalid patch format of primitive list")
        current = merged.get(name)
        if not isinstance(current, list):
            return
        if any(isinstance(one, dict | list) for one in (*current, *values)):
            raise bad_request("invalid patch format of primitive list")
        merged[name] = [one for one in current if one not in values]

    # -- lists

    def merge_list(self, original: Sequence[Any], patch: Sequence[Any], field: Field | None) -> list[Any]:
        if field is None or "merge" not in field.patch_strategies:
            replaced: list[Any] = _plain(list(patch))[0]
            return replaced
        if not original and not patch:
            return []
        merged = self._merged_list(original, patch, field)
        key = field.merge_key
        return _ordered(merged, [one for one in patch if not _is_directive(one)], original, key)

    def _merged_list(self, original: Sequence[Any], patch: Sequence[Any], field: Field) -> list[Any]:
        """The elements after the merge, in no order to rely on."""
        if not _of_maps(original, patch):
            merged: list[Any] = []
            for one in (*original, *patch):
                if one not in merged:
                    merged.append(one)
            return merged
        key = field.merge_key
        if not key:
            raise bad_request(f"cannot merge lists without merge key for {field.definition or 'the list'}")
        kept = _without_deleted(original, patch, key)
        at = {_hashable(one[key]): place for place, one in enumerate(kept) if key in one}
        for element in patch:
            if _PATCH in element:
                continue
            value = _merge_value(element, key)
            place = at.get(value)
            if place is None:
                at[value] = len(kept)
                kept.append(_plain(element)[0])
            else:
                kept[place] = self.merge_map(kept[place], element, field.items)
        return kept

    def _order(self, merged: dict[str, Any], rest: dict[str, Any], directive: str, field: Field | None) -> None:
        """Carry out one $setElementOrder, with the merge of the list that it is about; takes both out of ``rest``."""
        order = rest.pop(directive)
        name = directive[len(_ORDER) :]
        patch = rest.get(name)
        original = merged.get(name)
        if not name or not isinstance(order, list) or not isinstance(patch, list | None):
            raise bad_request("invalid patch format of setElementOrder list")
        if not isinstance(original, list):
            original = None
        member = self._member(field, name)
        key = member.merge_key if member is not None else ""
        if patch is not None:
            _check_order(patch, order, key)
            rest.pop(name)
            merged_list = _plain(list(patch))[0] if original is None else self.merge_list(original, patch, member)
        elif original is not None:
            merged_list = original
        else:
            return
        merged[name] = _ordered(merged_list, order, original or [], key)


def _replaces(field: Field | None) -> bool:
    return field is not None and "replace" in field.patch_strategies


def _directed(patch: Mapping[str, Any]) -> dict[str, Any]:
    """What a map becomes whose patch has a $patch directive."""
    directive = patch[_PATCH]
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != _PATCH}
    if directive == "delete":
        return {}
    raise bad_request(f"unknown patch type: {_shown(directive)} in map: {_shown(patch)}")


def _retained(original: Mapping[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    """Return the members of ``original`` that $retainKeys leaves; takes the directive out of ``rest``."""
    if _RETAIN not in rest:
        return dict(original)
    keep = rest.pop(_RETAIN)
    if not isinstance(keep, list) or any(isinstance(one, dict | list) for one in keep):
        raise bad_request("invalid patch format of retainKeys")
    for name, value in rest.items():
        if value is not None and not name.startswith((_DELETE_LIST, _ORDER)) and name not in keep:
            raise bad_request("invalid patch format of retainKeys")
    return {name: value for name, value in original.items() if name in keep}


def _plain(value: Any) -> tuple[Any, bool]:
    """Return a patch's value as an object's: without directives and nulls; False if it says that it shall not be there."""
    if isinstance(value, dict):
        if value.get(_PATCH) == "delete":
            return None, False
        out = {}
        for name, one in value.items():
            if one is None or name in (_PATCH, _RETAIN) or name.startswith((_DELETE_LIST, _ORDER)):
                continue
            plain, keep = _plain(one)
            if keep:
                out[name] = plain
        return out, True
    if isinstance(value, list):
        found = (_plain(one) for one in value if not _only_directive(one))
        return [one for one, keep in found if keep], True
    return value, True


def _only_directive(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_PATCH}


def _is_directive(element: Any) -> bool:
    return isinstance(element, dict) and _PATCH in element


def _of_maps(*lists: Sequence[Any]) -> bool:
    """Whether the elements are maps (else: scalars). Raises ApiError for a mixture or for lists of lists."""
    kinds = {
        dict if isinstance(one, dict) else list if isinstance(one, list) else str for part in lists for one in part
    }
    if list in kinds:
        raise bad_request("lists of lists are not supported")
    if len(kinds) > 1:
        raise bad_request("list element types are not identical")
    return dict in kinds


def _without_deleted(original: Sequence[Any], patch: Sequence[Any], key: str) -> list[Any]:
    """The elements that are left after the $patch directives among those of ``patch``."""
    kept = list(original)
    for element in patch:
        if _PATCH not in element:
            continue
        directive = element[_PATCH]
        if directive == "replace":
            return []
        if directive == "merge":
            raise bad_request("merging lists cannot yet be specified in the patch")
        if directive != "delete":
            raise bad_request(f"unknown patch type: {_shown(directive)} in map: {_shown(element)}")
        gone = _merge_value(element, key)
        kept = [one for one in kept if key not in one or _hashable(one[key]) != gone]
    return kept


def _merge_value(element: Any, key: str) -> Any:
    if not isinstance(element, dict) or element.get(key) is None:
        raise bad_request(f"map: {_shown(element)} does not contain declared merge key: {key}")
    return _hashable(element[key])


def _hashable(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise bad_request(f"a merge key must be a scalar, not {_shown(value)}")
    return value


def _check_order(patch: Iterable[Any], order: Sequence[Any], key: str) -> None:
    """Raise ApiError unless what the patch holds stands in ``order``, in that order."""
    wanted = [_identity(one, key) for one in order]
    at = 0
    for one in patch:
        if _is_directive(one):
            continue
        try:
            at = wanted.index(_identity(one, key), at) + 1
        except ValueError:
            raise bad_request(
                f"The order in patch list:\n{_shown(list(patch))}\n doesn't match $setElementOrder list:\n{_shown(order)}\n"
            ) from None


def _identity(element: Any, key: str) -> Any:
    """What an element is told apart by: its merge key, or itself."""
    if key:
        return _merge_value(element, key)
    return _hashable(element)


def _ordered(merged: Sequence[Any], order: Sequence[Any], original: Sequence[Any], key: str) -> list[Any]:
    """Put ``merged`` into order: what ``order`` names as it says, other elements before the first that followed them in ``original``."""
    if key and not all(isinstance(one, dict) for one in (*merged, *order, *original)):
        raise bad_request("invalid patch format of setElementOrder list")
    place = {_identity(one, key): number for number, one in reversed(list(enumerate(order)))}
    was = {
        _identity(one, key): number
        for number, one in reversed(list(enumerate(original)))
        if not key or one.get(key) is not None
    }
    named: list[tuple[int, Any]] = []
    others: list[Any] = []
    for one in merged:
        known = (not key or one.get(key) is not None) and _identity(one, key) in place
        if known:
            named.append((place[_identity(one, key)], one))
        else:
            others.append(one)
    named.sort(key=lambda pair: pair[0])
    right = [one for _, one in named]

    def position(one: Any) -> int | None:
        return was.get(_identity(one, key)) if not key or one.get(key) is not None else None

    others.sort(key=lambda one: len(original) if (at := position(one)) is None else at)
    out: list[Any] = []
    left = iter(others)
    waiting = next(left, None)
    for one in right:
        after = position(one)
        while waiting is not None and after is not None:
            before = position(waiting)
            if before is None or before > after:
                break
            out.append(waiting)
            waiting = next(left, None)
        out.append(one)
    while waiting is not None:
        out.append(waiting)
        waiting = next(left, None)
    return out


def _shown(value: Any) -> str:
    """A value as the API server prints it in these messages."""
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{name}:{_shown(value[name])}" for name in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_shown(one) for one in value) + "]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)
