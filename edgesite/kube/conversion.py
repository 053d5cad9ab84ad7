"""Kinds that are views of another row's objects (`Resource.stored_as`), turned into what is stored and back.

    to_storage(row, obj)       what a client sent under ``row``, as the stored kind
    from_storage(row, obj)     the stored object, as ``row`` shows it

events.k8s.io/v1 Events are stored as core/v1 ones; the two differ in the names of fields. autoscaling/v1 has one CPU target
where v2 has a list of metrics; what v1 cannot say travels in annotations, so that nothing is lost on the way through it. Devices
of v1alpha2 are stored as v1beta1 (`edgesite.kube.devices`). Versions
of any other custom resource differ in their apiVersion alone.
Rows that own their objects are returned as they are.

Errors  None raised: what cannot be read in an annotation is left there.
Source  Field names of events.k8s.io/v1 and autoscaling/v1, annotation names of autoscaling.alpha.kubernetes.io.
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube import devices, json
from edgesite.kube.resourcetable import Resource

__all__ = ["from_storage", "to_storage"]

Object = dict[str, Any]
#: events.k8s.io/v1 name → core/v1 name.
_EVENT_FIELDS: Final = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_CORE_FIELDS: Final = {core: new for new, core in _EVENT_FIELDS.items()}
_OF_DEVICES: Final = (
    "Device",
    "DeviceModel",
)  #: DeviceStatus, where it is installed, is a custom resource as any other
_ANNOTATIONS: Final = {
    "metrics": "autoscaling.alpha.kubernetes.io/metrics",
    "behavior": "autoscaling.alpha.kubernetes.io/behavior",
    "currentMetrics": "autoscaling.alpha.kubernetes.io/current-metrics",
    "conditions": "autoscaling.alpha.kubernetes.io/conditions",
}


def to_storage(row: Resource, obj: Object) -> Object:
    """Return ``obj`` as it is stored."""
    if row.stored_as is None:
        return obj
    if row.group == "events.k8s.io":
        return {**_renamed(obj, _EVENT_FIELDS), "apiVersion": "v1"}
    if row.group == "autoscaling":
        return _autoscaler_to_v2(obj)
    if row.group == devices.GROUP and row.kind in _OF_DEVICES:
        return devices.to_v1beta1(obj)
    group, version, _ = row.stored_as
    return {**obj, "apiVersion": f"{group}/{version}"}


def from_storage(row: Resource, obj: Object) -> Object:
    """Return a stored object as ``row`` shows it."""
    if row.stored_as is None:
        return obj
    if row.group == "events.k8s.io":
        return {**_renamed(obj, _CORE_FIELDS), "apiVersion": row.api_version}
    if row.group == "autoscaling":
        return _autoscaler_to_v1(obj)
    if row.group == devices.GROUP and row.kind in _OF_DEVICES:
        return devices.to_v1alpha2(obj)
    return {**obj, "apiVersion": row.api_version}


def _renamed(obj: Object, fields: dict[str, str]) -> Object:
    return {fields.get(name, name): value for name, value in obj.items()}


def _is_cpu(metric: Object) -> bool:
    """Whether a metric is what v1 calls the CPU target."""
    resource = metric.get("resource", {})
    values = resource.get("target", resource.get("current", {}))
    return metric.get("type") == "Resource" and resource.get("name") == "cpu" and "averageUtilization" in values


def _autoscaler_to_v1(obj: Object) -> Object:
    meta, spec, status = dict(obj.get("metadata", {})), dict(obj.get("spec", {})), dict(obj.get("status", {}))
    annotations = dict(meta.get("annotations", {}))
    metrics = spec.pop("metrics", [])
    kept: dict[str, Any] = {"behavior": spec.pop("behavior", None), "conditions": status.pop("conditions", None)}
    cpu = next((one for one in metrics if _is_cpu(one)), None)
    if cpu is not None:
        spec["targetCPUUtilizationPercentage"] = cpu["resource"]["target"]["averageUtilization"]
    kept["metrics"] = [one for one in metrics if one is not cpu]
    current = status.pop("currentMetrics", [])
    seen = next((one for one in current if _is_cpu(one)), None)
    if seen is not None:
        status["currentCPUUtilizationPercentage"] = seen["resource"]["current"]["averageUtilization"]
    kept["currentMetrics"] = [one for one in current if one is not seen]
    for field, value in kept.items():
        if value:
            annotations[_ANNOTATIONS[field]] = json.dumps(value).decode()
    if annotations:
        meta["annotations"] = annotations
    return {**obj, "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def _autoscaler_to_v2(obj: Object) -> Object:
    meta, spec, status = dict(obj.get("metadata", {})), dict(obj.get("spec", {})), dict(obj.get("status", {}))
    annotations = dict(meta.get("annotations", {}))
    kept = {field: value for field in _ANNOTATIONS if (value := _take(annotations, field)) is not None}
    metrics = kept.get("metrics", [])
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        metrics = [_cpu("target", {"type": "Utilization", "averageUtilization": percent}), *metrics]
    current = kept.get("currentMetrics", [])
    seen = status.pop("currentCPUUtilizationPercentage", None)
    if seen is not None:
        current = [_cpu("current", {"averageUtilization": seen}), *current]
    for target, field, value in (
        (spec, "metrics", metrics),
        (spec, "behavior", kept.get("behavior")),
        (status, "currentMetrics", current),
        (status, "conditions", kept.get("conditions")),
    ):
        if value:
            target[field] = value
    meta.pop("annotations", None)
    if annotations:
        meta["annotations"] = annotations
    return {**obj, "apiVersion": "autoscaling/v2", "metadata": meta, "spec": spec, "status": status}


def _cpu(member: str, values: Object) -> Object:
    return {"type": "Resource", "resource": {"name": "cpu", member: values}}


def _take(annotations: Object, field: str) -> Any:
    """Remove the annotation that keeps a field, if it can be read."""
    text = annotations.get(_ANNOTATIONS[field])
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.InvalidJson:
        return None
    if not isinstance(value, dict if field == "behavior" else list):
        return None
    del annotations[_ANNOTATIONS[field]]
    return value
