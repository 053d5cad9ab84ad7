"""Which objects a list or watch wants, decided on what was indexed when they were written: nothing is decoded.

Errors  ApiError BadRequest for a selector that cannot be read or a field that cannot be selected by.
State   None but equal values, kept once. ``Row.attrs`` holds what `index` made: (labels, selectable fields by their path in the stored object), each perhaps None.
Source  Kubernetes: Labels and selectors, Field selectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgesite.kube import errors, json, selectors
from edgesite.kube.selectable import field_text

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kind, Kinds
    from edgesite.kube.resources import Resource
    from edgesite.store.rows import Row

__all__ = ["Attrs", "Matcher", "exact_name", "index", "indexer", "matcher"]

Attrs = tuple[Mapping[str, str] | None, Mapping[str, str] | None]
Matcher = Callable[["Row"], bool]
_IN_KEY: Final = ("metadata.name", "metadata.namespace")
_NO_ATTRS: Final[Attrs] = (None, None)


class _Metadata(msgspec.Struct, gc=False):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct, gc=False):
    metadata: _Metadata


_labelled: Final = msgspec.json.Decoder(_Labelled)


def _selected_paths(resource: Resource) -> list[str]:
    return [path for path in resource.field_paths.values() if path not in _IN_KEY]


def index(resource: Resource, obj: Mapping[str, Any]) -> Attrs:
    """Return what is kept beside an object in its stored form."""
    labels = obj["metadata"].get("labels") or None
    if not resource.selectable:
        return (labels, None) if labels else _NO_ATTRS
    paths = _selected_paths(resource)
    if len(paths) == 1:  # a flag, a type: the same in all objects but a few
        return labels, _only_field(paths[0], field_text(obj, paths[0]))
    return labels, {path: field_text(obj, path) for path in paths}


@lru_cache(maxsize=256)
def _only_field(path: str, text: str) -> Mapping[str, str]:
    """One mapping for all objects that are alike, of which each would cost as much as the object's row."""
    return MappingProxyType({path: text})


def indexer(kinds: Kinds) -> Callable[[str, bytes], Attrs]:
    """Return the function that indexes stored bytes when the store is opened."""

    def attrs(key: str, value: bytes) -> Attrs:
        kind = kinds.stored_at(key[: key.index("/", 1) + 1])
        if kind is None or not kind.resource.selectable:
            labels = _labelled.decode(value).metadata.labels
            return (labels, None) if labels else _NO_ATTRS
        return index(kind.stored, json.loads(value))

    return attrs


def exact_name(fields: selectors.FieldSelector | None) -> str | None:
    """The only name that a field selector lets through, if it names one."""
    return fields.exact("metadata.name") if fields is not None else None


def matcher(
    kind: Kind, labels: selectors.LabelSelector | None, fields: selectors.FieldSelector | None
) -> Matcher | None:
    """Return a test of rows; None lets all through. Raises ApiError (BadRequest) for fields that cannot be selected by."""
    if labels is not None and labels.is_everything:
        labels = None
    terms = _field_terms(kind, fields) if fields is not None else []
    if labels is None and not terms:
        return None

    def matches(row: Row) -> bool:
        attrs: Attrs = row.attrs or _NO_ATTRS
        if labels is not None and not labels.matches(attrs[0]):
            return False
        if not terms:
            return True
        values = attrs[1]
        if values is None:  # stored before its kind was known, as custom resources are at start
            values = index(kind.stored, json.loads(row.value))[1] or {}
        for path, value, equal in terms:
            if path == "metadata.name":
                actual = row.key.rpartition("/")[2]
            elif path == "metadata.namespace":
                actual = kind.names_of(row.key)[0]
            else:
                actual = values.get(path, "")
            if (actual == value) is not equal:
                return False
        return True

    return matches


def _field_terms(kind: Kind, fields: selectors.FieldSelector) -> list[tuple[str, str, bool]]:
    paths = kind.resource.field_paths
    terms: list[tuple[str, str, bool]] = []
    for one in fields.requirements:
        path = paths.get(one.field)
        if path is None:
            row = kind.resource
            where = f"{row.api_version}, Kind={row.kind}" if row.group else f"/{row.version}, Kind={row.kind}"
            raise errors.bad_request(
                f'Unable to find "{where.replace(f"Kind={row.kind}", f"Resource={row.plural}")}" that match label selector "", '
                f'field selector "{fields}": field label not supported: {one.field}'
            )
        terms.append((path, one.value, one.operator is selectors.Operator.EQUALS))
    return terms
