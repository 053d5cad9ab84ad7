"""The schema of one version of a custom resource: decoding, pruning, defaults, validation, merging.

    schema = CustomSchema(schemas, row, openapi_v3_schema)
    decoded, problems = schema.decode(obj)      typed metadata, unknown fields dropped and named
    schema.default(obj)                         in place
    schema.validate(obj)                        causes for `errors.invalid`
    schema.definition                           its name in ``schemas``, by which apply and OpenAPI find it

Errors  ApiError 400 from ``decode``.
State   The schema as its CRD has it, and definitions derived from it, registered in ``schemas`` until ``unregister``.
Source  apiextensions.k8s.io/v1: structural schemas, pruning, defaulting.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from edgesite.kube import schema_custom_rules
from edgesite.kube.causes import Causes
from edgesite.kube.resourcetable import Resource
from edgesite.kube.schema import Definition, Field, Schemas
from edgesite.kube.schema_decode import decode_metadata, path_text

__all__ = ["CustomSchema"]

Object = dict[str, Any]
MAX_DEPTH: Final = 100  #: of nested definitions; what is deeper merges as a whole
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED: Final = "x-kubernetes-embedded-resource"
_OWN: Final = ("apiVersion", "kind", "metadata")
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
_PathLink = tuple[Any, str | int] | None


class CustomSchema:
    """What objects of one kind in one version look like."""

    def __init__(self, schemas: Schemas, row: Resource, schema: Object) -> None:
        self.row = row
        self.definition = ".".join((*reversed(row.group.split(".")), row.version, row.kind))
        self._schemas = schemas
        self._schema = schema
        self._registered: list[str] = []
        self._register()

    def decode(self, obj: Any) -> tuple[Object, list[str]]:
        """Return the object as its kind holds it, and the unknown fields in the words of strict decoding. Raises ApiError (400)."""
        row = self.row
        meta, unknown = decode_metadata(self._schemas, row.kind, row.version, obj)
        properties = self._schema.get("properties", {})
        keeps = bool(self._schema.get(_PRESERVE))
        result: Object = {}
        for name, value in obj.items():
            if name == "metadata":
                result[name] = meta
            elif name in _OWN:
                result[name] = value
            elif name in properties:
                result[name] = _prune(value, properties[name], (None, name), unknown)
            elif keeps:
                result[name] = value
            else:
                unknown.append(name)
        return result, [f'unknown field "{path}"' for path in unknown]

    def default(self, obj: Object) -> None:
        """Fill in the schema's defaults and drop nulls where there may be none, in place."""
        for name, schema in self._schema.get("properties", {}).items():
            if name not in _OWN:
                _default_member(obj, name, schema)

    def validate(self, obj: Object) -> list[dict[str, str]]:
        """Return what is wrong with a decoded and defaulted object."""
        causes = Causes()
        body = {name: value for name, value in obj.items() if name not in _OWN}
        schema = dict(self._schema)
        schema["required"] = [name for name in schema.get("required", ()) if name not in _OWN]
        schema_custom_rules.check(causes, "", body, schema)
        return causes.found

    def unregister(self) -> None:
        """Take the derived definitions out of ``schemas``."""
        for name in self._registered:
            self._schemas.remove(name)
        self._registered.clear()

    def _register(self) -> None:
        fields = {
            "apiVersion": Field("string"),
            "kind": Field("string"),
            "metadata": Field("struct", _META),
        }
        for name, schema in self._schema.get("properties", {}).items():
            if name not in fields:
                fields[name] = self._field(schema, f"{self.definition}.{name}", 1)
        kind = (self.row.group, self.row.version, self.row.kind)
        keeps = bool(self._schema.get(_PRESERVE))
        self._add(self.definition, Definition("struct", "", "", (kind,), frozenset(), fields, keeps), self._schema)

    def _add(self, name: str, definition: Definition, openapi: Object | None = None) -> None:
        self._schemas.add(name, definition, openapi)
        self._registered.append(name)

    def _field(self, schema: Object, name: str, depth: int) -> Field:
        """Describe a schema as merges see it; structs become definitions called after their place."""
        kind, map_type = schema.get("type", ""), schema.get("x-kubernetes-map-type", "")
        if kind == "array":
            items = schema.get("items")
            inner = self._field(items, f"{name}[]", depth + 1) if isinstance(items, dict) else Field("any")
            keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
            return Field("array", items=inner, list_type=schema.get("x-kubernetes-list-type", ""), list_map_keys=keys)
        if kind != "object":
            return Field(kind if kind in _SCALARS else "any")
        properties = schema.get("properties")
        if properties and depth < MAX_DEPTH:
            fields = {one: self._field(inner, f"{name}.{one}", depth + 1) for one, inner in properties.items()}
            required, keeps = frozenset(schema.get("required", ())), bool(schema.get(_PRESERVE))
            self._add(name, Definition("struct", "", map_type, (), required, fields, keeps))
            return Field("struct", name, map_type=map_type)
        others = schema.get("additionalProperties")
        if isinstance(others, dict) and depth < MAX_DEPTH:
            return Field("map", items=self._field(others, f"{name}.*", depth + 1), map_type=map_type)
        return Field("map", map_type=map_type)


def _prune(value: Any, schema: Object, path: _PathLink, unknown: list[str]) -> Any:
    if isinstance(value, list):
        items = schema.get("items")
        if not isinstance(items, dict):
            return value
        return [_prune(one, items, (path, index), unknown) for index, one in enumerate(value)]
    if not isinstance(value, dict):
        return value
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    keeps = bool(schema.get(_PRESERVE)) or others is True
    embedded = bool(schema.get(_EMBEDDED))
    result: Object = {}
    for name, one in value.items():
        if name in properties:
            result[name] = _prune(one, properties[name], (path, name), unknown)
        elif isinstance(others, dict):
            result[name] = _prune(one, others, (path, name), unknown)
        elif keeps or (embedded and name in _OWN):
            result[name] = one
        else:
            unknown.append(path_text((path, name)))
    return result


def _default(value: Any, schema: Object) -> None:
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, one in properties.items():
            _default_member(value, name, one)
        if isinstance(others, dict):
            for name in [one for one in value if one not in properties]:
                _default_member(value, name, others)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for one in value:
            _default(one, schema["items"])


def _default_member(obj: Object, name: str, schema: Object) -> None:
    is_bare_null = name in obj and obj[name] is None and not schema.get("nullable")
    if "default" in schema and (name not in obj or is_bare_null):
        obj[name] = copy.deepcopy(schema["default"])
    elif is_bare_null:
        del obj[name]  # as a `configData:` with nothing behind it
    if name in obj:
        _default(obj[name], schema)
