"""Printer columns of a CustomResourceDefinition.

Errors  None raised: a column whose path is not understood is left out.
State   None.
Source  apiextensions.k8s.io/v1: additionalPrinterColumns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import json, jsonpath
from edgesite.kube.tablecells import Column, Printer, age, since

__all__ = ["printer_of"]

Object = dict[str, Any]
_CELLS: Final[dict[str, type | tuple[type, ...]]] = {
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "string": str,
}


def printer_of(version: Object) -> Printer:
    """The columns of one version of a CRD; name and age where it names none."""
    shown = [Column("Name", "string", "name")]
    cells: list[Callable[[Object, float], Any]] = []
    for one in version.get("additionalPrinterColumns") or ():
        try:
            path = jsonpath.parse(one.get("jsonPath", ""))
        except jsonpath.InvalidPath:
            continue
        kind = one.get("type", "string")
        shown.append(Column(one.get("name", ""), kind, one.get("format", ""), one.get("priority", 0)))
        cells.append(_cell(path, kind))
    if not cells:
        shown.append(Column("Age", "date"))
        cells.append(age)
    return Printer(tuple(shown), lambda obj, now: [obj["metadata"].get("name", ""), *(one(obj, now) for one in cells)])


def _cell(path: jsonpath.Path, kind: str) -> Callable[[Object, float], Any]:
    def cell(obj: Object, now: float) -> Any:
        value = path.first(obj)
        if value is None:
            return None
        if kind == "date":
            return since(value, now) if isinstance(value, str) else "<invalid>"
        if kind == "string" and not isinstance(value, str):
            return json.dumps(value).decode()
        fits = isinstance(value, _CELLS.get(kind, str))
        return value if fits and (kind == "boolean" or not isinstance(value, bool)) else None

    return cell
