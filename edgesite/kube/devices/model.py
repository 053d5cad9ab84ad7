"""A DeviceModel as rules for the values of its devices.

    rules = rules_of(model)                property name → PropertyRule
    rules["speed"].problem("140")          "" or why the model does not allow it

Errors  None raised: a limit that is no number is none.
Source  KubeEdge v1.15, devices.kubeedge.io/v1beta1 DeviceModel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgesite.kube.devices import values
from edgesite.kube.devices.conversion import to_v1beta1

__all__ = ["PropertyRule", "rules_of"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PropertyRule:
    """What a model says of one property."""

    name: str
    type: str  #: as twins have it: "int", "float", "double", "string", "boolean", "bytes"
    read_only: bool = False
    minimum: int | float | None = None
    maximum: int | float | None = None
    unit: str = ""

    def problem(self, value: str) -> str:
        """Return why the model does not allow a value, "" if it does."""
        if why := values.problem(self.type, value):
            return why
        if self.minimum is None and self.maximum is None:
            return ""
        found = values.number(self.type, value)
        if found is None:
            return ""
        if self.minimum is not None and not found >= self.minimum:
            return f"the value must be at least {self.minimum}, the minimum of its model"
        if self.maximum is not None and not found <= self.maximum:
            return f"the value must be at most {self.maximum}, the maximum of its model"
        return ""


def rules_of(model: Object) -> dict[str, PropertyRule]:
    """Return the rules of a DeviceModel of either version, by property."""
    spec = to_v1beta1(model).get("spec")
    found = {}
    properties = spec.get("properties") if isinstance(spec, dict) else None
    for one in properties if isinstance(properties, list) else ():
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            found[one["name"]] = _rule(one)
    return found


def _rule(one: Object) -> PropertyRule:
    type_ = values.canonical_type(str(one.get("type") or ""))
    low, high = (_limit(type_, one.get(name)) for name in ("minimum", "maximum"))
    return PropertyRule(one["name"], type_, one.get("accessMode") == "ReadOnly", low, high, str(one.get("unit") or ""))


def _limit(type_: str, text: Any) -> int | float | None:
    if not isinstance(text, str) or not values.is_number(type_):
        return None
    found = values.number(type_, text)
    return values.number("float", text) if found is None else found
