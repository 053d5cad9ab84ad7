"""The scheduler as a module: follows nodes and pods, tries pending pods one by one, binds them, says why it cannot.

Units   Times are seconds.
Errors  A binding or a status that cannot be written is retried with back-off; nothing else can fail.
State   In memory; a restart reads everything from the API again.
Source  kube-scheduler (behaviour, event reasons and messages, the default schedulerName).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel

from edgesite.client import key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.persistentvolumes.matching import SELECTED_NODE, claims_of
from edgesite.controlplane.pods import condition, is_terminal, is_terminating
from edgesite.controlplane.scheduler import preemption
from edgesite.controlplane.scheduler.cache import Cache, NodeState, PodInfo
from edgesite.controlplane.scheduler.filters import NodeFilter
from edgesite.controlplane.scheduler.queue import Entry, SchedulingQueue
from edgesite.controlplane.scheduler.refusal import Refusal, refused_message
from edgesite.controlplane.scheduler.scores import rate
from edgesite.controlplane.scheduler.volumes import Volumes, selected_before
from edgesite.kube.errors import ApiError
from edgesite.kube.quantity import InvalidQuantity
from edgesite.kube.resources import (
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from edgesite.kube.selectors import InvalidSelector
from edgesite.kube.times import format_time

__all__ = ["Scheduler", "SchedulerModule"]

NAME: Final = "default-scheduler"
WRITES: Final = 16  #: bindings and status writes under way at once
WRITE_S: Final = 30.0
ENOUGH: Final = 100  #: with more nodes than this, a share of the fitting ones is enough to choose from
Object = dict[str, Any]
Write = Callable[[], Awaitable[None]]


class SchedulerModule(ControlPlaneModule):
    """Gives pods a node."""

    name = "scheduler"
    component = NAME

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await Scheduler(cluster).run(ready)


class Scheduler:
    """Tries pending pods in order; what a try decides counts at once, what it writes goes on beside the next try."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._clock, self._random, self._log = ctx.clock, ctx.random, ctx.log
        self._client, self._recorder = cluster.client, cluster.recorder
        self._pods = cluster.informers.of(PODS)
        self._nodes = cluster.informers.of(NODES)
        self._namespaces = cluster.informers.of(NAMESPACES)
        self._volumes = Volumes(
            *(cluster.informers.of(one) for one in (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES))
        )
        self._cache = Cache()
        self._queue = SchedulingQueue(ctx.clock, ctx.random)
        self._limit = anyio.Semaphore(WRITES)
        self._next = 0  # where the look at many nodes begins, so that all get their turn

    async def run(self, ready: Callable[[], None]) -> None:
        """Schedule until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(
                self._nodes.add_handler(self._node_seen, lambda old, new: self._node_seen(new), self._node_gone)
            )
            volumes = self._volumes
            for informer in (
                self._namespaces,
                self._nodes,
                self._pods,
                volumes.claims,
                volumes.volumes,
                volumes.classes,
            ):
                await informer.wait_synced()
            handlers.enter_context(volumes.claims.on_change(self._claim_changed))
            handlers.enter_context(volumes.volumes.on_change(lambda one: self._queue.changed(_waits_for_volumes)))
            handlers.enter_context(volumes.classes.on_change(lambda one: self._queue.changed(_waits_for_volumes)))
            handlers.enter_context(self._pods.add_handler(self._pod_seen, self._pod_changed, self._pod_gone))
            ready()
            async with anyio.create_task_group() as tasks:
                while True:
                    entry = await self._queue.pop()
                    write = self._try_guarded(entry)
                    if write is not None:
                        await self._limit.acquire()
                        tasks.start_soon(self._write, entry, write)
                    await anyio.lowlevel.checkpoint()

    # --- what the informers tell ---

    def _node_seen(self, node: Object) -> None:
        if self._cache.put_node(node):
            self._queue.changed()

    def _node_gone(self, node: Object) -> None:
        self._cache.drop_node(node["metadata"]["name"])

    def _claim_changed(self, claim: Object) -> None:
        """Pods that wait for this very claim are tried at once: it may have been bound for them."""
        name, namespace = claim["metadata"]["name"], claim["metadata"].get("namespace", "")
        for pod in self._pods.list(namespace):
            if _is_ours(pod) and name in claims_of(pod):
                self._queue.add(key_of(pod), pod["metadata"].get("uid", ""), int(pod["spec"].get("priority") or 0))

    def _pod_seen(self, pod: Object) -> None:
        if pod["spec"].get("nodeName"):
            self._placed(pod, news=True)
        elif _is_ours(pod):
            self._nominate_again(pod)
            self._queue.add(key_of(pod), pod["metadata"].get("uid", ""), int(pod["spec"].get("priority") or 0))

    def _pod_changed(self, old: Object, new: Object) -> None:
        uid = new["metadata"].get("uid", "")
        if new["spec"].get("nodeName"):
            labels = old["metadata"].get("labels"), new["metadata"].get("labels")
            self._placed(new, news=not old["spec"].get("nodeName") or labels[0] != labels[1])
        elif not _is_ours(new):
            self._queue.remove(uid)
            self._cache.unnominate(uid)
        elif not _is_ours(old) or _wish(old) != _wish(new):
            self._queue.add(key_of(new), uid, int(new["spec"].get("priority") or 0))

    def _pod_gone(self, pod: Object) -> None:
        uid = pod["metadata"].get("uid", "")
        self._queue.remove(uid)
        self._cache.drop_pod(uid)
        if pod["spec"].get("nodeName"):
            self._queue.changed()

    def _placed(self, pod: Object, *, news: bool) -> None:
        """``news``: the pod was not there before, or other selectors may match it now."""
        uid = pod["metadata"].get("uid", "")
        self._queue.remove(uid)
        freed = is_terminal(pod) and self._cache.is_placed(uid)
        self._cache.put_pod(pod)
        if freed:
            self._queue.changed()
        elif news:
            self._queue.changed(lambda entry: entry.waits_for_pods)

    def _nominate_again(self, pod: Object) -> None:
        """After a restart: room that was made for a pod stays reserved for it."""
        node = (pod.get("status") or {}).get("nominatedNodeName")
        if node:
            with suppress(InvalidQuantity, InvalidSelector):
                self._cache.nominate(PodInfo.of(pod), node)

    # --- one try ---

    def _try_guarded(self, entry: Entry) -> Write | None:
        """One pod that cannot be handled must not keep all others from being scheduled."""
        try:
            return self._try(entry)
        except Exception:
            self._log.exception("pod=%s cannot be scheduled", entry.key)
            self._queue.retry(entry)
            return None

    def _try(self, entry: Entry) -> Write | None:
        """Decide about a pod, count the decision, and return what is to be written."""
        obj = self._pods.by_key(entry.key)
        if obj is None or obj["metadata"].get("uid") != entry.uid or self._cache.is_placed(entry.uid):
            self._queue.remove(entry.uid)
            return None
        try:
            pod = PodInfo.of(obj)
        except (InvalidQuantity, InvalidSelector) as exc:
            self._queue.park(entry)
            return partial(self._report, obj, f"the pod cannot be read: {exc}")
        labels = {one["metadata"]["name"]: one["metadata"].get("labels") or {} for one in self._namespaces.list()}
        nodes = self._cache.nodes
        needs = self._volumes.needs(obj)
        entry.waits_for_volumes = bool(needs.problem or needs.bound or needs.unbound)
        if needs.problem and nodes:
            self._queue.park(entry)
            return partial(self._report, obj, f"0/{len(nodes)} nodes are available: {needs.problem}.")
        volumes = partial(self._volumes.judge, needs) if entry.waits_for_volumes else None
        judge = NodeFilter(pod, nodes, labels, volumes, needs.sole)
        fitting, refusals = self._look(pod, nodes, judge)
        if not fitting:
            return self._refused(entry, pod, nodes, judge, refusals)
        chosen = self._choose(pod, selected_before(needs, fitting) or fitting, nodes, labels)
        if needs.unbound:
            self._queue.park(entry)
            return partial(self._select_node, needs.unbound, chosen.name)
        self._cache.assume(pod, chosen.name)
        return partial(self._bind, entry, pod, chosen.name)

    def _look(
        self, pod: PodInfo, nodes: list[NodeState], judge: NodeFilter
    ) -> tuple[list[NodeState], dict[str, Refusal]]:
        fitting: list[NodeState] = []
        refusals: dict[str, Refusal] = {}
        enough = max(ENOUGH, len(nodes) * max(50 - len(nodes) // 125, 5) // 100) if len(nodes) > ENOUGH else len(nodes)
        start = self._next % len(nodes) if nodes else 0
        for at in range(len(nodes)):
            node = nodes[(start + at) % len(nodes)]
            refusal = judge.judge(node, self._cache.nominated_to(node.name, pod))
            if refusal is not None:
                refusals[node.name] = refusal
                continue
            fitting.append(node)
            if len(fitting) >= enough:
                self._next = start + at + 1
                break
        return fitting, refusals

    def _choose(
        self, pod: PodInfo, fitting: list[NodeState], nodes: list[NodeState], labels: Mapping[str, Mapping[str, str]]
    ) -> NodeState:
        ratings = rate(pod, fitting, nodes, labels)
        best = max(ratings)
        return self._random.choice(
            [node for node, rating in zip(fitting, ratings, strict=True) if rating >= best - 1e-9]
        )

    def _refused(
        self, entry: Entry, pod: PodInfo, nodes: list[NodeState], judge: NodeFilter, refusals: dict[str, Refusal]
    ) -> Write:
        entry.waits_for_pods = judge.depends_on_other_pods
        message = refused_message(len(nodes), refusals.values()) if nodes else "no nodes available to schedule pods"
        plan = None
        if nodes and preemption.may_preempt(pod, self._cache):
            plan = preemption.plan(pod, self._cache, judge, nodes, refusals)
            if plan is None:
                message = f"{message} {preemption.explain(len(nodes), refusals)}"
        self._queue.park(entry)
        if plan is None:
            return partial(self._report, pod.obj, message)
        self._cache.nominate(pod, plan.node)
        return partial(self._preempt, pod, plan, message)

    # --- what a try writes ---

    async def _write(self, entry: Entry, write: Write) -> None:
        try:
            with anyio.fail_after(WRITE_S):
                await write()
        except (ApiError, TimeoutError) as exc:
            gone = isinstance(exc, ApiError) and exc.code == 404
            if not gone:
                self._log.warning("pod=%s: %s", entry.key, exc or "no answer in time")
        except Exception:
            self._log.exception("pod=%s: writing failed", entry.key)
        finally:
            self._limit.release()

    async def _bind(self, entry: Entry, pod: PodInfo, node: str) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        bound = False
        try:
            await self._client.create(PODS, binding, name=pod.key.name, subresource="binding")
            bound = True
        finally:
            if not bound:
                self._cache.forget(pod.uid)
                self._queue.retry(entry)
        self._queue.remove(pod.uid)
        self._recorder.event(
            pod.obj, "Normal", "Scheduled", f"Successfully assigned {pod.key.namespace}/{pod.key.name} to {node}"
        )

    async def _select_node(self, claims: Sequence[Mapping[str, Any]], node: str) -> None:
        """Have claims bound for a node; when they are, their pod is tried again."""
        for claim in claims:
            metadata = claim["metadata"]
            if (metadata.get("annotations") or {}).get(SELECTED_NODE) != node:
                patch = {"metadata": {"uid": metadata.get("uid"), "annotations": {SELECTED_NODE: node}}}
                await self._client.patch(
                    PERSISTENT_VOLUME_CLAIMS, metadata["name"], patch, metadata["namespace"], kind="merge"
                )

    async def _report(self, pod: Mapping[str, Any], message: str, nominated: str | None = None) -> None:
        """Say on the pod and in an event why it has no node; the pod is written only if that is news."""
        self._recorder.event(pod, "Warning", "FailedScheduling", message)
        old = condition(pod, "PodScheduled") or {}
        status: Object = {}
        if (old.get("status"), old.get("reason"), old.get("message")) != ("False", "Unschedulable", message):
            unchanged = old.get("lastTransitionTime") if old.get("status") == "False" else None
            status["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": message,
                    "lastProbeTime": None,
                    "lastTransitionTime": unchanged or format_time(self._clock.time()),
                }
            ]
        if nominated is not None and (pod.get("status") or {}).get("nominatedNodeName") != nominated:
            status["nominatedNodeName"] = nominated
        if status:
            meta = pod["metadata"]
            patch = {"metadata": {"uid": meta.get("uid")}, "status": status}
            await self._client.patch(
                PODS, meta["name"], patch, meta["namespace"], kind="strategic", subresource="status"
            )

    async def _preempt(self, pod: PodInfo, plan: preemption.Plan, message: str) -> None:
        for victim in plan.victims:
            if is_terminating(victim.obj):
                continue
            await self._evict(victim, pod)
            self._recorder.event(victim.obj, "Normal", "Preempted", f"Preempted by pod {pod.uid} on node {plan.node}")
        await self._report(pod.obj, message, plan.node)

    async def _evict(self, victim: PodInfo, pod: PodInfo) -> None:
        disruption = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{NAME}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": format_time(self._clock.time()),
        }
        try:
            await self._client.patch(
                PODS,
                victim.key.name,
                {"metadata": {"uid": victim.uid}, "status": {"conditions": [disruption]}},
                victim.key.namespace,
                kind="strategic",
                subresource="status",
            )
            await self._client.delete(PODS, victim.key.name, victim.key.namespace, uid=victim.uid)
        except ApiError as exc:
            if exc.code not in (404, 409):  # gone, or another pod of that name by now
                raise


def _is_ours(pod: Object) -> bool:
    """Whether the pod waits for this scheduler."""
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and (spec.get("schedulerName") or NAME) == NAME
        and not spec.get("schedulingGates")
        and not is_terminating(pod)
        and not is_terminal(pod)
    )


def _waits_for_volumes(entry: Entry) -> bool:
    return entry.waits_for_volumes


def _wish(pod: Object) -> tuple[Any, ...]:
    """What of a pending pod decides where it fits."""
    return pod["spec"], pod["metadata"].get("labels")
