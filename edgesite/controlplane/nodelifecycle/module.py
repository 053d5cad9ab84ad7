"""The node lifecycle controller as a module: notices silence, taints nodes, evicts pods, and buries pods of deleted nodes.

Units   Times are seconds. Silence is measured by our own monotonic clock from what changes, never by a node's dates: clocks at the edge are
        wrong, and after a restart every node has its full time again.
Errors  ApiError from the API goes to the work queues, which retry.
State   In memory: when each node was last heard.
Source  kube-controller-manager: node lifecycle, taint eviction and pod garbage collection controllers (behaviour, reasons, 40 s of grace).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.nodelifecycle.eviction import evicted_at
from edgesite.controlplane.nodelifecycle.health import heartbeat, silenced, with_taints
from edgesite.controlplane.pods import condition, is_terminal, is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import LEASES, NODES, PODS
from edgesite.kube.times import format_time

if TYPE_CHECKING:
    from edgesite.context import Section

__all__ = ["NodeLifecycleController", "NodeLifecycleModule"]

GRACE_S: Final = 40.0  #: of silence, before a node counts as unreachable
ORPHAN_S: Final = 40.0  #: a pod whose node is gone stays as long, in case the node registers anew
LEASE_NAMESPACE: Final = "kube-node-lease"
Object = dict[str, Any]


class NodeLifecycleModule(ControlPlaneModule):
    """Watches over nodes."""

    name = "nodelifecycle"
    component = "node-controller"
    section = "modules.nodeLifecycle"
    reloads: ClassVar[frozenset[str]] = frozenset({"evictEdgePods", "monitorGracePeriod"})

    def __init__(self) -> None:
        self._controller: NodeLifecycleController | None = None

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`. Raises nothing."""
        if self._controller is not None:
            self._controller.reload(config)

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        self._controller = NodeLifecycleController(cluster)
        try:
            await self._controller.run(ready)
        finally:
            self._controller = None


@dataclass(slots=True)
class _Heard:
    at: float
    beat: Any
    renewed: Any


