"""What the printers of `tables` share: columns, ages, and how lists and selectors read in a cell.

Units   ``now`` is seconds since the Unix epoch.
Errors  None raised: a cell whose value makes no sense reads "<unknown>" or "<error>".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from edgesite.kube import selectors, times

__all__ = [
    "NONE",
    "UNKNOWN",
    "UNSET",
    "Column",
    "Printer",
    "access_modes",
    "age",
    "columns",
    "containers",
    "flag",
    "images",
    "labels",
    "selector",
    "since",
]

Object = dict[str, Any]
Cells = Callable[[Object, float], list[Any]]
NONE: Final = "<none>"
UNKNOWN: Final = "<unknown>"
UNSET: Final = "<unset>"


@dataclass(frozen=True, slots=True)
class Column:
    """A column; those of priority 1 are shown by ``-o wide`` only."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0

    def definition(self) -> Object:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": "",
            "priority": self.priority,
        }


@dataclass(frozen=True, slots=True)
class Printer:
    """How a kind is printed: its columns, and the cells of one object."""

    columns: tuple[Column, ...]
    cells: Cells


def columns(text: str) -> tuple[Column, ...]:
    """Make columns from names between "|"; "#" after a name makes it an integer, "+" shows it in wide output only."""
    made: list[Column] = []
    for word in text.split("|"):
        name = word.strip()
        wide = name.endswith("+")
        name = name.rstrip("+")
        kind = "integer" if name.endswith("#") else "string"
        name = name.rstrip("#")
        made.append(Column(name, kind, "name" if name == "Name" and not made else "", int(wide)))
    return tuple(made)


def since(timestamp: str | None, now: float) -> str:
    """How long ago a time was."""
    if not timestamp:
        return UNKNOWN
    try:
        return times.human_duration(now - times.parse_time(timestamp))
    except times.InvalidTime:
        return UNKNOWN


def age(obj: Object, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def containers(template: Object) -> str:
    return ",".join(one.get("name", "") for one in template.get("spec", {}).get("containers", ()))


def images(template: Object) -> str:
    return ",".join(one.get("image", "") for one in template.get("spec", {}).get("containers", ()))


def labels(values: Object | None) -> str:
    """A map of labels, sorted."""
    return ",".join(f"{key}={value}" for key, value in sorted((values or {}).items())) or NONE


def selector(value: Object | None) -> str:
    """A LabelSelector."""
    if not value:
        return NONE
    try:
        return str(selectors.from_object(value)) or NONE
    except selectors.InvalidSelector:
        return "<error>"


def flag(value: bool | None) -> str:
    return UNSET if value is None else "True" if value else "False"


_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(modes: Iterable[str]) -> str:
    given = set(modes)
    return ",".join(short for name, short in _MODES.items() if name in given)
