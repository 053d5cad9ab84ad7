"""Strategies for objects of any kind, drawn along their schemas: what decoding lets through, sensible or not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from edgesite.kube import schema
from edgesite.kube.resources import BUILTIN, Resource

SCHEMAS = schema.load()
WITH_SCHEMA = [row for row in BUILTIN if SCHEMAS.definition_of(row.group, row.version, row.kind)]
MAX_DEPTH = 4
_TEXTS = ["", "a", "RollingUpdate", "ClientIP", "NodePort", "In", "10.0.0.1", "a/b", "Ä", "2024-01-01T00:00:00Z"]
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-5, 70000),
    "boolean": st.booleans(),
    "number": st.just(1.5),
    "quantity": st.sampled_from(["1", "500m", "-1Gi"]),
    "int-or-string": st.sampled_from([1, -1, "25%", "x"]),
    "time": st.just("2024-01-01T00:00:00Z"),
    "microtime": st.just("2024-01-01T00:00:00.000000Z"),
    "bytes": st.just("YQ=="),
    "object": st.just({}),
    "any": st.none() | st.integers() | st.just({}) | st.just({"properties": {"a": {}}}),
}


def objects(row: Resource, depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of a kind, without apiVersion and kind; a higher ``depth`` makes shallower ones."""
    name = SCHEMAS.definition_of(row.group, row.version, row.kind)
    assert name is not None
    return _struct(name, depth)


def _struct(definition: str, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    fields = SCHEMAS.definition(definition).fields
    chosen = {name: _value(field, depth) for name, field in fields.items() if name not in ("apiVersion", "kind")}
    return st.fixed_dictionaries({}, optional=chosen)


def _value(field: schema.Field, depth: int) -> st.SearchStrategy[Any]:
    if field.type == "struct":
        return _struct(field.definition, depth + 1) if depth < MAX_DEPTH else st.just({})
    if field.type == "array" and field.items is not None:
        return st.lists(_value(field.items, depth), max_size=2)
    if field.type == "map" and field.items is not None:
        return st.dictionaries(st.sampled_from(["a", "b/", "é"]), _value(field.items, depth), max_size=1)
    return _SCALARS.get(field.type, st.sampled_from(_TEXTS))
