"""Facts about pods that several controllers need. Pure functions on API objects.

Units   CPU in milli, everything else in its base unit (bytes, pieces); times are seconds since the epoch.
Source  core/v1 Pod; Kubernetes' rules for effective requests (init and sidecar containers, overhead, pod-level resources).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgesite.kube import quantity
from edgesite.kube.times import parse_time

__all__ = [
    "amounts",
    "available_at",
    "condition",
    "controller_of",
    "is_active",
    "is_ready",
    "is_terminal",
    "is_terminating",
    "ready_since",
    "requests",
]

Object = Mapping[str, Any]


def condition(obj: Object, kind: str) -> Mapping[str, Any] | None:
    """Return the status condition of that type."""
    for one in (obj.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind:
            return one  # type: ignore[no-any-return]
    return None


def is_terminal(pod: Object) -> bool:
    """It ran and will not run again."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_terminating(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def is_active(pod: Object) -> bool:
    """It runs, or may yet run: it counts as a replica."""
    return not is_terminal(pod) and not is_terminating(pod)


def is_ready(pod: Object) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def ready_since(pod: Object) -> float:
    """When it became ready; 0.0 when that is not known. Only for ready pods."""
    ready = condition(pod, "Ready") or {}
    stamp = ready.get("lastTransitionTime")
    return parse_time(stamp) if stamp else 0.0


def available_at(pod: Object, min_ready_s: int) -> float | None:
    """When a pod counts as available, which may be ahead; None while it is not ready."""
    if not is_ready(pod):
        return None
    return ready_since(pod) + min_ready_s if min_ready_s else 0.0


def controller_of(obj: Object) -> Mapping[str, Any] | None:
    """Return the owner reference of the controller that manages the object."""
    for one in obj["metadata"].get("ownerReferences") or ():
        if one.get("controller"):
            return one  # type: ignore[no-any-return]
    return None


def amounts(resources: Mapping[str, Any] | None) -> dict[str, int]:
    """Return a resource list as integers, rounded up. Raises quantity.InvalidQuantity."""
    return {
        name: quantity.parse(value).milli_value() if name == "cpu" else quantity.parse(value).value()
        for name, value in (resources or {}).items()
    }


def requests(spec: Object) -> dict[str, int]:
    """Return what a pod needs at its peak: containers and sidecars together, or its largest init step, and overhead."""
    total = _sum(_requested(one) for one in spec.get("containers") or ())
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for one in spec.get("initContainers") or ():
        needed = _sum((sidecars, _requested(one)))
        if one.get("restartPolicy") == "Always":
            sidecars = needed
        peak = _most(peak, needed)
    total = _most(_sum((total, sidecars)), peak)
    pod_level = (spec.get("resources") or {}).get("requests")
    if pod_level:
        total.update(amounts(pod_level))
    return _sum((total, amounts(spec.get("overhead"))))


def _requested(container: Object) -> dict[str, int]:
    return amounts((container.get("resources") or {}).get("requests"))


def _sum(lists: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in lists:
        for name, amount in one.items():
            total[name] = total.get(name, 0) + amount
    return total


def _most(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    return {name: max(first.get(name, 0), second.get(name, 0)) for name in {**first, **second}}
