"""What is wrong with a Device or a DeviceModel beyond its schema: with the path of the field, in the version that was sent.

    check_device(causes, device, model)     ``model`` is the DeviceModel it refers to, None if there is none
    check_model(causes, model)
    warnings(device, model), model_warnings(model)    what is taken, but does nothing

Errors  None raised: what is wrong goes into `Causes`.
Source  KubeEdge's descriptions of the fields; its admission webhook since v1.16 ("property names must be unique.").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgesite.kube.causes import Causes
from edgesite.kube.devices import values
from edgesite.kube.devices.conversion import V1ALPHA2, to_v1beta1
from edgesite.kube.devices.model import PropertyRule, rules_of
from edgesite.kube.devices.modelforms import TYPES

__all__ = ["check_device", "check_model", "model_warnings", "warnings"]

Object = dict[str, Any]
_UNIQUE = "property names must be unique"


@dataclass(frozen=True, slots=True)
class _Mention:
    """A place of a device where a property is named; ``desired`` is what it shall be there."""

    path: str
    name_field: str
    name: str
    desired: str = ""
    list: str = ""  #: names are unique within a list
    said_type: str = (
        ""  #: v1alpha2: the type that the wish says for itself, which is the one that KubeEdge's edge looks at
    )

    @property
    def is_of_other_type(self) -> bool:
        """Whether the wish is well by the type it names: KubeEdge takes it, and so do we, though it is not sent."""
        said = values.canonical_type(self.said_type) if self.said_type else ""
        return said in values.TYPES and not values.problem(said, self.desired)


def check_device(causes: Causes, device: Object, model: Object | None) -> None:
    spec = _dict(device.get("spec"))
    ref = _dict(spec.get("deviceModelRef")).get("name")
    if not ref:
        causes.required("spec.deviceModelRef.name", "the DeviceModel of this device")
    elif model is None:
        causes.not_found("spec.deviceModelRef.name", ref)
    rules = rules_of(model) if model is not None else None
    seen: set[tuple[str, str]] = set()
    known = set()
    for one in _mentions(device):
        place = f"{one.path}.{one.name_field}"
        if not one.name:
            causes.required(place)
            continue
        if (one.list, one.name) in seen:
            causes.duplicate(place, one.name)
        seen.add((one.list, one.name))
        known.add(one.name)
        if rules is not None:
            _check_mention(causes, one, place, rules.get(one.name))
    _check_methods(causes, spec, list(known))  # what is looked for in it may be anything
    _check_commands(causes, spec)


def _check_commands(causes: Causes, spec: Object) -> None:
    """``dataWrite`` of v1alpha2's Bluetooth visitors: bytes as base64, or as a list of numbers, as published samples have them."""
    for at, visitor in _each(spec.get("propertyVisitors")):
        for word, data in _dict(_dict(visitor.get("bluetooth")).get("dataWrite")).items():
            if values.command(data) is None:
                path = f"spec.propertyVisitors[{at}].bluetooth.dataWrite.{word}"
                causes.invalid(path, data, "must be bytes: base64, or a list of numbers from 0 to 255")


def _check_mention(causes: Causes, one: _Mention, place: str, rule: PropertyRule | None) -> None:
    if rule is None:
        causes.not_found(place, one.name)
    elif (why := _problem(one, rule)) and not (one.is_of_other_type and not values.same_type(one.said_type, rule.type)):
        causes.invalid(f"{one.path}.desired.value", one.desired, why)


def _problem(one: _Mention, rule: PropertyRule) -> str:
    return rule.problem(values.wished(rule.type, one.desired)) if one.desired else ""


def _mentions(device: Object) -> Iterator[_Mention]:
    spec = _dict(device.get("spec"))
    if device.get("apiVersion") != V1ALPHA2:
        for at, one in _each(spec.get("properties")):
            yield _Mention(f"spec.properties[{at}]", "name", _name(one, "name"), _desired(one), "properties")
        return
    for at, one in _each(spec.get("propertyVisitors")):
        yield _Mention(f"spec.propertyVisitors[{at}]", "propertyName", _name(one, "propertyName"), "", "visitors")
    for at, one in _each(_dict(spec.get("data")).get("dataProperties")):
        yield _Mention(f"spec.data.dataProperties[{at}]", "propertyName", _name(one, "propertyName"), "", "data")
    for at, one in _each(_dict(device.get("status")).get("twins")):
        said = _dict(_dict(one.get("desired")).get("metadata")).get("type")
        name, said = _name(one, "propertyName"), said if isinstance(said, str) else ""
        yield _Mention(f"status.twins[{at}]", "propertyName", name, _desired(one), "twins", said)