class NodeLifecycleController:
    """Two queues: nodes, for what is said about them; pods, for those that must go."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._clock = ctx.clock
        self._configure(ctx.config)
        self._client, self._recorder = cluster.client, cluster.recorder
        self._nodes = cluster.informers.of(NODES)
        self._leases = cluster.informers.of(LEASES)
        self._pods = cluster.informers.of(PODS)
        self._pods.add_index("node", lambda pod: [pod["spec"]["nodeName"]] if pod["spec"].get("nodeName") else [])
        self._heard: dict[str, _Heard] = {}
        self._node_gone: dict[str, float] = {}  # when a node that pods name was missed first
        self._watch = Controller("nodelifecycle", self.reconcile_node, ctx.clock, ctx.random, workers=2, log=ctx.log)
        self._evict = Controller("eviction", self.reconcile_pod, ctx.clock, ctx.random, workers=4, log=ctx.log)

    def reload(self, config: Section) -> None:
        """Judge all nodes and their pods anew."""
        self._configure(config)
        for node in self._nodes.list():
            self._watch.queue.add(key_of(node))
            self._look_at_pods(node["metadata"]["name"])

    def _configure(self, config: Section) -> None:
        self._grace_s = float(config.get("monitorGracePeriod") or GRACE_S)
        self._edge_too = bool(config.get("evictEdgePods"))

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            for informer in (self._nodes, self._leases, self._pods):
                await informer.wait_synced()
            handlers.enter_context(self._nodes.add_handler(self._node_seen, self._node_changed, self._node_deleted))
            handlers.enter_context(self._leases.on_change(self._lease_seen))
            handlers.enter_context(self._pods.add_handler(self._pod_seen, self._pod_changed))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch.run)
                tasks.start_soon(self._evict.run)
                ready()

    # --- what the informers tell ---

    def _node_seen(self, node: Object) -> None:
        name = node["metadata"]["name"]
        self._heard[name] = _Heard(self._clock.monotonic(), heartbeat(node), None)
        self._node_gone.pop(name, None)
        self._watch.queue.add(key_of(node))
        self._look_at_pods(name)

    def _node_changed(self, old: Object, new: Object) -> None:
        name, beat = new["metadata"]["name"], heartbeat(new)
        heard = self._heard.get(name)
        if heard is not None and heard.beat != beat:
            heard.beat = beat
            heard.at = self._clock.monotonic()
        if old.get("spec") != new.get("spec") or _states(old) != _states(new):
            self._watch.queue.add(key_of(new))
        if (old.get("spec") or {}).get("taints") != (new.get("spec") or {}).get("taints"):
            self._look_at_pods(name)

    def _node_deleted(self, node: Object) -> None:
        name = node["metadata"]["name"]
        self._heard.pop(name, None)
        self._recorder.event(node, "Normal", "RemovingNode", f"Node {name} event: Removing Node {name} from Controller")
        self._look_at_pods(name)

    def _lease_seen(self, lease: Object) -> None:
        if lease["metadata"].get("namespace") != LEASE_NAMESPACE:
            return
        heard = self._heard.get(lease["metadata"]["name"])
        renewed = lease["spec"].get("renewTime"), lease["metadata"].get("resourceVersion")
        if heard is not None and heard.renewed != renewed:
            heard.renewed = renewed
            heard.at = self._clock.monotonic()

    def _look_at_pods(self, node: str) -> None:
        for pod in self._pods.by_index("node", node):
            self._evict.queue.add(key_of(pod))

    def _pod_seen(self, pod: Object) -> None:
        if pod["spec"].get("nodeName"):
            self._evict.queue.add(key_of(pod))

    def _pod_changed(self, old: Object, new: Object) -> None:
        was, now = old["spec"], new["spec"]
        if was.get("nodeName") != now.get("nodeName") or was.get("tolerations") != now.get("tolerations"):
            self._pod_seen(new)

    # --- nodes ---

    async def reconcile_node(self, key: ObjectKey) -> Result | None:
        """Write conditions and taints that follow from what is known; come back when silence may be over its limit."""
        node, heard = self._nodes.by_key(key), self._heard.get(key.name)
        if node is None or heard is None:
            return None
        left_s = self._silent_since(heard) + self._grace_s - self._clock.monotonic()
        now = self._clock.time()
        if left_s <= 0 and (conditions := silenced(node, now)) is not None:
            node = await self._silence(node, conditions)
        taints = with_taints(node, now)
        if taints is not None:
            meta = node["metadata"]
            patch = {
                "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
                "spec": {"taints": taints or None},
            }
            await self._client.patch(NODES, key.name, patch)
        return Result(left_s if left_s > 0 else self._grace_s)

    def _silent_since(self, heard: _Heard) -> float:
        """When we ourselves could not hear, nobody was silent."""
        began = [one.fresh_since for one in (self._leases, self._nodes)]
        if None in began:
            return self._clock.monotonic()
        return max(heard.at, *(at for at in began if at is not None))

    async def _silence(self, node: Object, conditions: list[Object]) -> Object:
        was_ready = _is_ready(node)
        status = {**(node.get("status") or {}), "conditions": conditions}
        # the version that was looked at, so that a report that arrives just now wins
        written = await self._client.update_status(NODES, {**node, "status": status})
        if heard := self._heard.get(node["metadata"]["name"]):
            heard.beat = heartbeat(written)  # our own words are no sign of life
        if was_ready:
            name = node["metadata"]["name"]
            self._recorder.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return written

    # --- pods ---

    async def reconcile_pod(self, key: ObjectKey) -> Result | None:
        """Delete a pod whose node is gone, or that does not tolerate its node's taints any longer."""
        pod = self._pods.by_key(key)
        if pod is None or not pod["spec"].get("nodeName"):
            return None
        node = self._nodes.get(pod["spec"]["nodeName"])
        if node is None:
            return await self._bury(pod)
        if is_terminating(pod) or is_terminal(pod):
            return None
        now = self._clock.time()
        at = evicted_at(pod, node, now, edge_too=self._edge_too)
        if at is None:
            return None
        if at > now:
            return Result(at - now)
        if not any(_is_ready(one) for one in self._nodes.list()):
            return Result(GRACE_S)  # when no node is well the fault is more likely here, and there is nowhere to go
        self._recorder.event(
            pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key.namespace}/{key.name}"
        )
        text = "Taint manager: deleting due to NoExecute taint"
        await self._disrupt(pod, "DeletionByTaintManager", text)
        await self._delete(pod, grace_period_s=None)
        return None

    async def _bury(self, pod: Object) -> Result | None:
        """Remove a pod whose node is gone: nobody is left who could end it."""
        name = pod["spec"]["nodeName"]
        since = self._node_gone.setdefault(name, self._clock.monotonic())
        left_s = since + ORPHAN_S - self._clock.monotonic()
        if left_s > 0:
            return Result(left_s)
        try:
            await self._client.get(NODES, name)
        except ApiError as exc:
            if exc.code != 404:
                raise
        else:
            return Result(ORPHAN_S)  # it is back, the cache will show it
        if not is_terminal(pod):
            await self._disrupt(pod, "DeletionByPodGC", "PodGC: node no longer exists", phase="Failed")
        await self._delete(pod, grace_period_s=0)
        if len(self._pods.by_index("node", name)) <= 1:
            self._node_gone.pop(name, None)
        return None

    async def _disrupt(self, pod: Object, reason: str, message: str, phase: str = "") -> None:
        meta = pod["metadata"]
        status: Object = {
            "conditions": [
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": reason,
                    "message": message,
                    "lastTransitionTime": format_time(self._clock.time()),
                }
            ]
        }
        if phase:
            status["phase"] = phase
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        try:
            await self._client.patch(
                PODS, meta["name"], patch, meta["namespace"], kind="strategic", subresource="status"
            )
        except ApiError as exc:
            if exc.code not in (404, 409):
                raise

    async def _delete(self, pod: Object, *, grace_period_s: int | None) -> None:
        meta = pod["metadata"]
        try:
            await self._client.delete(
                PODS, meta["name"], meta["namespace"], uid=meta["uid"], grace_period_s=grace_period_s
            )
        except ApiError as exc:
            if exc.code not in (404, 409):
                raise


def _is_ready(node: Object) -> bool:
    return (condition(node, "Ready") or {}).get("status") == "True"


def _states(node: Object) -> list[tuple[Any, Any]]:
    return [(one.get("type"), one.get("status")) for one in (node.get("status") or {}).get("conditions") or ()]
