"""Definitions of kinds as OpenAPI writes them: version 2 ("#/definitions/…") and version 3 ("#/components/schemas/…").

Errors  KeyError for an unknown definition.
State   The descriptions (some 1 MB) while a `Definitions` lives: make one for one document and drop it.
Source  OpenAPI 2.0 and 3.0; ``x-kubernetes-*`` as kube-openapi writes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from edgesite.kube.resourcetable import Resource
from edgesite.kube.schema import Blobs, Field, Schemas

__all__ = ["LIST_META", "OBJECT_META", "Definitions", "custom_name", "definition_name"]

Object = dict[str, Any]
#: Definitions that are no structs, in version 2 and in version 3.
_SPECIAL: Final[dict[str, tuple[Object, Object]]] = {
    "quantity": ({"type": "string"}, {"oneOf": [{"type": "string"}, {"type": "number"}]}),
    "int-or-string": (
        {"type": "string", "format": "int-or-string"},
        {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    ),
    "time": ({"type": "string", "format": "date-time"},) * 2,
    "microtime": ({"type": "string", "format": "date-time"},) * 2,
    "object": ({"type": "object"},) * 2,
    "any": ({}, {}),
}


def definition_name(row: Resource, schemas: Schemas) -> str:
    """The definition of a row's kind; a name made from its group where Kubernetes has none."""
    known = schemas.definition_of(row.group, row.version, row.kind)
    return known if known is not None else custom_name(row)


def custom_name(row: Resource) -> str:
    """The name that the definition of a custom kind has."""
    return ".".join((*reversed(row.group.split(".")), row.version, row.kind))


class Definitions:
    """Makes definitions for one document."""

    def __init__(self, schemas: Schemas, version: int) -> None:
        self._schemas = schemas
        self._version = version
        self._prefix = "#/definitions/" if version == 2 else "#/components/schemas/"
        self._special = 0 if version == 2 else 1
        self._texts = Blobs.of("descriptions.bin")
        self._decoder = msgspec.json.Decoder(tuple[str, dict[str, str]])

    def has(self, name: str) -> bool:
        """Whether it is a definition of Kubernetes."""
        return name in self._texts

    def ref(self, name: str) -> Object:
        return {"$ref": self._prefix + name}

    def reachable(self, names: Iterable[str]) -> list[str]:
        """``names`` and all definitions that their fields lead to, sorted; unknown names are left out."""
        found: set[str] = set()
        waiting = [name for name in names if name in self._texts]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            for field in self._schemas.definition(name).fields.values():
                inner: Field | None = field
                while inner is not None:
                    if inner.definition:
                        waiting.append(inner.definition)
                    inner = inner.items
        return sorted(found)

    def schema(self, name: str) -> Object:
        """One definition. Raises KeyError."""
        definition = self._schemas.definition(name)
        text, field_texts = self._decoder.decode(self._texts[name])
        result: Object = {"description": text} if text else {}
        if definition.type != "struct":
            return {**result, **_SPECIAL[definition.type][self._special]}
        if definition.fields:
            result["properties"] = {
                field: self._field(one, field_texts.get(field, "")) for field, one in definition.fields.items()
            }
        if definition.required:
            result["required"] = sorted(definition.required)
        result["type"] = "object"
        if definition.kinds:
            result["x-kubernetes-group-version-kind"] = [
                {"group": group, "kind": kind, "version": version} for group, version, kind in definition.kinds
            ]
        if definition.map_type:
            result["x-kubernetes-map-type"] = definition.map_type
        return result

    def of_row(self, row: Resource, schema: Object | None = None) -> Object:
        """The definition of a custom kind: its own ``schema``, or an object with whatever is in it."""
        kind = {"group": row.group, "kind": row.kind, "version": row.version}
        gvk = {"x-kubernetes-group-version-kind": [kind]}
        if schema is None:
            schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        result = {**(_plain(schema) if self._version == 2 else schema), **gvk}
        if self._version == 2 and "type" not in result:
            return {"type": "object", **result}  # readers of version 2 would refuse what stands beside known members
        own = self.schema(_PARTIAL)["properties"] | {"metadata": self.ref(OBJECT_META)}
        kept = {name: one for name, one in result.get("properties", {}).items() if name not in own}
        result["properties"] = {name: own[name] for name in ("apiVersion", "kind", "metadata")} | kept
        return result

    def of_list(self, row: Resource, item: str) -> Object:
        """The definition of a custom kind's list."""
        own = self.schema(_PARTIAL)["properties"]
        kind = {"group": row.group, "kind": row.list_name, "version": row.version}
        return {
            "description": f"{row.list_name} is a list of {row.kind}",
            "properties": {
                "apiVersion": own["apiVersion"],
                "items": {"items": self.ref(item), "type": "array"},
                "kind": own["kind"],
                "metadata": self.ref(LIST_META),
            },
            "required": ["items"],
            "type": "object",
            "x-kubernetes-group-version-kind": [kind],
        }

    def _field(self, field: Field, text: str) -> Object:
        result: Object = {"description": text} if text else {}
        if field.definition:
            if self._special and text:
                result["allOf"] = [self.ref(field.definition)]
            else:
                result |= self.ref(field.definition)
            if field.map_type and field.map_type != self._schemas.definition(field.definition).map_type:
                result["x-kubernetes-map-type"] = field.map_type
            return result | _extensions(field)
        if field.type == "array":
            result |= {"items": self._field(field.items or _ANY, ""), "type": "array"}
        elif field.type == "map":
            result |= {"additionalProperties": self._field(field.items or _ANY, ""), "type": "object"}
        elif field.type != "any":
            result["type"] = "string" if field.type == "bytes" else field.type
        if field.format:
            result["format"] = field.format
        if field.map_type:
            result["x-kubernetes-map-type"] = field.map_type
        return result | _extensions(field)


_ANY: Final = Field("any")
OBJECT_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
LIST_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_PARTIAL: Final = "io.k8s.api.core.v1.ConfigMap"  # has the members that all kinds have, in the usual words
#: What version 2 has no word for, or what readers of version 2 cannot take.
_VERSION_3_ONLY: Final = ("allOf", "anyOf", "default", "not", "nullable", "oneOf", "x-kubernetes-validations")


def _plain(schema: Object) -> Object:
    """A schema of version 3 in the words of version 2: what cannot be said is left out."""
    result = {name: one for name, one in schema.items() if name not in _VERSION_3_ONLY}
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("nullable"):
        # A reader would refuse unknown fields and nulls.
        for name in ("type", "properties", "items", "additionalProperties", "required"):
            result.pop(name, None)
        return result
    if "properties" in schema:
        result["properties"] = {name: _plain(one) for name, one in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            result[name] = _plain(schema[name])
        elif name in result:
            del result[name]
    return result


def _extensions(field: Field) -> Object:
    extensions: Object = {}
    if field.list_map_keys:
        extensions["x-kubernetes-list-map-keys"] = list(field.list_map_keys)
    if field.list_type:
        extensions["x-kubernetes-list-type"] = field.list_type
    if field.merge_key:
        extensions["x-kubernetes-patch-merge-key"] = field.merge_key
    if field.patch_strategies:
        extensions["x-kubernetes-patch-strategy"] = ",".join(field.patch_strategies)
    return extensions
