"""Specs of DeviceModels in both versions' forms.

v1alpha2 has a member for each type with numbers for its limits; v1beta1 has the type's name, and limits as texts. ``propertyVisitors``,
which models had in v1alpha1 and many published ones still have, are kept for readers of v1alpha2.

Errors  None raised: what has not the shape of its version is kept beside (see `conversion`).
Source  KubeEdge v1.12 and v1.15, the CRDs in build/crds/devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import json

__all__ = ["TYPES", "spec_to_alpha", "spec_to_beta"]

Object = dict[str, Any]
_Form = Callable[[Object], Object]
TYPES: Final = ("int", "string", "double", "float", "boolean", "bytes")  #: of v1alpha2; in v1beta1 in capitals
_LIMITS: Final = ("minimum", "maximum")
_TEXTS: Final = ("accessMode", "unit")
_VISITORS: Final = "propertyVisitors"


def spec_to_beta(spec: Object, kept: Object) -> tuple[Object, Object]:
    """Return the spec in v1beta1's form, and what would not come back from it."""
    made = {name: value for name, value in spec.items() if name not in ("properties", _VISITORS)}
    made.update(_dict(kept.get("spec")))
    properties, changed = _converted(spec, kept, property_to_beta, property_to_alpha)
    if properties:
        made["properties"] = properties
    lost: Object = {"properties": changed} if changed else {}
    if _VISITORS in spec:
        lost[_VISITORS] = spec[_VISITORS]
    return made, lost


def spec_to_alpha(spec: Object, kept: Object) -> tuple[Object, Object]:
    """Return the spec in v1alpha2's form, and what would not come back from it."""
    made = {name: value for name, value in spec.items() if name == "protocol"}
    rest = {name: value for name, value in spec.items() if name not in ("protocol", "properties")}
    properties, changed = _converted(spec, kept, property_to_alpha, property_to_beta)
    if properties:
        made["properties"] = properties
    if _VISITORS in kept:
        made[_VISITORS] = kept[_VISITORS]
    lost: Object = {}
    if changed:
        lost["properties"] = changed
    if rest:
        lost["spec"] = rest
    return made, lost


def _converted(spec: Object, kept: Object, to: _Form, back: _Form) -> tuple[list[Object], Object]:
    """Return the properties in the other form, and by name those that would not come back from it."""
    was, lost = _dict(kept.get("properties")), {}
    properties = []
    for one in _list(spec.get("properties")):
        if not isinstance(one, dict):
            continue
        name = str(one.get("name") or "")
        whole = was.get(name)
        if isinstance(whole, dict) and back(whole) == one:
            properties.append(whole)
            continue
        properties.append(to(one))
        if back(properties[-1]) != one:
            lost[name] = one
    return properties, lost


def property_to_beta(one: Object) -> Object:
    made: Object = {name: one[name] for name in ("name", "description") if name in one}
    types = _dict(one.get("type"))
    name = next((name for name in TYPES if isinstance(types.get(name), dict)), "")
    if not name:
        return made
    made["type"] = name.upper()
    facts = types[name]
    made.update({field: facts[field] for field in _TEXTS if field in facts})
    for field in _LIMITS:
        if isinstance(facts.get(field), int | float) and not isinstance(facts[field], bool):
            made[field] = json.dumps(facts[field]).decode()
    return made


def property_to_alpha(one: Object) -> Object:
    made: Object = {name: one[name] for name in ("name", "description") if name in one}
    name = str(one.get("type") or "").lower()
    if name not in TYPES:
        return made
    facts: Object = {field: one[field] for field in _TEXTS if field in one}
    for field in _LIMITS:
        number = _number(one.get(field), whole=name == "int")
        if number is not None:
            facts[field] = number
    made["type"] = {name: facts}
    return made


def _number(text: Any, *, whole: bool) -> int | float | None:
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text)
    except (json.InvalidJson, RecursionError):
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return None
    number: int | float = value
    return (
        int(number) if number == int(number) else number
    )  # as every writer of JSON has it: "100.0" would come back as "100"


def _dict(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
