"""Server-side printing: objects as a meta.k8s.io/v1 Table with kubectl's columns.

    table(row, objects, now, include_object="Metadata", metadata=…)   a whole Table
    column_definitions(row), table_row(row, obj, now, …)               its parts, for watches

Kinds without columns of their own show their name and when they were made.

Units   ``now`` is seconds since the Unix epoch.
Errors  ApiError 400 for an unknown ``include_object``.
Source  meta/v1 Table; columns as kubectl shows them for Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from edgesite.kube import tables_cluster, tables_core, tables_workload
from edgesite.kube.conversion import to_storage
from edgesite.kube.errors import bad_request
from edgesite.kube.resourcetable import Resource
from edgesite.kube.tablecells import Printer, age, columns

__all__ = ["INCLUDE_OBJECT", "column_definitions", "partial_object", "table", "table_row"]

Object = dict[str, Any]
INCLUDE_OBJECT: Final = ("None", "Metadata", "Object")
_PRINTERS: Final[dict[tuple[str, str], Printer]] = {
    **tables_workload.PRINTERS,
    **tables_core.PRINTERS,
    **tables_cluster.PRINTERS,
}


def table(
    row: Resource,
    objects: Iterable[Object],
    now: float,
    include_object: str = "Metadata",
    metadata: Mapping[str, Any] | None = None,
    printer: Printer | None = None,
) -> Object:
    """Print ``objects``. ``metadata`` is the list's (resourceVersion, continue …); ``printer`` a custom resource's own.

    Raises ApiError (400).
    """
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(metadata or {}),
        "columnDefinitions": column_definitions(row, printer),
        "rows": [table_row(row, one, now, include_object, printer) for one in objects],
    }


def column_definitions(row: Resource, printer: Printer | None = None) -> list[Object]:
    return [column.definition() for column in (printer or _printer(row)).columns]


def table_row(
    row: Resource, obj: Object, now: float, include_object: str = "Metadata", printer: Printer | None = None
) -> Object:
    """Print one object. Raises ApiError (400)."""
    cells = printer.cells(obj, now) if printer else _printer(row).cells(to_storage(row, obj), now)
    if include_object in ("Metadata", ""):
        return {"cells": cells, "object": partial_object(obj)}
    if include_object == "Object":
        return {"cells": cells, "object": obj}
    if include_object == "None":
        return {"cells": cells, "object": None}
    raise bad_request(f'unrecognized includeObject value: "{include_object}"')


def partial_object(obj: Object) -> Object:
    """The metadata of an object alone, as PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj.get("metadata", {})}


def _name_and_creation(obj: Object, now: float) -> list[Any]:
    return [obj["metadata"].get("name", ""), obj["metadata"].get("creationTimestamp", "")]


def _name_and_age(obj: Object, now: float) -> list[Any]:
    return [obj["metadata"].get("name", ""), age(obj, now)]


_BUILTIN_DEFAULT: Final = Printer(columns("Name | Created At"), _name_and_creation)
_CUSTOM_DEFAULT: Final = Printer(columns("Name | Age"), _name_and_age)


def _printer(row: Resource) -> Printer:
    printer = _PRINTERS.get((row.group, row.kind))
    if printer is not None:
        return printer
    builtin = not row.group or "." not in row.group or row.group.endswith(".k8s.io")
    return _BUILTIN_DEFAULT if builtin else _CUSTOM_DEFAULT
