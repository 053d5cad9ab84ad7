"""Devices and models of the API as messages of the Device Management Interface.

Members are found by their JSON names without regard to case, as KubeEdge's own conversion does; a member of another type than the
message has is left out. Free-form objects travel as maps to Any (`anyvalues`), in v1alpha1 too, where KubeEdge loses them.

Source  KubeEdge v1.12, edge/pkg/devicetwin/dmiclient and pkg/util (v1alpha1); v1.23, the same (v1beta1: namespaces, empty status).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesite.kube.devices import to_v1alpha2, to_v1beta1, values
from edgesite.kube.dmi.anyvalues import to_any
from edgesite.kube.protowire import Messages, MessageTable

__all__ = ["device_message", "model_message", "model_of", "protocol_of"]

Object = dict[str, Any]
_FREE = ("CustomizedValue", "AnomalyDetection")
_INTEGERS = ("int32", "int64", "uint32", "uint64")


def protocol_of(device: Object) -> str:
    """The name by which a device's mapper is found; "" if it has none."""
    protocol = to_v1beta1(device).get("spec", {}).get("protocol")
    name = protocol.get("protocolName") if isinstance(protocol, dict) else None
    return name if isinstance(name, str) else ""


def model_of(device: Object) -> str:
    """The name of a device's model, which is in its namespace; "" if it has none."""
    reference = device.get("spec", {}).get("deviceModelRef")
    name = reference.get("name") if isinstance(reference, dict) else None
    return name if isinstance(name, str) else ""


def device_message(tables: Messages, version: str, device: Object) -> Object:
    """Return a ``Device``."""
    device = to_v1alpha2(device) if version == "v1alpha1" else to_v1beta1(device)
    metadata, spec = device.get("metadata", {}), device.get("spec", {})
    made_spec: Object = {**_filled(tables["DeviceSpec"], spec), "deviceModelReference": model_of(device)}
    made: Object = {"name": metadata.get("name", ""), "spec": made_spec}
    if version == "v1alpha1":
        status = _filled(tables["DeviceStatus"], device.get("status") or {})
        for twin in status.get("twins", ()):
            twin.setdefault("desired", {})
            twin.setdefault("reported", {})
        return {**made, "status": status}
    for one in made_spec.get("properties", ()):
        one.setdefault("desired", {})
        one.setdefault("reportToCloud", True)  # what is not said is reported; on the wire it would be false
    return {**made, "status": {}, "namespace": metadata.get("namespace", "")}


def model_message(tables: Messages, version: str, model: Object) -> Object:
    """Return a ``DeviceModel``."""
    model = to_v1alpha2(model) if version == "v1alpha1" else to_v1beta1(model)
    metadata = model.get("metadata", {})
    made: Object = {"name": metadata.get("name", ""), "spec": _filled(tables["DeviceModelSpec"], model.get("spec", {}))}
    return made if version == "v1alpha1" else {**made, "namespace": metadata.get("namespace", "")}


def _filled(table: MessageTable, given: Mapping[str, Any]) -> Object:
    if table.name in _FREE:
        return {"data": {name: one for name, value in sorted(given.items()) if (one := to_any(value)) is not None}}
    by_name = {name.lower(): value for name, value in given.items()}
    made: Object = {}
    for field in table.fields:
        value = by_name.get(field.name.lower())
        if value is None:
            continue
        if field.repeated:
            if isinstance(value, list):
                found = [_value(field.type, field.table, one) for one in value]
                made[field.name] = [one for one in found if one is not None]
        elif (one := _value(field.type, field.table, value)) is not None:
            made[field.name] = one
    return made


def _value(kind: str, table: MessageTable | None, value: Any) -> Any:
    """The value as this type; None if it is not of it."""
    if kind.startswith("map<"):
        return _map(kind, value)
    if table is not None:
        return _filled(table, value) if isinstance(value, dict) else None
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind == "bytes":
        return values.command(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind in _INTEGERS:
        bits = int(kind[-2:])
        low, high = (0, 1 << bits) if kind.startswith("u") else (-(1 << bits - 1), 1 << bits - 1)
        return int(value) if value == value and low <= value < high and int(value) == value else None
    return float(value)


def _map(kind: str, value: Any) -> Object | None:
    if not isinstance(value, dict):
        return None
    if kind.endswith("bytes>"):
        return {name: found for name, one in sorted(value.items()) if (found := values.command(one)) is not None}
    return {name: one for name, one in sorted(value.items()) if isinstance(one, str)}
