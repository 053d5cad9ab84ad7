"""Paths and operations of the API as OpenAPI describes them, made from rows.

An operation is described once, in `Operation`, and written as version 2 (``v2_paths``) or version 3 (``v3_paths``).

Source  OpenAPI 2.0 and 3.0; the names of operations, actions and parameters that Kubernetes' clients look for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from edgesite.kube.resourcetable import SUBRESOURCES, Resource, Subresource

__all__ = ["PATCH_TYPES", "Operation", "operations", "v2_paths", "v3_paths"]

Object = dict[str, Any]
Ref = Callable[[str], Object]
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_MEDIA_TYPES: Final = ("application/json", "application/yaml")
PATCH_TYPES: Final = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_STREAM: Final = "application/json;stream=watch"
#: Query parameters: type and what they do.
_PARAMETERS: Final = {
    "allowWatchBookmarks": ("boolean", "Send BOOKMARK events that tell how far a watch has come."),
    "continue": ("string", "Go on where the list that gave this token ended."),
    "dryRun": ("string", "All: go through every step but the storing."),
    "fieldManager": ("string", "Who makes this change; needed for apply."),
    "fieldSelector": ("string", "Only objects with these fields."),
    "fieldValidation": ("string", "What becomes of unknown and double fields: Ignore, Warn or Strict."),
    "force": ("boolean", "Take over fields that others manage; for apply only."),
    "gracePeriodSeconds": ("integer", "How long the object may take to end."),
    "labelSelector": ("string", "Only objects with these labels."),
    "limit": ("integer", "At most so many objects."),
    "pretty": ("string", "Indent the answer."),
    "propagationPolicy": ("string", "What becomes of dependents: Orphan, Background or Foreground."),
    "resourceVersion": ("string", "The version to read at or to watch from."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant: Exact or NotOlderThan."),
    "sendInitialEvents": ("boolean", "Begin a watch with what exists."),
    "timeoutSeconds": ("integer", "How long the call may take."),
    "watch": ("boolean", "Stream changes instead of a list."),
}
_LIST: Final = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_WRITE: Final = ("dryRun", "fieldManager", "fieldValidation")
_DELETE: Final = ("dryRun", "gracePeriodSeconds", "propagationPolicy")
#: Verb of a row or subresource → HTTP method, action, word in the operation's name.
_ITEM_VERBS: Final = {
    "get": ("get", "get", "read"),
    "update": ("put", "put", "replace"),
    "patch": ("patch", "patch", "patch"),
    "delete": ("delete", "delete", "delete"),
    "create": ("post", "post", "create"),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    action: str
    name: str
    tag: str
    kind: tuple[str, str, str]  #: (group, version, kind)
    result: str  #: definition that is returned
    body: str = ""  #: definition that is sent
    query: tuple[str, ...] = ()
    strategic: bool = True  #: whether strategic merge patches are understood: not for custom kinds

    @property
    def consumes(self) -> tuple[str, ...]:
        if self.method != "patch":
            return ("*/*",)
        return PATCH_TYPES if self.strategic else tuple(one for one in PATCH_TYPES if "strategic" not in one)

    @property
    def produces(self) -> tuple[str, ...]:
        return (*_MEDIA_TYPES, _STREAM) if self.action == "list" else _MEDIA_TYPES

    @property
    def extensions(self) -> Object:
        group, version, kind = self.kind
        return {
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": version},
        }


def operations(
    row: Resource, definition: str, kind_definition: Callable[[str, str, str], str]
) -> Iterator[tuple[str, list[Operation]]]:
    """Each path of a row with its operations. ``kind_definition`` names the definition of (group, version, kind)."""
    base = _tag(row)
    scope = "Namespaced" if row.namespaced else ""
    gvk = (row.group, row.version, row.kind)
    stem = f"{_camel(base)}{scope}{row.kind}"
    place = (
        f"{row.base_path}/namespaces/{{namespace}}/{row.plural}" if row.namespaced else f"{row.base_path}/{row.plural}"
    )
    collection: list[Operation] = []
    if "list" in row.verbs:
        listing = Operation("get", "list", f"list{stem}", base, gvk, definition + "List", query=_LIST)
        collection.append(listing)
        if row.namespaced:
            everywhere = f"list{_camel(base)}{row.kind}ForAllNamespaces"
            yield (
                f"{row.base_path}/{row.plural}",
                [Operation("get", "list", everywhere, base, gvk, definition + "List", query=_LIST)],
            )
    if "create" in row.verbs:
        collection.append(Operation("post", "post", f"create{stem}", base, gvk, definition, definition, _WRITE))
    if "deletecollection" in row.verbs:
        name = f"delete{_camel(base)}Collection{scope}{row.kind}"
        query = (*_LIST[1:5], *_DELETE)
        collection.append(
            Operation("delete", "deletecollection", name, base, gvk, _META + "Status", _META + "DeleteOptions", query)
        )
    yield place, collection
    item = _item_operations(row.verbs, stem, base, gvk, definition)
    if item:
        yield f"{place}/{{name}}", item
    for name in sorted(row.subresources):
        yield f"{place}/{{name}}/{name}", _subresource_operations(row, name, stem, definition, kind_definition)


def _item_operations(
    verbs: Iterable[str], stem: str, tag: str, gvk: tuple[str, str, str], definition: str
) -> list[Operation]:
    made = []
    for verb in verbs:
        if verb not in ("get", "update", "patch", "delete"):
            continue
        method, action, word = _ITEM_VERBS[verb]
        body = ""
        query: tuple[str, ...] = ()
        if verb == "update":
            body, query = definition, _WRITE
        elif verb == "patch":
            body, query = _META + "Patch", (*_WRITE, "force")
        elif verb == "delete":
            body, query = _META + "DeleteOptions", _DELETE
        result = _META + "Status" if verb == "delete" else definition
        made.append(Operation(method, action, f"{word}{stem}", tag, gvk, result, body, query))
    return made


def _subresource_operations(
    row: Resource, name: str, stem: str, definition: str, kind_definition: Callable[[str, str, str], str]
) -> list[Operation]:
    subresource: Subresource = SUBRESOURCES[name]
    gvk = (row.group, row.version, row.kind)
    if subresource.kind:
        kind = subresource.kind.format(kind=row.kind)
        gvk = (subresource.group, subresource.version or "v1", kind)
        definition = kind_definition(*gvk)
    suffix = stem + name[0].upper() + name[1:]
    connect = gvk[2].endswith("Options")
    made = []
    for verb in subresource.verbs:
        method, action, word = _ITEM_VERBS[verb]
        body = ""
        query: tuple[str, ...] = ()
        if connect:
            action, word = "connect", f"connect{method.capitalize()}"
        elif verb in ("update", "create"):
            body, query = definition, _WRITE
        elif verb == "patch":
            body, query = _META + "Patch", (*_WRITE, "force")
        made.append(Operation(method, action, word + suffix, _tag(row), gvk, definition, body, query))
    return made


def _tag(row: Resource) -> str:
    group = row.group.removesuffix(".k8s.io").replace(".", "_") or "core"
    return f"{group}_{row.version}"


def _camel(tag: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in tag.split("_"))


def v2_paths(paths: Iterable[tuple[str, list[Operation]]], ref: Ref) -> Iterator[tuple[str, Object]]:
    """Each path with its item."""
    for path, found in paths:
        item: Object = {one.method: _v2_operation(one, ref) for one in found}
        item["parameters"] = [_v2_parameter(*one) for one in _path_parameters(path)]
        yield path, item


def _v2_operation(operation: Operation, ref: Ref) -> Object:
    parameters = [_v2_parameter(name, "query", *_PARAMETERS[name]) for name in operation.query]
    if operation.body:
        body: Object = {"name": "body", "in": "body", "schema": ref(operation.body)}
        if operation.method != "delete":
            body["required"] = True
        parameters.insert(0, body)
    answer: Object = {"description": "OK"}
    if operation.result:
        answer["schema"] = ref(operation.result)
    return {
        "consumes": list(operation.consumes),
        "operationId": operation.name,
        "parameters": parameters,
        "produces": list(operation.produces),
        "responses": {"200": answer, "401": {"description": "Unauthorized"}},
        "schemes": ["https"],
        "tags": [operation.tag],
        **operation.extensions,
    }


def _path_parameters(path: str) -> list[tuple[str, str, str, str]]:
    """Name, place, type and description of the parameters that all operations of a path take."""
    found = [("pretty", "query", *_PARAMETERS["pretty"])]
    if "{name}" in path:
        found.append(("name", "path", "string", "Name of the object."))
    if "{namespace}" in path:
        found.append(("namespace", "path", "string", "Namespace of the object."))
    return found


def _v2_parameter(name: str, place: str, kind: str, text: str) -> Object:
    parameter: Object = {"description": text, "in": place, "name": name, "type": kind, "uniqueItems": True}
    if place == "path":
        parameter["required"] = True
    return parameter


def v3_paths(paths: Iterable[tuple[str, list[Operation]]], ref: Ref) -> Iterator[tuple[str, Object]]:
    """Each path with its item."""
    for path, found in paths:
        item: Object = {one.method: _v3_operation(one, ref) for one in found}
        item["parameters"] = [_v3_parameter(*one) for one in _path_parameters(path)]
        yield path, item


def _v3_operation(operation: Operation, ref: Ref) -> Object:
    answer: Object = {"description": "OK"}
    if operation.result:
        answer["content"] = {one: {"schema": ref(operation.result)} for one in operation.produces}
    result: Object = {
        "tags": [operation.tag],
        "operationId": operation.name,
        "parameters": [_v3_parameter(name, "query", *_PARAMETERS[name]) for name in operation.query],
        "responses": {"200": answer, "401": {"description": "Unauthorized"}},
        **operation.extensions,
    }
    if operation.body:
        content = {one: {"schema": ref(operation.body)} for one in operation.consumes}
        result["requestBody"] = {"content": content, "required": operation.method != "delete"}
    return result


def _v3_parameter(name: str, place: str, kind: str, text: str) -> Object:
    parameter: Object = {
        "name": name,
        "in": place,
        "description": text,
        "schema": {"type": kind, "uniqueItems": True},
    }
    if place == "path":
        parameter["required"] = True
    return parameter
