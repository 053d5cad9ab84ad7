"""The StatefulSet controller as a module.

Units   Times are seconds.
Errors  ApiError from the API goes to the work queue, which retries.
State   Expectations, in memory; all else is in the API. Claims are made and never deleted: they hold the data.
Source  kube-controller-manager's statefulset controller (behaviour, event reasons and messages).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from edgesite.client import Controller, ObjectKey, Result, TerminalError, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.expectations import Expectations
from edgesite.controlplane.history import HASH_LABEL, History, name_of, template_of
from edgesite.controlplane.ownership import Claimer, index_by_controller
from edgesite.controlplane.podcontrol import OwnerQueue, PodControl, namespace_is_ending
from edgesite.controlplane.pods import is_terminating
from edgesite.controlplane.statefulset.plan import claims_for, ordinal_of, plan, template_for
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from edgesite.kube.selectors import InvalidSelector, from_object

__all__ = ["StatefulSetController", "StatefulSetModule"]

Object = dict[str, Any]


class StatefulSetModule(ControlPlaneModule):
    """Keeps the pods of stateful sets."""

    name = "statefulset"
    component = "statefulset-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await StatefulSetController(cluster).run(ready)


class StatefulSetController:
    """Reconciles one set at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._clock = ctx.clock
        self._client = cluster.client
        self._sets = cluster.informers.of(STATEFUL_SETS)
        self._pods = cluster.informers.of(PODS)
        self._revisions = cluster.informers.of(CONTROLLER_REVISIONS)
        for informer in (self._pods, self._revisions):
            index_by_controller(informer)
        self._history = History(cluster.client, STATEFUL_SETS)
        self._control = PodControl(cluster.client, cluster.recorder, STATEFUL_SETS, self._pods, Expectations(ctx.clock))
        self._controller = Controller("statefulset", self.reconcile, ctx.clock, ctx.random, workers=2, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(self._sets.on_change(lambda one: self._controller.queue.add(key_of(one))))
            owners = OwnerQueue(self._control, self._controller.queue, self._adopters)
            handlers.enter_context(self._pods.add_handler(owners.seen, owners.changed, owners.gone))
            await self._controller.run((self._sets, self._pods, self._revisions), ready=ready)

    def _adopters(self, pod: Object) -> list[ObjectKey]:
        """Sets that an orphan may belong to by its name."""
        sets = self._sets.list(pod["metadata"].get("namespace") or "")
        return [key_of(one) for one in sets if ordinal_of(one, pod) is not None]

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Take the next step, then write the status. Raises ApiError, TerminalError."""
        one = self._sets.by_key(key)
        if one is None:
            self._control.expectations.forget(key)
            return None
        if is_terminating(one):
            return None
        try:
            selector = from_object(one["spec"].get("selector"))
        except InvalidSelector as exc:
            raise TerminalError(str(exc)) from exc
        if waits_s := self._control.expectations.pending_s(key):
            return Result(waits_s)
        pods = await Claimer(self._client, one, STATEFUL_SETS, selector).claim(self._pods)
        revisions = await Claimer(self._client, one, STATEFUL_SETS, selector).claim(self._revisions)
        newest = await self._history.settle(one, revisions)
        if newest is None:
            return None
        now = self._clock.time()
        step = plan(one, pods, name_of(newest), now)
        for pod in step.delete:
            await self._control.delete(one, pod)
        current = self._current(one, revisions, newest)
        for ordinal, is_new in step.create:
            await self._create(key, one, ordinal, newest if is_new else current)
        in_use = {
            name_of(newest),
            name_of(current),
            *((pod["metadata"].get("labels") or {}).get(HASH_LABEL, "") for pod in pods),
        }
        await self._report(one, step.counts, newest if step.complete else current, newest)
        await self._history.trim(one, revisions, in_use)
        return Result(step.next_at - now) if step.next_at is not None else None

    @staticmethod
    def _current(one: Object, revisions: list[Object], newest: Object) -> Object:
        """Return the revision that was complete last; the newest where there has been none."""
        name = (one.get("status") or {}).get("currentRevision")
        return next((each for each in revisions if each["metadata"]["name"] == name), newest)

    async def _create(self, key: ObjectKey, one: Object, ordinal: int, revision: Object) -> None:
        name = f"{key.name}-{ordinal}"
        try:
            for claim in claims_for(one, ordinal):
                await self._claim(claim)
            template = template_for(one, template_of(revision), ordinal, name_of(revision))
            await self._control.create(one, template, name=name)
        except ApiError as exc:
            if not namespace_is_ending(exc):
                raise

    async def _claim(self, claim: Object) -> None:
        try:
            await self._client.create(PERSISTENT_VOLUME_CLAIMS, claim)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":  # it holds the data of an earlier pod of that name
                raise

    async def _report(self, one: Object, counts: dict[str, int], current: Object, newest: Object) -> None:
        old = one.get("status") or {}
        if current is newest:
            counts = {**counts, "currentReplicas": counts["updatedReplicas"]}
        status: Object = {
            **old,
            **counts,
            "currentRevision": name_of(current),
            "updateRevision": name_of(newest),
            "observedGeneration": one["metadata"].get("generation", 0),
        }
        required = {"replicas", "availableReplicas"}
        status = {name: value for name, value in status.items() if value or name in required}
        if status != old:
            await self._client.update_status(STATEFUL_SETS, {**one, "status": status})
