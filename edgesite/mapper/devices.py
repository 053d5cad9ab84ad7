"""Devices of the API, or messages of DMI, as drivers see them.

    assignment_of(device, model)      objects of either version
    device_of(tables, version, message), model_of(...)    messages as objects

Cycles have no unit in the API. KubeEdge's mappers of v1alpha2 count nanoseconds, those of v1beta1 milliseconds, and so do we, but for numbers of
v1alpha2 below a million, which nobody can mean as nanoseconds. A cycle of 0, or none, is a second; a negative one means never by itself.

Errors  WireFormatError for messages that cannot be read; objects of odd shape are read as far as they make sense.
Source  KubeEdge v1.12 mapper-sdk-go and v1.23 mapper-framework (cycles, which properties are written, model defaults).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgesite.kube import json
from edgesite.kube.devices import V1ALPHA2, V1BETA1, to_v1beta1
from edgesite.kube.devices.values import canonical_type
from edgesite.kube.dmi.anyvalues import from_any
from edgesite.mapper.driver import Device, Property

__all__ = ["NEVER_S", "Assignment", "assignment_of", "device_of", "model_of"]

Object = dict[str, Any]
NEVER_S: Final = float("inf")
LEAST_S: Final = 0.01  #: the shortest cycle
MOST_S: Final = 366 * 86400.0
_DEFAULT_S: Final = 1.0
_STATE_S: Final = 10.0
_NANOSECONDS_FROM: Final = 1_000_000
#: Members of ``pushMethod`` whose names differ between DMI and the API.
_PUSH_NAMES: Final = {
    "hostname": "hostName",
    "requestpath": "requestPath",
    "tdengine": "TDEngine",
    "tdEngineClientConfig": "TDEngineClientConfig",
    "dbname": "dbName",
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """A device, and what is wanted of it."""

    device: Device
    desired: Mapping[str, str] = field(default_factory=dict)  #: by property; without those of which nothing is wanted
    methods: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: names of properties that a method writes
    model: Mapping[str, Any] | None = None  #: the DeviceModel, v1beta1
    state_every: float = _STATE_S

    @property
    def key(self) -> tuple[str, str]:
        return self.device.namespace, self.device.name


def assignment_of(device: Object, model: Object | None = None) -> Assignment:
    """Return what a device's objects say, of either version."""
    device, model = to_v1beta1(device), None if model is None else to_v1beta1(model)
    metadata, spec = _dict(device.get("metadata")), _dict(device.get("spec"))
    alpha = V1ALPHA2 in _dict(metadata.get("annotations"))
    protocol, model_spec = _dict(spec.get("protocol")), _dict((model or {}).get("spec"))
    known = {str(one.get("name")): one for one in _dicts(model_spec.get("properties"))}
    properties, desired = {}, {}
    for one in _dicts(spec.get("properties")):
        name = str(one.get("name") or "")
        if not name or name in properties:
            continue
        properties[name] = _property(name, one, known.get(name), alpha=alpha)
        wanted = _dict(one.get("desired")).get("value")
        if isinstance(wanted, str) and wanted and properties[name].writable:
            desired[name] = wanted
    methods = {
        str(one.get("name")): tuple(str(name) for name in one.get("propertyNames") or ())
        for one in _dicts(spec.get("methods"))
    }
    return Assignment(
        Device(
            str(metadata.get("namespace") or "default"),
            str(metadata.get("name") or ""),
            str(_dict(spec.get("deviceModelRef")).get("name") or ""),
            str(protocol.get("protocolName") or ""),
            {**_dict(model_spec.get("protocolConfigData")), **_dict(protocol.get("configData"))},
            tuple(properties.values()),
        ),
        desired,
        methods,
        model,
        _cycle(_dict(spec.get("stateReport")).get("reportCycle"), alpha=False, default=_STATE_S),
    )


