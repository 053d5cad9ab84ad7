"""Subresources: status, scale, binding, eviction, finalize, log, exec, proxy and others, by name and verb.

Errors  ApiError.
State   None.
Source  API reference: Scale (autoscaling/v1), Binding, Eviction (policy/v1); API-initiated eviction.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from edgesite.apiserver.call import Call, answer
from edgesite.apiserver.scales import Scales
from edgesite.apiserver.strategies.pods import bind
from edgesite.kube import errors, json, selectors, times
from edgesite.kube.errors import ApiError
from edgesite.kube.options import DeleteOptions
from edgesite.kube.resources import POD_DISRUPTION_BUDGETS, PODS

if TYPE_CHECKING:
    from edgesite.apiserver.connect import Connections
    from edgesite.apiserver.logs import NodeRoads
    from edgesite.apiserver.registry import Registry
    from edgesite.apiserver.tokenrequests import TokenRequests
    from edgesite.apiserver.writes import Writes
    from edgesite.net.http import Response

__all__ = ["Subresources"]

Object = dict[str, Any]
Handler = Callable[[Call], Coroutine[Any, Any, "Response | None"]]
BINDINGS: Final = "bindings"
_TERMINAL: Final = ("Succeeded", "Failed")


class Subresources:
    """Finds who answers for a subresource."""

    def __init__(
        self, registry: Registry, writes: Writes, roads: NodeRoads, connections: Connections, tokens: TokenRequests
    ) -> None:
        self._registry = registry
        self._writes = writes
        self._scales = Scales(registry, writes)
        self._handlers: dict[tuple[str, str], Handler] = {
            ("status", "get"): self._get,
            ("status", "update"): writes.update,
            ("status", "patch"): writes.patch,
            ("approval", "get"): self._get,
            ("approval", "update"): writes.update,
            ("approval", "patch"): writes.patch,
            ("ephemeralcontainers", "get"): self._get,
            ("ephemeralcontainers", "update"): writes.update,
            ("ephemeralcontainers", "patch"): writes.patch,
            ("resize", "get"): self._get,
            ("resize", "update"): writes.update,
            ("resize", "patch"): writes.patch,
            ("finalize", "update"): writes.update,
            ("scale", "get"): self._scales.get,
            ("scale", "update"): self._scales.update,
            ("scale", "patch"): self._scales.patch,
            ("binding", "create"): self.bind,
            ("eviction", "create"): self._evict,
            ("log", "get"): roads.log,
            ("token", "create"): tokens.create,
        }
        for verb in ("get", "create"):  # of WebSocket and of SPDY
            for what in ("exec", "attach", "portforward"):
                self._handlers[what, verb] = connections.answer
        self._handlers.update({("proxy", verb): roads.proxy for verb in ("get", "create", "update", "patch", "delete")})

    def find(self, name: str, verb: str) -> Handler | None:
        return self._handlers.get((name, verb))

    async def _get(self, call: Call) -> Response:
        route = call.route
        return self._writes.render(call, self._registry.row(call.kind, route.namespace, route.name))

    async def bind(self, call: Call) -> Response:
        """Bind a pod to a node: of /pods/NAME/binding and of /bindings. Raises ApiError."""
        options = self._writes.options(call)
        binding, _ = await self._writes.body(call)
        if not isinstance(binding, dict) or not (
            isinstance(binding.get("target"), dict | None) and isinstance(binding.get("metadata"), dict | None)
        ):
            raise errors.bad_request("the body of the request must be a Binding")
        write = self._writes.begin(call, options)
        write.operation, write.subresource = "UPDATE", "binding"
        if call.kind.resource.plural == BINDINGS:  # the old way: posted as objects of their own
            write.kind = self._registry.kinds.of(PODS)
            write.name = str((binding.get("metadata") or {}).get("name") or "")

        def change(old: Object) -> Object:
            pod = copy.deepcopy(old)
            bind(pod, binding, write.now_s)
            return pod

        await self._registry.change(write, change)
        return self._success(call)

    def _success(self, call: Call, code: int = 201) -> Response:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}
        return answer(call.request, json.dumps(status), status=code, warnings=call.warnings)

    async def _evict(self, call: Call) -> Response:
        """Delete a pod unless a disruption budget forbids it. Raises ApiError."""
        eviction, _ = await self._writes.body(call)
        if not isinstance(eviction, dict) or not isinstance(eviction.get("metadata"), dict | None):
            raise errors.bad_request("the body of the request must be an Eviction")
        name = (eviction.get("metadata") or {}).get("name") or call.route.name
        if name != call.route.name:
            raise errors.bad_request("name in URL does not match name in Eviction object")
        options = DeleteOptions.of(call.request.query if call.request.raw_query else {}, eviction.get("deleteOptions"))
        write = self._writes.begin(call, self._writes.options(call))
        write.operation, write.dry_run = "DELETE", write.dry_run or options.dry_run
        pod = self._registry.find(call.kind, write.namespace, write.name)
        if (
            pod is not None
            and pod.get("status", {}).get("phase") not in _TERMINAL
            and not pod["metadata"].get("deletionTimestamp")
        ):
            await self._spend_budget(call, pod, write.dry_run)
        await self._registry.delete(write, options)
        return self._success(call)

    async def _spend_budget(self, call: Call, pod: Object, dry_run: bool) -> None:
        """Take one disruption of the budget that covers the pod. Raises ApiError (TooManyRequests)."""
        kind = self._registry.kinds.of(POD_DISRUPTION_BUDGETS)
        namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
        budgets = [json.loads(row.value) for row in self._registry.store.list(kind.collection(namespace)).rows]
        covering = [one for one in budgets if _covers(one, labels)]
        if len(covering) > 1:
            raise errors.internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        if not covering:
            return
        budget = covering[0]
        name, pod_name = budget["metadata"]["name"], pod["metadata"]["name"]
        _check_allowance(budget)
        if dry_run:
            return
        write = self._writes.begin(call, self._writes.options(call))
        write.kind, write.name, write.subresource = kind, name, "status"

        def change(old: Object) -> Object:
            _check_allowance(old)  # another eviction may have taken the last one since it was looked at
            new = copy.deepcopy(old)
            status = new["status"]
            status["disruptionsAllowed"] -= 1
            status.setdefault("disruptedPods", {})[pod_name] = times.format_time(write.now_s)
            return new

        await self._registry.change(write, change)


def _check_allowance(budget: Object) -> None:
    """Raises ApiError (TooManyRequests) if no disruption is allowed."""
    if (budget.get("status") or {}).get("disruptionsAllowed", 0) > 0:
        return
    name = budget["metadata"]["name"]
    cause = {
        "reason": "DisruptionBudget",
        "message": f"The disruption budget {name} needs more healthy pods than there are",
    }
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    raise ApiError(429, "TooManyRequests", message, {"causes": [cause]})


def _covers(budget: Object, labels: dict[str, str]) -> bool:
    try:
        return selectors.from_object((budget.get("spec") or {}).get("selector")).matches(labels)
    except selectors.InvalidSelector:
        return False