def _check_methods(causes: Causes, spec: Object, known: list[str]) -> None:
    names: list[str] = []
    for at, one in _each(spec.get("methods")):
        path, name = f"spec.methods[{at}]", _name(one, "name")
        if not name:
            causes.required(f"{path}.name")
        elif name in names:
            causes.duplicate(f"{path}.name", name)
        names.append(name)
        listed = one.get("propertyNames")
        for index, used in enumerate(listed if isinstance(listed, list) else ()):
            if used not in known:
                causes.not_found(f"{path}.propertyNames[{index}]", used)


def check_model(causes: Causes, model: Object) -> None:
    alpha = model.get("apiVersion") == V1ALPHA2
    names = set()
    written = list(_each(_dict(model.get("spec")).get("properties")))
    for at, one in written:
        path, name = f"spec.properties[{at}]", _name(one, "name")
        if not name:
            causes.required(f"{path}.name")
        elif name in names:
            causes.duplicate(f"{path}.name", name)
        names.add(name)
        if alpha:
            _check_alpha_type(causes, f"{path}.type", one.get("type"))
    beta = _dict(to_v1beta1(model).get("spec")).get("properties")
    for (at, given), (_, one) in zip(written, _each(beta), strict=False):
        path = f"spec.properties[{at}]"
        if alpha:
            kind = next((word for word in TYPES if word in _dict(given.get("type"))), "")
            path = f"{path}.type.{kind}"
        elif not one.get("type"):
            causes.required(f"{path}.type")
        _check_limits(causes, path, one)


def _check_alpha_type(causes: Causes, path: str, given: Any) -> None:
    kinds = [word for word in TYPES if isinstance(_dict(given).get(word), dict)]
    if not kinds:
        causes.required(path, f"one of {', '.join(TYPES)}")
    elif len(kinds) > 1:
        causes.forbidden(f"{path}.{kinds[1]}", f"a property has one type, and this one is of type {kinds[0]}")


def _check_limits(causes: Causes, path: str, one: Object) -> None:
    type_ = values.canonical_type(str(one.get("type") or ""))
    if not values.is_number(type_):
        return
    found = {}
    for name in ("minimum", "maximum"):
        text = one.get(name)
        if not isinstance(text, str) or not text:
            continue
        found[name] = values.number("float", text)
        if found[name] is None or (type_ == "int" and values.number("int", text) is None):
            causes.invalid(f"{path}.{name}", text, f"must be a number as type {type_} has them")
    low, high = found.get("minimum"), found.get("maximum")
    if low is not None and high is not None and low > high:
        causes.invalid(f"{path}.minimum", one.get("minimum"), "must not be greater than the maximum")


def model_warnings(model: Object) -> list[str]:
    """Return sentences on what will have no effect."""
    if model.get("apiVersion") != V1ALPHA2 or not _dict(model.get("spec")).get("propertyVisitors"):
        return []
    return ["spec.propertyVisitors: they are v1alpha1's and have no effect: devices have visitors of their own"]


def warnings(device: Object, model: Object | None) -> list[str]:
    """Return sentences on what will have no effect."""
    said = []
    rules = rules_of(model) if model is not None else {}
    for one in _mentions(device):
        rule = rules.get(one.name)
        if rule is None or not one.desired:
            continue
        if rule.read_only:
            said.append(f"{one.path}.desired: property {one.name!r} is read-only in its model: the value is not sent")
        elif why := _problem(one, rule):
            said.append(
                f"{one.path}.desired: property {one.name!r} is {rule.type} in its model ({why}): the value is not sent"
            )
    if not _dict(to_v1beta1(device).get("spec")).get("nodeName"):
        said.append("the device is bound to no node: it is sent nowhere")
    return said


def _each(value: Any) -> Iterator[tuple[int, Object]]:
    for at, one in enumerate(value if isinstance(value, list) else ()):
        if isinstance(one, dict):
            yield at, one


def _desired(one: Object) -> str:
    value = _dict(one.get("desired")).get("value")
    return value if isinstance(value, str) else ""


def _name(one: Object, field: str) -> str:
    value = one.get(field)
    return value if isinstance(value, str) else ""


def _dict(value: Any) -> Object:
    return value if isinstance(value, dict) else {}
