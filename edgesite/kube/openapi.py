"""OpenAPI documents of the served kinds, as bytes.

    v2_json(rows, schemas, version)                /openapi/v2
    v2_protobuf(rows, schemas, version)            /openapi/v2 for kubectl 1.20 to 1.26 (`V2_PROTOBUF`)
    v3_index(rows, schemas, version)               /openapi/v3: group versions, each with the hash of its document
    v3_group(rows, schemas, group, version, …)     /openapi/v3/api/v1, /openapi/v3/apis/G/V
    Documents(rows, schemas, version)              all of them, made when asked for and kept compressed

Making a document takes some 5 to 100 ms of CPU.

Units   ``version`` is the server's gitVersion ("v1.36.0").
Errors  LookupError for a group version that no row has.
State   `Documents` keeps gzipped bytes, one entry for each document asked for.
Source  OpenAPI 2.0 and 3.0; kube-apiserver's /openapi/v3 index.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from edgesite.kube import json, openapi_proto
from edgesite.kube.openapi_definitions import LIST_META, OBJECT_META, Definitions, custom_name, definition_name
from edgesite.kube.openapi_paths import Operation, operations, v2_paths, v3_paths
from edgesite.kube.resourcetable import Resource
from edgesite.kube.schema import Schemas

__all__ = [
    "V2_PROTOBUF",
    "V2_PROTOBUF_CONTENT_TYPE",
    "Document",
    "Documents",
    "v2_json",
    "v2_protobuf",
    "v3_group",
    "v3_index",
]

Object = dict[str, Any]
V2_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"  #: as clients ask for it
#: As it is answered: "@" may not stand in a Content-Type, and Go's parser in kubectl refuses it there.
V2_PROTOBUF_CONTENT_TYPE: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_ALWAYS: Final = ("Status", "DeleteOptions", "Patch", "WatchEvent", "APIResourceList", "APIGroup", "APIVersions")
_TOKEN: Final = {
    "description": "Bearer Token authentication",
    "in": "header",
    "name": "authorization",
    "type": "apiKey",
}


class Document(NamedTuple):
    """A document as it is served: gzipped bytes, and a tag that changes with its content."""

    gzipped: bytes
    etag: str


class Documents:
    """All documents of one set of rows and schemas. Make a new one when rows come or go."""

    def __init__(self, rows: Iterable[Resource], schemas: Schemas, version: str) -> None:
        self._rows = tuple(rows)
        self._schemas = schemas
        self._version = version
        self._made: dict[tuple[str, ...], Document] = {}

    def v2_json(self) -> Document:
        return self._get(("v2", "json"), lambda: v2_json(self._rows, self._schemas, self._version))

    def v2_protobuf(self) -> Document:
        return self._get(("v2", "protobuf"), lambda: v2_protobuf(self._rows, self._schemas, self._version))

    def v3_index(self) -> Document:
        return self._get(("v3",), lambda: v3_index(self._rows, self._schemas, self._version))

    def v3_group(self, group: str, version: str) -> Document:
        """Raises LookupError."""
        make = lambda: v3_group(self._rows, self._schemas, group, version, self._version)
        return self._get(("v3", group, version), make)

    def v3_hash(self, group: str, version: str) -> str:
        """The hash that the index gives a group version. Raises LookupError."""
        return _hash(_of(self._rows, group, version), self._schemas, self._version)

    def _get(self, key: tuple[str, ...], make: Callable[[], bytes]) -> Document:
        made = self._made.get(key)
        if made is None:
            content = make()
            tag = hashlib.sha256(content).hexdigest().upper()
            made = self._made[key] = Document(gzip.compress(content, 6, mtime=0), f'"{tag}"')
        return made


def v2_json(rows: Iterable[Resource], schemas: Schemas, version: str) -> bytes:
    head, paths, definitions = _v2(tuple(rows), schemas, version)
    return _written(head, {"paths": paths, "definitions": definitions})


def v2_protobuf(rows: Iterable[Resource], schemas: Schemas, version: str) -> bytes:
    """The message openapi.v2.Document."""
    return openapi_proto.encode_document(*_v2(tuple(rows), schemas, version))


def v3_index(rows: Iterable[Resource], schemas: Schemas, version: str) -> bytes:
    rows = tuple(rows)
    paths: Object = {}
    for path, group, one in sorted({(row.base_path, row.group, row.version) for row in rows}):
        digest = _hash(_of(rows, group, one), schemas, version)
        paths[path[1:]] = {"serverRelativeURL": f"/openapi/v3{path}?hash={digest}"}
    return json.dumps({"paths": paths})


def v3_group(rows: Iterable[Resource], schemas: Schemas, group: str, version: str, server_version: str) -> bytes:
    """Raises LookupError."""
    chosen = _of(rows, group, version)
    schemas = schemas.scratch()
    definitions = Definitions(schemas, 3)
    paths, roots = _paths(chosen, schemas, definitions)
    head = {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": server_version}}
    components = _written(
        {"securitySchemes": {"BearerToken": _TOKEN}},
        {"schemas": _definitions(chosen, schemas, definitions, roots)},
    )
    start = _written(head, {"paths": v3_paths(paths, definitions.ref)})
    return b'%b,"components":%b}' % (start[:-1], components)


_Members = Iterator[tuple[str, Object]]


def _v2(rows: Sequence[Resource], schemas: Schemas, version: str) -> tuple[Object, _Members, _Members]:
    """The small members of a document, its paths, and its definitions."""
    schemas = schemas.scratch()
    definitions = Definitions(schemas, 2)
    paths, roots = _paths(rows, schemas, definitions)
    head = {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "securityDefinitions": {"BearerToken": _TOKEN},
        "security": [{"BearerToken": []}],
    }
    return head, v2_paths(paths, definitions.ref), _definitions(rows, schemas, definitions, roots)


def _written(head: Object, large: Mapping[str, _Members]) -> bytes:
    """Write an object whose ``large`` members are encoded as they come: as a whole they would take some 10 MB."""
    parts = [json.dumps(head)[:-1]]
    for name, members in large.items():
        body = b",".join(b"%b:%b" % (json.dumps(one), json.dumps(value)) for one, value in members)
        parts.append(b",%b:{%b}" % (json.dumps(name), body))
    return b"".join((*parts, b"}"))


def _paths(
    rows: Iterable[Resource], schemas: Schemas, definitions: Definitions
) -> tuple[list[tuple[str, list[Operation]]], set[str]]:
    """All paths with their operations, and the definitions that these name; names without a definition are emptied."""
    paths: list[tuple[str, list[Operation]]] = []
    roots = {_META + name for name in _ALWAYS}
    names = {definition_name(row, schemas) for row in rows}
    known = names | {name + "List" for name in names}

    def kind_definition(group: str, version: str, kind: str) -> str:
        return schemas.definition_of(group, version, kind) or ""

    for row in rows:
        name = definition_name(row, schemas)
        strategic = definitions.has(name)
        for path, found in operations(row, name, kind_definition):
            checked = []
            for one in found:
                is_known = one.result in known or definitions.has(one.result)
                checked.append(replace(one, result=one.result if is_known else "", strategic=strategic))
                roots |= {checked[-1].result, one.body}
            paths.append((path, checked))
    paths.sort(key=lambda one: one[0])
    return paths, roots


def _definitions(rows: Iterable[Resource], schemas: Schemas, definitions: Definitions, roots: set[str]) -> _Members:
    extra = [(definition_name(row, schemas), row) for row in rows if not definitions.has(definition_name(row, schemas))]
    if extra:
        roots = roots | {OBJECT_META, LIST_META}
    for name in definitions.reachable(roots):
        yield name, definitions.schema(name)
    for name, row in extra:
        yield name, definitions.of_row(row, schemas.openapi(name))
        yield name + "List", definitions.of_list(row, name)


def _of(rows: Iterable[Resource], group: str, version: str) -> list[Resource]:
    chosen = [row for row in rows if row.group == group and row.version == version]
    if not chosen:
        raise LookupError(f"no API version {group}/{version}")
    return chosen


def _hash(rows: Iterable[Resource], schemas: Schemas, version: str) -> str:
    """A document follows from its rows, the schemas of those that are custom, and the program's version."""
    rows = list(rows)
    custom = [schemas.openapi(custom_name(row)) for row in rows]
    return hashlib.sha256(repr((version, rows, custom)).encode()).hexdigest().upper()
