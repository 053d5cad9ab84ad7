"""The DaemonSet controller as a module.

Units   Times are seconds.
Errors  ApiError from the API goes to the work queue, which retries.
State   Expectations and the back-off of pods that fail, in memory; all else is in the API.
Source  kube-controller-manager's daemonset controller (behaviour, event reasons).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from edgesite.client import Controller, ObjectKey, RateLimiter, Result, TerminalError, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.daemonset.placement import plan, template_for
from edgesite.controlplane.expectations import Expectations
from edgesite.controlplane.history import HASH_LABEL, History, digest_of
from edgesite.controlplane.ownership import Claimer, index_by_controller
from edgesite.controlplane.podcontrol import BURST, OwnerQueue, PodControl, in_parallel, namespace_is_ending
from edgesite.controlplane.pods import is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from edgesite.kube.selectors import InvalidSelector, from_object

__all__ = ["DaemonSetController", "DaemonSetModule"]

FAILED_FIRST_S: Final = 1.0  #: before a pod that failed is replaced; doubles
FAILED_MOST_S: Final = 900.0
Object = dict[str, Any]


class DaemonSetModule(ControlPlaneModule):
    """Keeps daemons on nodes."""

    name = "daemonset"
    component = "daemonset-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await DaemonSetController(cluster).run(ready)


class DaemonSetController:
    """Reconciles one DaemonSet at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._clock = ctx.clock
        self._client, self._recorder = cluster.client, cluster.recorder
        self._sets = cluster.informers.of(DAEMON_SETS)
        self._pods = cluster.informers.of(PODS)
        self._nodes = cluster.informers.of(NODES)
        self._revisions = cluster.informers.of(CONTROLLER_REVISIONS)
        for informer in (self._pods, self._revisions):
            index_by_controller(informer)
        self._failures: RateLimiter[tuple[str, str]] = RateLimiter(
            ctx.clock, ctx.random, first_s=FAILED_FIRST_S, most_s=FAILED_MOST_S
        )
        self._replace_at: dict[tuple[str, str], float] = {}  # (uid of the set, node): when a failed pod may be replaced
        self._history = History(cluster.client, DAEMON_SETS)
        self._control = PodControl(cluster.client, cluster.recorder, DAEMON_SETS, self._pods, Expectations(ctx.clock))
        self._controller = Controller("daemonset", self.reconcile, ctx.clock, ctx.random, workers=2, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(
                self._sets.add_handler(self._set_seen, lambda old, new: self._set_seen(new), self._set_gone)
            )
            owners = OwnerQueue(self._control, self._controller.queue, self._adopters)
            handlers.enter_context(self._pods.add_handler(owners.seen, owners.changed, owners.gone))
            handlers.enter_context(
                self._nodes.add_handler(self._nodes_changed, self._node_changed, self._nodes_changed)
            )
            await self._controller.run((self._sets, self._pods, self._nodes, self._revisions), ready=ready)

    def _set_seen(self, one: Object) -> None:
        self._controller.queue.add(key_of(one))

    def _set_gone(self, one: Object) -> None:
        self._control.expectations.forget(key_of(one))
        uid = one["metadata"]["uid"]
        for key in [key for key in self._replace_at if key[0] == uid]:
            del self._replace_at[key]
            self._failures.forget(key)

    def _adopters(self, pod: Object) -> list[ObjectKey]:
        """Sets that may want to adopt an orphan."""
        return [key_of(one) for one in self._sets.list(pod["metadata"].get("namespace") or "")]

    def _nodes_changed(self, node: Object) -> None:
        for one in self._sets.list():
            self._controller.queue.add(key_of(one))

    def _node_changed(self, old: Object, new: Object) -> None:
        if old.get("spec") != new.get("spec") or old["metadata"].get("labels") != new["metadata"].get("labels"):
            self._nodes_changed(new)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Make the pods right, then the status. Raises ApiError, TerminalError."""
        one = self._sets.by_key(key)
        if one is None or is_terminating(one):
            return None
        try:
            selector = from_object(one["spec"].get("selector"))
        except InvalidSelector as exc:
            raise TerminalError(str(exc)) from exc
        if waits_s := self._control.expectations.pending_s(key):
            return Result(waits_s)
        pods = await Claimer(self._client, one, DAEMON_SETS, selector).claim(self._pods)
        revisions = await Claimer(self._client, one, DAEMON_SETS, selector).claim(self._revisions)
        current = await self._history.settle(one, revisions)
        if current is None:
            return None
        digest = digest_of(current)
        now = self._clock.time()
        made = plan(one, self._nodes.list(), pods, digest, now)
        soon_s = await self._clear_failed(key, one, made.failed)
        error = await self._apply(one, made.create, made.delete, digest)
        await self._report(one, made.counts)
        in_use = {digest, *((pod["metadata"].get("labels") or {}).get(HASH_LABEL, "") for pod in pods)}
        await self._history.trim(one, revisions, in_use)
        if error is not None and not namespace_is_ending(error):
            raise error
        again = [wait_s for wait_s in (soon_s, made.next_at - now if made.next_at else None) if wait_s]
        return Result(min(again)) if again else None

    async def _clear_failed(self, key: ObjectKey, one: Object, failed: list[Object]) -> float | None:
        """Delete pods that ended, each node's not too often; returns the seconds until the next may go."""
        soonest: float | None = None
        for pod in failed:
            place = (one["metadata"]["uid"], str(pod["spec"].get("nodeName") or ""))
            now = self._clock.monotonic()
            due = self._replace_at.get(place)
            if due is None:
                due = self._replace_at[place] = now + self._failures.when(place)
            if due > now:
                soonest = due - now if soonest is None else min(soonest, due - now)
                continue
            del self._replace_at[place]
            text = f"Found failed daemon pod {key.namespace}/{pod['metadata']['name']} on node {place[1]}, will try to kill it"
            self._recorder.event(one, "Warning", "FailedDaemonPod", text)
            await self._control.delete(one, pod)
        return soonest

    async def _apply(self, one: Object, create: list[str], delete: list[Object], digest: str) -> ApiError | None:
        async def make(node: str) -> None:
            await self._control.create(one, template_for(one, node, digest))

        error = await in_parallel([partial(make, node) for node in create[:BURST]])
        return await in_parallel([partial(self._control.delete, one, pod) for pod in delete[:BURST]]) or error

    async def _report(self, one: Object, counts: dict[str, int]) -> None:
        old = one.get("status") or {}
        status: Object = {**old, **counts, "observedGeneration": one["metadata"].get("generation", 0)}
        required = {"desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled", "numberReady"}
        status = {name: value for name, value in status.items() if value or name in required}
        if status != old:
            await self._client.update_status(DAEMON_SETS, {**one, "status": status})