def _property(name: str, one: Object, facts: Object | None, *, alpha: bool) -> Property:
    facts = facts or {}
    said = _dict(_dict(one.get("desired")).get("metadata")).get("type")
    kind = str(facts.get("type") or said or "string").lower()
    visitor = {
        **_dict(_dict(facts.get("visitors")).get("configData")),
        **_dict(_dict(one.get("visitors")).get("configData")),
    }
    return Property(
        name,
        kind if kind == "stream" else canonical_type(kind),
        facts.get("accessMode") != "ReadOnly",
        visitor,
        str(facts.get("minimum") or ""),
        str(facts.get("maximum") or ""),
        str(facts.get("unit") or ""),
        _cycle(one.get("collectCycle"), alpha=alpha),
        _cycle(one.get("reportCycle"), alpha=alpha),
        one.get("reportToCloud") is not False,
        _dict(one.get("pushMethod")),
    )


def _cycle(given: Any, *, alpha: bool, default: float = _DEFAULT_S) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or given == 0 or given != given:
        return default
    if given < 0:
        return NEVER_S
    unit = 1e-9 if alpha and given >= _NANOSECONDS_FROM else 1e-3
    return min(max(given * unit, LEAST_S), MOST_S)


# Messages of DMI


def device_of(version: str, message: Object) -> Object:
    """Return the object of a message ``Device``. Raises WireFormatError."""
    spec = {name: value for name, value in _dict(message.get("spec")).items() if name != "deviceModelReference"}
    made: Object = {"kind": "Device", "metadata": _metadata(message)}
    made["spec"] = _free(spec)
    if reference := _dict(message.get("spec")).get("deviceModelReference"):
        made["spec"]["deviceModelRef"] = {"name": reference}
    if version == "v1alpha1":
        made["apiVersion"] = V1ALPHA2
        made["status"] = {"twins": _dict(message.get("status")).get("twins", [])}
        return made
    made["apiVersion"] = V1BETA1
    for one in made["spec"].get("properties", ()):
        one["reportToCloud"] = one.get("reportToCloud", False)  # false is not on the wire
        if "pushMethod" in one:
            one["pushMethod"] = _renamed(one["pushMethod"])
    return made


def model_of(version: str, message: Object) -> Object:
    """Return the object of a message ``DeviceModel``. Raises WireFormatError."""
    spec = _dict(message.get("spec"))
    if version == "v1alpha1":  # what is zero is not on the wire: limits of zero both are none
        spec = {**spec, "properties": [_alpha_property(one) for one in spec.get("properties", ())]}
    return {
        "apiVersion": V1ALPHA2 if version == "v1alpha1" else V1BETA1,
        "kind": "DeviceModel",
        "metadata": _metadata(message),
        "spec": spec,
    }


def _alpha_property(one: Object) -> Object:
    kinds = {}
    for kind, facts in _dict(one.get("type")).items():
        if "minimum" in facts or "maximum" in facts:
            facts = {"minimum": 0, "maximum": 0, **facts}
        kinds[kind] = facts
    return {**one, "type": kinds}


def _metadata(message: Object) -> Object:
    return {"namespace": message.get("namespace") or "default", "name": message.get("name", "")}


def _free(value: Any) -> Any:
    """The same with CustomizedValues as plain objects."""
    if isinstance(value, list):
        return [_free(one) for one in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for name, one in value.items():
        if name in ("configData", "customizedValues", "anomalyDetection") and isinstance(one, dict):
            made[name] = {key: _nested(from_any(each)) for key, each in _dict(one.get("data")).items()}
        else:
            made[name] = _free(one)
    return made


def _nested(value: Any) -> Any:
    """An object or a list, which is sent as its JSON text, as itself: a driver sees the same in either host."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _renamed(push: Any) -> Any:
    if not isinstance(push, dict):
        return push
    return {_PUSH_NAMES.get(name, name): one if name == "tag" else _renamed(one) for name, one in push.items()}


def _dict(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> Iterable[Object]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
