"""Build step: distil Kubernetes' OpenAPI definitions into the compact files that ``schema`` and ``openapi`` read.

    python -m edgesite.kube.distil [FOLDER]

The source is the package kubernetes-validate, which is needed for building only and found without importing it. Definitions
of alpha and beta versions are left out. Two files are written, each a zlib stream of an index (one line of JSON: definition
name → offset and length) and one JSON array for each definition:

    structure.bin      [type, format, map type, kinds, required, {field: FIELD}]; FIELD as in `schema.Field`
    descriptions.bin   [text, {field: text}]

Errors  FileNotFoundError when the source is not installed.
State   None: both files follow from the source alone, and are byte-identical from run to run.
Source  OpenAPI of Kubernetes as carried by kubernetes-validate; the meaning of ``x-kubernetes-*`` is that of kube-openapi.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any, Final

__all__ = ["VERSION", "distil", "write"]

VERSION: Final = "1.36.0"  #: Kubernetes release whose definitions are taken
_PREFIX: Final = "#/$defs/"
_UNSTABLE: Final = re.compile(r"v\d+(alpha|beta)\d+")

#: Definitions that are not structs: what a field of that definition holds.
_SCALARS: Final = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "microtime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "object",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "object",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "object",
}


def distil(definitions: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return the contents of structure.bin and descriptions.bin."""
    structures: dict[str, Any] = {}
    descriptions: dict[str, Any] = {}
    for name in sorted(definitions):
        if _UNSTABLE.search(name):
            continue
        definition = definitions[name]
        properties = definition.get("properties", {})
        structures[name] = [
            _definition_type(name, definition),
            definition.get("format", ""),
            definition.get("x-kubernetes-map-type", ""),
            _kinds(definition),
            definition.get("required", []),
            {field: _field(properties[field], definitions) for field in sorted(properties)},
        ]
        texts = {field: one["description"] for field, one in sorted(properties.items()) if one.get("description")}
        descriptions[name] = [definition.get("description", ""), texts]
    return _pack(structures), _pack(descriptions)


def write(folder: Path) -> None:
    """Write both files into ``folder``. Raises FileNotFoundError, OSError."""
    source = json.loads(_source().read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(("structure.bin", "descriptions.bin"), distil(source["$defs"]), strict=True):
        target = folder / name
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)


def _source() -> Path:
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"kubernetes-validate=={VERSION} is needed to build edgesite: it carries the API's schemas"
        )
    path = Path(spec.origin).parent / "kubernetes-json-schema" / f"v{VERSION}-local" / "_definitions.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: install kubernetes-validate=={VERSION}")
    return path


def _definition_type(name: str, definition: dict[str, Any]) -> str:
    if name in _SCALARS:
        return _SCALARS[name]
    return "struct" if "properties" in definition or _type(definition) == "object" else "any"


def _kinds(definition: dict[str, Any]) -> list[list[str]]:
    kinds = definition.get("x-kubernetes-group-version-kind", [])
    return [[one["group"], one["version"], one["kind"]] for one in kinds if not _UNSTABLE.fullmatch(one["version"])]


def _field(schema: dict[str, Any], definitions: dict[str, Any]) -> list[Any]:
    """The array form of `schema.Field`, without the empty members at its end."""
    kind, definition, items = _shape(schema, definitions)
    map_type = schema.get("x-kubernetes-map-type", "")
    if definition and not map_type:
        map_type = definitions[definition].get("x-kubernetes-map-type", "")
    strategies = [one for one in schema.get("x-kubernetes-patch-strategy", "").split(",") if one]
    field = [
        kind,
        definition,
        schema.get("format", ""),
        items,
        schema.get("x-kubernetes-list-type", ""),
        schema.get("x-kubernetes-list-map-keys", []),
        map_type,
        strategies,
        schema.get("x-kubernetes-patch-merge-key", ""),
    ]
    while len(field) > 1 and not field[-1]:
        field.pop()
    return field


def _shape(schema: dict[str, Any], definitions: dict[str, Any]) -> tuple[str, str, list[Any] | None]:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_PREFIX)
        return _definition_type(name, definitions[name]), name, None
    kind = _type(schema)
    if kind == "array":
        return "array", "", _field(schema["items"], definitions)
    if kind == "object" and "additionalProperties" in schema:
        return "map", "", _field(schema["additionalProperties"], definitions)
    if kind == "string" and schema.get("format") == "byte":
        return "bytes", "", None
    return kind or "any", "", None


def _type(schema: dict[str, Any]) -> str:
    """The source writes optional types as ["string", "null"]."""
    kind = schema.get("type", "")
    if isinstance(kind, list):
        return str(next(one for one in kind if one != "null"))
    return str(kind)


def _pack(entries: dict[str, Any]) -> bytes:
    blobs = {name: _compact(entry) for name, entry in entries.items()}
    index: dict[str, tuple[int, int]] = {}
    offset = 0
    for name, blob in blobs.items():
        index[name] = (offset, len(blob))
        offset += len(blob)
    return zlib.compress(_compact(index) + b"\n" + b"".join(blobs.values()), 9)


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
