"""The device profile that mappers of KubeEdge v1.12 read: all devices of a node, with their models and protocols.

    profile(devices, models)    the JSON text, "" when there is no device with a known model

``devices`` and ``models`` are objects of either version. Members and their order are those of KubeEdge's own; values that were
reported are left empty, so that a profile changes only when a device does.

Errors  None raised: a device whose model is not known is left out.
Source  KubeEdge v1.12.7, cloud/pkg/devicecontroller/types and /controller; a recorded ConfigMap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from edgesite.kube.devices.conversion import to_v1alpha2
from edgesite.kube.devices.modelforms import TYPES
from edgesite.kube.devices.protocols import CUSTOMIZED, KNOWN
from edgesite.kube.gojson import go_json

__all__ = ["KEY", "config_map_name", "profile"]

Object = dict[str, Any]
KEY: Final = "deviceProfile.json"  #: in the ConfigMap's data
_KINDS: Final = {**{name: name for name in KNOWN}, CUSTOMIZED: "customized-protocol"}
_NUMBERS: Final = ("defaultValue", "minimum", "maximum")


def config_map_name(node: str) -> str:
    return f"device-profile-config-{node}"


def profile(devices: Iterable[Object], model_of: Callable[[str], Object | None]) -> str:
    """Return the profile of devices of one namespace; ``model_of`` finds a DeviceModel there by name."""
    instances: list[Object] = []
    models: dict[str, Object] = {}
    protocols: list[Object] = []
    for device in devices:
        alpha = to_v1alpha2(device)
        spec = _dict(alpha.get("spec"))
        name = str(_dict(spec.get("deviceModelRef")).get("name") or "")
        model = model_of(name)
        if model is None:
            continue
        models.setdefault(name, _model(to_v1alpha2(model)))
        protocol = _protocol(alpha["metadata"]["name"], _dict(spec.get("protocol")))
        if protocol is not None:
            protocols.append(protocol)
        instances.append(_instance(alpha, name, protocol))
    parts = {"deviceInstances": instances, "deviceModels": list(models.values()), "protocols": protocols}
    return go_json({key: value for key, value in parts.items() if value}, sort=False) if instances else ""


def _instance(device: Object, model: str, protocol: Object | None) -> Object:
    name, spec = device["metadata"]["name"], _dict(device.get("spec"))
    made: Object = {"id": name, "name": name, "protocol": protocol["name"] if protocol else "", "model": model}
    made["twins"] = [_twin(one) for one in _dict(device.get("status")).get("twins") or ()]
    data = spec.get("data")
    if isinstance(data, dict) and any(data.values()):
        made["data"] = _members(data, "dataProperties dataTopic")
    made["propertyVisitors"] = [_visitor(one, model) for one in spec.get("propertyVisitors") or ()]
    return {key: value for key, value in made.items() if value}


def _twin(twin: Object) -> Object:
    made: Object = {"propertyName": twin.get("propertyName") or ""}
    made["desired"] = _members({"value": "", **_dict(twin.get("desired"))}, "value metadata")
    made["reported"] = {"value": ""}
    return made


def _visitor(one: Object, model: str) -> Object:
    name = one.get("propertyName") or ""
    kind = next((kind for kind in _KINDS if isinstance(one.get(kind), dict)), "")
    made = {
        "name": name,
        "propertyName": name,
        "modelName": model,
        "protocol": _KINDS.get(kind, ""),
        "reportCycle": one.get("reportCycle"),
        "collectCycle": one.get("collectCycle"),
        "customizedValues": one.get("customizedValues"),
        "visitorConfig": _config(kind, one.get(kind)),
    }
    return {key: value for key, value in made.items() if value}


def _protocol(device: str, protocol: Object) -> Object | None:
    kind = next((kind for kind in _KINDS if isinstance(protocol.get(kind), dict)), "")
    if not kind:
        return None
    return {
        "name": f"{_KINDS[kind]}-{device}",
        "protocol": _KINDS[kind],
        "protocolConfig": _config(kind, protocol[kind]),
        "protocolCommonConfig": protocol.get("common"),
    }


_ORDER: Final = {
    "modbus": "slaveID register offset limit scale isSwap isRegisterSwap",
    "opcua": "url userName password securityPolicy securityMode certificate privateKey timeout nodeID browseName",
    "bluetooth": "macAddress characteristicUUID dataWrite dataConverter",
    CUSTOMIZED: "protocolName configData",
}


def _config(kind: str, config: Any) -> Any:
    return _members(config, _ORDER[kind]) if isinstance(config, dict) and kind else config


def _model(model: Object) -> Object:
    spec = _dict(model.get("spec"))
    made: Object = {"name": model["metadata"]["name"]}
    properties = [found for one in spec.get("properties") or () if (found := _property(one)) is not None]
    if properties:
        made["properties"] = properties
    return made


def _property(one: Object) -> Object | None:
    types = _dict(one.get("type"))
    type_ = next((name for name in TYPES if isinstance(types.get(name), dict)), "")
    if not type_:
        return None
    facts = types[type_]
    made = {
        "name": one.get("name"),
        "dataType": type_,
        "description": one.get("description"),
        "accessMode": facts.get("accessMode"),
    }
    made = {key: value for key, value in made.items() if value}
    if type_ in ("int", "double", "float"):
        made.update({field: facts.get(field) or 0 for field in _NUMBERS})
        if facts.get("unit"):
            made["unit"] = facts["unit"]
    elif type_ in ("string", "boolean"):
        made["defaultValue"] = facts.get("defaultValue", "" if type_ == "string" else False)
    return made


def _members(value: Object, order: str) -> Object:
    """The members in this order, then any others, without empty ones."""
    names = [*order.split(), *value]
    return {name: value[name] for name in dict.fromkeys(names) if name in value and value[name] is not None}


def _dict(value: Any) -> Object:
    return value if isinstance(value, dict) else {}
