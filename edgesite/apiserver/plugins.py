"""Built-in admission: priorities, tolerations and runtime classes of pods.

Errors  ApiError Forbidden.
State   None; looks into the store.
Source  Kubernetes: Admission control (Priority, DefaultTolerationSeconds, RuntimeClass).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesite.kube import defaults, errors, json
from edgesite.kube.resources import PRIORITY_CLASSES, RUNTIME_CLASSES, Resource

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kinds
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.store.store import Store

__all__ = ["DefaultTolerations", "Priorities", "RuntimeClasses"]

Object = dict[str, Any]


class _NewPods:
    """Wants pods that are created."""

    mutating = True

    def __init__(self, store: Store, kinds: Kinds) -> None:
        self._store = store
        self._kinds = kinds

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return operation == "CREATE" and resource.plural == "pods" and not resource.group and not subresource

    def _get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        row = self._store.latest(self._kinds.of(resource).key(namespace, name))
        return None if row is None else json.loads(row.value)


class Priorities(_NewPods):
    """Turns the name of a priority class into a number."""

    name = "Priority"

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError (Forbidden)."""
        spec = (request.object or {}).setdefault("spec", {})
        name = spec.get("priorityClassName")
        found = self._get(PRIORITY_CLASSES, "", name) if name else self._default()
        if name and found is None:
            raise errors.forbidden("pods", request.name, f"no PriorityClass with name {name} was found")
        value = found.get("value", 0) if found else 0
        if spec.get("priority") is not None and spec["priority"] != value:
            why = f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
            raise errors.forbidden("pods", request.name, why)
        spec["priority"] = value
        if found and not name:
            spec["priorityClassName"] = found["metadata"]["name"]
        spec["preemptionPolicy"] = (found or {}).get("preemptionPolicy") or "PreemptLowerPriority"

    def _default(self) -> Object | None:
        """The class that pods without one get: the lowest of those marked as global default."""
        rows = self._store.list(self._kinds.of(PRIORITY_CLASSES).prefix).rows
        classes = [json.loads(row.value) for row in rows if b'"globalDefault":true' in row.value]
        return min(
            (one for one in classes if one.get("globalDefault")), key=lambda one: one.get("value", 0), default=None
        )


class DefaultTolerations(_NewPods):
    """Pods bear a node that is not ready or out of reach for a while."""

    name = "DefaultTolerationSeconds"

    def admit(self, request: AdmissionRequest) -> None:
        defaults.add_default_tolerations(request.object or {})


class RuntimeClasses(_NewPods):
    """What a runtime class costs on top, and which nodes have it, becomes part of its pods."""

    name = "RuntimeClass"

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError (Forbidden)."""
        spec: Object = (request.object or {}).setdefault("spec", {})
        name = spec.get("runtimeClassName")
        found = self._get(RUNTIME_CLASSES, "", name) if name else None
        if name and found is None:
            why = f"pod rejected: RuntimeClass {json.dumps(name).decode()} not found"
            raise errors.forbidden("pods", request.name, why)
        fixed = ((found or {}).get("overhead") or {}).get("podFixed") or {}
        if spec.get("overhead") and spec["overhead"] != fixed:
            why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
            if found is None:
                why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            raise errors.forbidden("pods", request.name, why)
        if fixed:
            spec["overhead"] = dict(fixed)
        if found is not None:
            self._place(request, spec, found.get("scheduling") or {})

    def _place(self, request: AdmissionRequest, spec: Object, scheduling: Object) -> None:
        wanted, own = scheduling.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
        clash = sorted(key for key in wanted.keys() & own.keys() if wanted[key] != own[key])
        if clash:
            why = f"pod rejected: conflict: runtimeClass.scheduling.nodeSelector[{clash[0]}] = {wanted[clash[0]]}; pod.spec.nodeSelector[{clash[0]}] = {own[clash[0]]}"
            raise errors.forbidden("pods", request.name, why)
        if wanted:
            spec["nodeSelector"] = own | wanted
        tolerations = spec.get("tolerations") or []
        more = [one for one in scheduling.get("tolerations") or () if one not in tolerations]
        if more:
            spec["tolerations"] = [*tolerations, *more]
