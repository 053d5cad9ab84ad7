"""The ReplicaSet controller as a module, and the same for ReplicationControllers, its forerunners.

Units   Times are seconds.
Errors  ApiError from the API goes to the work queue, which retries.
State   Expectations, in memory; all else is in the API.
Source  kube-controller-manager's replicaset controller (behaviour, event and condition reasons).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from edgesite.client import Controller, ObjectKey, Result, TerminalError, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.expectations import Expectations
from edgesite.controlplane.ownership import Claimer, index_by_controller, owned_by
from edgesite.controlplane.ownwrites import OwnWrites
from edgesite.controlplane.podcontrol import BURST, OwnerQueue, PodControl, in_parallel, namespace_is_ending, slow_start
from edgesite.controlplane.pods import available_at, condition, controller_of, is_active, is_ready, is_terminating
from edgesite.controlplane.replicaset.deletion import to_delete
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from edgesite.kube.selectors import NOTHING, InvalidSelector, from_labels, from_object
from edgesite.kube.times import format_time

if TYPE_CHECKING:
    from edgesite.kube.resources import Resource
    from edgesite.kube.selectors import LabelSelector

__all__ = ["ReplicaSetController", "ReplicaSetModule", "ReplicationControllerModule"]

Object = dict[str, Any]


class ReplicaSetModule(ControlPlaneModule):
    """Keeps the pods of replica sets."""

    name = "replicaset"
    component = "replicaset-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await ReplicaSetController(cluster, REPLICA_SETS, _selector).run(ready)


class ReplicationControllerModule(ControlPlaneModule):
    """Keeps the pods of replication controllers."""

    name = "replicationcontroller"
    component = "replication-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await ReplicaSetController(cluster, REPLICATION_CONTROLLERS, _plain_selector).run(ready)


def _selector(one: Object) -> LabelSelector:
    """Raises InvalidSelector."""
    return from_object(one["spec"].get("selector"))


def _plain_selector(one: Object) -> LabelSelector:
    labels = one["spec"].get("selector")
    return from_labels(labels) if labels else NOTHING


class ReplicaSetController:
    """Reconciles one object at a time: a replica set, or another kind whose spec and status are as its."""

    def __init__(self, cluster: Cluster, resource: Resource, selector_of: Callable[[Object], LabelSelector]) -> None:
        """``selector_of`` reads the selector of an object and may raise InvalidSelector."""
        ctx = cluster.ctx
        self._resource = resource
        self._selector_of = selector_of
        self._clock = ctx.clock
        self._client = cluster.client
        self._sets = cluster.informers.of(resource)
        self._pods = cluster.informers.of(PODS)
        for informer in (self._sets, self._pods):
            index_by_controller(informer)
        self._own = OwnWrites(self._sets)
        self._control = PodControl(cluster.client, cluster.recorder, resource, self._pods, Expectations(ctx.clock))
        self._controller = Controller(
            resource.kind.lower(), self.reconcile, ctx.clock, ctx.random, workers=5, log=ctx.log
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(self._sets.add_handler(self._set_seen, self._set_changed, self._set_gone))
            owners = OwnerQueue(self._control, self._controller.queue, self._matching)
            handlers.enter_context(self._pods.add_handler(owners.seen, owners.changed, owners.gone))
            await self._controller.run((self._sets, self._pods), ready=ready)

    def _set_seen(self, one: Object) -> None:
        self._controller.queue.add(key_of(one), low=not self._sets.has_synced)

    def _set_changed(self, old: Object, new: Object) -> None:
        self._controller.queue.add(key_of(new))

    def _set_gone(self, one: Object) -> None:
        self._control.expectations.forget(key_of(one))
        self._controller.queue.add(key_of(one))

    def _matching(self, pod: Object) -> list[ObjectKey]:
        """Replica sets that may want to adopt an orphan."""
        found = []
        for one in self._sets.list(pod["metadata"].get("namespace") or ""):
            try:
                if self._selector_of(one).matches(pod["metadata"].get("labels")):
                    found.append(key_of(one))
            except InvalidSelector:
                continue
        return found

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Make the number of pods right, then the status. Raises ApiError, TerminalError."""
        one = self._own.newest(key)
        if one is None:
            return None
        try:
            selector = self._selector_of(one)
        except InvalidSelector as exc:
            raise TerminalError(str(exc)) from exc
        waits_s = self._control.expectations.pending_s(key)
        pods = [
            pod
            for pod in await Claimer(self._client, one, self._resource, selector).claim(self._pods)
            if is_active(pod)
        ]
        error = None
        if not waits_s and not is_terminating(one):
            error = await self._adjust(one, pods)
        soon_s = await self._report(one, pods, error)
        if error is not None and not namespace_is_ending(error):
            raise error
        again = [wait_s for wait_s in (waits_s, soon_s) if wait_s]
        return Result(min(again)) if again else None

    async def _adjust(self, one: Object, pods: list[Object]) -> ApiError | None:
        missing = int(one["spec"].get("replicas", 1)) - len(pods)
        if missing > 0:
            template = one["spec"]["template"]
            return await slow_start(min(missing, BURST), lambda: self._control.create(one, template))
        if missing < 0:
            now = self._clock.time()
            going = to_delete(pods, self._related(one, pods), min(-missing, BURST), now)
            return await in_parallel([lambda pod=pod: self._control.delete(one, pod) for pod in going])  # type: ignore[misc]
        return None

    def _related(self, one: Object, pods: list[Object]) -> list[Object]:
        """All pods of the Deployment that the set belongs to, or its own."""
        owner = controller_of(one)
        if owner is None:
            return pods
        return [
            pod
            for sibling in owned_by(self._sets, owner["uid"])
            for pod in owned_by(self._pods, sibling["metadata"]["uid"])
        ]

    async def _report(self, one: Object, pods: list[Object], error: ApiError | None) -> float:
        """Write the status if it changed; returns the seconds until the next pod counts as available, 0.0 for none."""
        spec, old = one["spec"], one.get("status") or {}
        now = self._clock.time()
        min_ready_s = int(spec.get("minReadySeconds") or 0)
        times = [at for pod in pods if (at := available_at(pod, min_ready_s)) is not None]
        labels = (spec["template"].get("metadata") or {}).get("labels") or {}
        status: Object = {
            "replicas": len(pods),
            "fullyLabeledReplicas": sum(
                labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in pods
            ),
            "readyReplicas": sum(is_ready(pod) for pod in pods),
            "availableReplicas": sum(at <= now for at in times),
        }
        status = {name: count for name, count in status.items() if count or name == "replicas"}
        status["observedGeneration"] = one["metadata"].get("generation", 0)
        conditions = self._conditions(one, error, len(pods))
        if conditions:
            status["conditions"] = conditions
        if status != {name: value for name, value in old.items() if name in _OURS and (value or name == "replicas")}:
            others = {name: value for name, value in old.items() if name not in _OURS}
            self._own.wrote(await self._client.update_status(self._resource, {**one, "status": {**others, **status}}))
        return min((at - now for at in times if at > now), default=0.0)

    def _conditions(self, one: Object, error: ApiError | None, count: int) -> list[Object]:
        kept = [
            cond for cond in (one.get("status") or {}).get("conditions") or () if cond.get("type") != "ReplicaFailure"
        ]
        failed = condition(one, "ReplicaFailure")
        if error is None:
            return kept
        reason = "FailedDelete" if count > int(one["spec"].get("replicas", 1)) else "FailedCreate"
        if failed is None or failed.get("reason") != reason:  # messages may differ by a generated name each time
            failed = {
                "type": "ReplicaFailure",
                "status": "True",
                "lastTransitionTime": format_time(self._clock.time()),
                "reason": reason,
                "message": str(error),
            }
        return [*kept, dict(failed)]


_OURS = frozenset(
    {"replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration", "conditions"}
)
