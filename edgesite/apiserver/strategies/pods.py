"""Pods: status at creation, graceful deletion, QoS class, binding to a node.

Units   Grace periods are seconds.
Errors  ApiError.
State   None.
Source  Kubernetes: Pod lifecycle (phases, termination), Pod quality of service classes, PodSpec reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edgesite.apiserver.strategies.base import Strategy, Write
from edgesite.kube import errors, quantity, times

__all__ = ["DEFAULT_GRACE_S", "PodStrategy", "bind", "qos_class"]

Object = dict[str, Any]
DEFAULT_GRACE_S: Final = 30
_TERMINAL: Final = ("Succeeded", "Failed")
_QOS_RESOURCES: Final = ("cpu", "memory")


def qos_class(spec: Object) -> str:
    """Return Guaranteed, Burstable or BestEffort for a PodSpec whose quantities are valid."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    any_set, guaranteed = False, True
    for container in containers:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in _QOS_RESOURCES:
            limit, request = _amount(limits.get(name)), _amount(requests.get(name))
            any_set = any_set or bool(limit or request)
            if not limit or (request is not None and request != limit):
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amount(text: Any) -> Any:
    """The quantity, or None where there is none or it is no quantity (validation says so later)."""
    if text is None:
        return None
    try:
        return quantity.parse(str(text))
    except ValueError:
        return None


@dataclass(slots=True)
class PodStrategy(Strategy):
    returns_deleted: bool = True

    def prepare_create(self, write: Write, obj: Object) -> None:
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj.get("spec") or {})}
        if (obj.get("spec") or {}).get("schedulingGates"):
            condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
            obj["status"]["conditions"] = [
                {**condition, "message": "Scheduling is blocked due to non-empty scheduling gates"}
            ]

    def prepare_status(self, write: Write, old: Object, new: Object) -> None:
        Strategy.prepare_status(self, write, old, new)
        new.setdefault("status", {})
        if "qosClass" in old.get("status", {}):
            new["status"]["qosClass"] = old["status"]["qosClass"]
        owners = old["metadata"].get("ownerReferences")
        if owners is not None:
            new["metadata"]["ownerReferences"] = owners
        else:
            new["metadata"].pop("ownerReferences", None)

    def prepare_other(self, write: Write, old: Object, new: Object) -> None:
        if write.subresource == "ephemeralcontainers":
            given = (new.get("spec") or {}).get("ephemeralContainers")
            new["spec"] = {**old.get("spec", {}), "ephemeralContainers": given}
        elif write.subresource == "resize":
            self._take_resources(old, new)
        self.prepare_update(write, old, new)

    def _take_resources(self, old: Object, new: Object) -> None:
        """Only resources and resizePolicy of containers may come from a resize."""
        spec = dict(old.get("spec", {}))
        for field in ("containers", "initContainers"):
            given = {one.get("name"): one for one in (new.get("spec") or {}).get(field) or ()}
            if field in spec:
                spec[field] = [_resized(one, given.get(one.get("name"), one)) for one in spec[field]]
        new["spec"] = spec

    def grace_s(self, write: Write, obj: Object, asked: int | None) -> int | None:
        spec, status = obj.get("spec", {}), obj.get("status", {})
        grace = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S) if asked is None else asked
        if not spec.get("nodeName") or status.get("phase") in _TERMINAL:
            return 0
        return max(int(grace), 0) if grace >= 0 else 1


def _resized(old: Object, given: Object) -> Object:
    kept = {key: value for key, value in old.items() if key not in ("resources", "resizePolicy")}
    return kept | {key: given[key] for key in ("resources", "resizePolicy") if key in given}


def bind(pod: Object, binding: Object, now_s: float) -> None:
    """Apply a Binding to a pod. Raises ApiError."""
    metadata, spec = pod["metadata"], pod["spec"]
    name = metadata["name"]
    target = binding.get("target") or {}
    wanted = target.get("name")
    if not wanted or target.get("kind", "Node") not in ("", "Node"):
        raise errors.invalid(
            "Binding", name, [{"reason": "FieldValueRequired", "message": "Required value", "field": "target.name"}]
        )
    uid = (binding.get("metadata") or {}).get("uid")
    if uid and uid != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
        raise errors.conflict("pods/binding", name, why)
    if metadata.get("deletionTimestamp"):
        raise errors.conflict("pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise errors.conflict("pods/binding", name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise errors.conflict("pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
    spec["nodeName"] = wanted
    for field in ("annotations", "labels"):
        if given := (binding.get("metadata") or {}).get(field):
            metadata[field] = {**(metadata.get(field) or {}), **given}
    status = pod.setdefault("status", {})
    conditions = [one for one in status.get("conditions") or () if one.get("type") != "PodScheduled"]
    generation = {"observedGeneration": metadata["generation"]} if metadata.get("generation") else {}
    scheduled = {"type": "PodScheduled", **generation, "status": "True", "lastProbeTime": None}
    status["conditions"] = [*conditions, {**scheduled, "lastTransitionTime": times.format_time(now_s)}]
