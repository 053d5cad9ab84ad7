"""Built-in admission: service accounts, priorities and tolerations of pods.

Errors  ApiError Forbidden.
State   None; looks into the store.
Source  Kubernetes: Admission control (ServiceAccount, Priority, DefaultTolerationSeconds).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.kube import defaults, errors, json
from edgesite.kube.resources import PRIORITY_CLASSES, SERVICE_ACCOUNTS, Resource

if TYPE_CHECKING:
    from edgesite.apiserver.kinds import Kinds
    from edgesite.hookspecs import AdmissionRequest
    from edgesite.store.store import Store

__all__ = ["DefaultTolerations", "Priorities", "ServiceAccounts"]

Object = dict[str, Any]
DEFAULT_ACCOUNT: Final = "default"


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


class ServiceAccounts(_NewPods):
    """Every pod runs as a service account of its namespace; "default" is made by a controller and may still be on its way."""

    name = "ServiceAccount"

    def admit(self, request: AdmissionRequest) -> None:
        """Raises ApiError (Forbidden)."""
        pod: Object = request.object or {}
        spec = pod.setdefault("spec", {})
        if "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {}):
            return
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = self._get(SERVICE_ACCOUNTS, request.namespace, name)
        if account is None:
            if name != DEFAULT_ACCOUNT:
                why = f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found'
                raise errors.forbidden("pods", request.name, why)
            return
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = account["imagePullSecrets"]


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
