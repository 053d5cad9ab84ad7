"""What KubeEdge's edges before v1.15 are told besides objects: which devices they have, and what is wanted of these.

    membership                              added_devices, removed_devices; the others null
    membership/detail                       devices: all that there are
    device/<name>/twin/cloud_updated        twins

Edges since v1.15 take their desired values from objects, so that they are told names alone; ours need none of this.

Units   Times are milliseconds since the Unix epoch.
Errors  None.
Source  KubeEdge v1.12, cloud/pkg/devicecontroller/controller/downstream.go, and recorded messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edgesite.kube.devices import to_v1alpha2
from edgesite.wire.delivery import version_number

__all__ = ["device_entry", "membership", "membership_detail", "twins_update"]

Object = dict[str, Any]
_STRING: Final = "string"


def device_entry(device: Object, *, alpha: bool, now_ms: int) -> Object:
    """A device as membership messages show it."""
    metadata = device["metadata"]
    name = str(metadata["name"])
    id_ = name if alpha else f"{metadata.get('namespace')}/{name}"
    entry: Object = {"id": id_, "name": name}
    description = (metadata.get("labels") or {}).get("description")
    if description:
        entry["description"] = description
    twins = _twins(device, now_ms) if alpha else {}
    if twins:
        entry["twin"] = twins
    return entry


def membership(event: str, now_ms: int, *, added: Object | None = None, removed: Object | None = None) -> Object:
    def listed(entry: Object | None) -> list[Object] | None:
        return None if entry is None else [entry]

    return {
        "event_id": event,
        "timestamp": now_ms,
        "added_devices": listed(added),
        "removed_devices": listed(removed),
    }


def membership_detail(event: str, now_ms: int, devices: Iterable[Object]) -> Object:
    return {"event_id": event, "timestamp": now_ms, "devices": list(devices)}


def twins_update(event: str, now_ms: int, device: Object, before: Object) -> Object:
    """What is wanted of a device; twins that it had ``before`` and has no longer are marked."""
    twins, old = _twins(device, now_ms), _twins(before, now_ms)
    for name, twin in old.items():
        if name not in twins:
            twins[name] = {**twin, "metadata": {"type": "deleted"}}
    return {"event_id": event, "timestamp": now_ms, "twin": dict(sorted(twins.items()))}


def _twins(device: Object, now_ms: int) -> dict[str, Object]:
    version = version_number(device["metadata"].get("resourceVersion"))
    found = {}
    for twin in (to_v1alpha2(device).get("status") or {}).get("twins") or ():
        desired = twin.get("desired") or {}
        type_ = (desired.get("metadata") or {}).get("type") or _STRING
        found[str(twin.get("propertyName") or "")] = {
            "expected": {"value": desired.get("value") or "", "metadata": {"timestamp": now_ms}},
            "optional": False,
            "metadata": {"type": type_},
            "expected_version": {"cloud": version, "edge": 0},
        }
    return dict(sorted(found.items()))
