"""The Deployment controller as a module.

Units   Times are seconds.
Errors  ApiError from the API goes to the work queue, which retries; a stale cache shows as a Conflict.
State   None: everything is in the API.
Source  kube-controller-manager's deployment controller (behaviour, event and condition reasons).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from edgesite.client import Controller, ObjectKey, Result, TerminalError, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.deployment import revisions, rollout, status
from edgesite.controlplane.deployment.revisions import replicas_of
from edgesite.controlplane.ownership import Claimer, index_by_controller, owned_by
from edgesite.controlplane.ownwrites import OwnWrites
from edgesite.controlplane.podcontrol import namespace_is_ending
from edgesite.controlplane.pods import controller_of, is_terminal, is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from edgesite.kube.selectors import InvalidSelector, LabelSelector, from_object

__all__ = ["DeploymentController", "DeploymentModule"]

Object = dict[str, Any]


class DeploymentModule(ControlPlaneModule):
    """Rolls out Deployments."""

    name = "deployment"
    component = "deployment-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await DeploymentController(cluster).run(ready)


class DeploymentController:
    """Reconciles one Deployment at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._clock = ctx.clock
        self._client, self._recorder = cluster.client, cluster.recorder
        self._deployments = cluster.informers.of(DEPLOYMENTS)
        self._sets = cluster.informers.of(REPLICA_SETS)
        self._pods = cluster.informers.of(PODS)
        for informer in (self._sets, self._pods):
            index_by_controller(informer)
        self._own = OwnWrites(self._deployments)
        self._controller = Controller("deployment", self.reconcile, ctx.clock, ctx.random, workers=5, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(self._deployments.on_change(self._deployment_changed))
            handlers.enter_context(self._sets.add_handler(self._set_seen, self._set_changed, self._set_seen))
            handlers.enter_context(self._pods.add_handler(deleted=self._pod_gone, updated=self._pod_changed))
            await self._controller.run((self._deployments, self._sets, self._pods), ready=ready)

    def _deployment_changed(self, one: Object) -> None:
        self._controller.queue.add(key_of(one), low=not self._deployments.has_synced)

    def _set_seen(self, one: Object) -> None:
        owner = controller_of(one)
        if owner is not None:
            if owner.get("kind") == DEPLOYMENTS.kind:
                self._controller.queue.add(ObjectKey(one["metadata"].get("namespace") or "", owner["name"]))
            return
        for deployment in self._deployments.list(one["metadata"].get("namespace") or ""):
            try:
                if from_object(deployment["spec"].get("selector")).matches(one["metadata"].get("labels")):
                    self._controller.queue.add(key_of(deployment))
            except InvalidSelector:
                continue

    def _set_changed(self, old: Object, new: Object) -> None:
        if controller_of(old) != controller_of(new):
            self._set_seen(old)
        self._set_seen(new)

    def _pod_changed(self, old: Object, new: Object) -> None:
        if is_terminal(new) and not is_terminal(old):
            self._pod_gone(new)

    def _pod_gone(self, pod: Object) -> None:
        """Recreate goes on when the last old pod is gone, which no replica set shows."""
        owner = controller_of(pod)
        if owner is None or owner.get("kind") != REPLICA_SETS.kind:
            return
        one = self._sets.get(owner["name"], pod["metadata"].get("namespace") or "")
        above = controller_of(one) if one is not None else None
        if above is None or above.get("kind") != DEPLOYMENTS.kind:
            return
        key = ObjectKey(pod["metadata"].get("namespace") or "", above["name"])
        deployment = self._deployments.by_key(key)
        if deployment is not None and (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            self._controller.queue.add(key)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Take the next step of the rollout, then write the status. Raises ApiError, TerminalError."""
        deployment = self._own.newest(key)
        if deployment is None:
            return None
        selector = self._selector(deployment)
        sets = await Claimer(self._client, deployment, DEPLOYMENTS, selector).claim(self._sets)
        if is_terminating(deployment):
            return await self._report(deployment, sets, revisions.find_new(deployment, sets))
        deployment = await self._note_pause(deployment)
        if deployment["spec"].get("paused") or self._is_scaling(deployment, sets):
            return await self._scale_only(deployment, sets)
        if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            return await self._recreate(deployment, sets)
        return await self._roll(deployment, sets)

    def _selector(self, deployment: Object) -> LabelSelector:
        try:
            selector = from_object(deployment["spec"].get("selector"))
        except InvalidSelector as exc:
            raise TerminalError(str(exc)) from exc
        if selector.is_everything:
            text = "This deployment is selecting all pods. A non-empty selector is required."
            self._recorder.event(deployment, "Warning", "SelectingAll", text)
            raise TerminalError("the selector is empty")
        return selector

    async def _note_pause(self, deployment: Object) -> Object:
        """While paused no progress is expected; the time starts anew on resume."""
        if not status.has_deadline(deployment):
            return deployment
        old = deployment.get("status") or {}
        current = next((one for one in old.get("conditions") or () if one.get("type") == "Progressing"), None)
        if current is not None and current.get("reason") == "ProgressDeadlineExceeded":
            return deployment
        was_paused = current is not None and current.get("reason") == "DeploymentPaused"
        paused = bool(deployment["spec"].get("paused"))
        if paused == was_paused:
            return deployment
        reason, text = ("DeploymentPaused", "paused") if paused else ("DeploymentResumed", "resumed")
        fresh = {**old, "conditions": list(old.get("conditions") or ())}
        status.set_condition(fresh, "Progressing", "Unknown", reason, f"Deployment is {text}", self._clock.time())
        return await self._write_status(deployment, fresh)

    @staticmethod
    def _is_scaling(deployment: Object, sets: Sequence[Object]) -> bool:
        wanted = replicas_of(deployment)
        return any(
            replicas_of(one)
            and (desired := revisions.annotations_of(one).get(revisions.DESIRED)) is not None
            and revisions.number(desired) != wanted
            for one in sets
        )

    # --- the three ways of a step ---

    async def _scale_only(self, deployment: Object, sets: list[Object]) -> Result | None:
        new = revisions.find_new(deployment, sets)
        if new is not None:
            deployment, sets, new = await self._mark_revision(deployment, sets, new)
        sizes = rollout.proportional(deployment, sets, new)
        sets = await self._resize(deployment, sets, sizes)
        new = revisions.find_new(deployment, sets)
        if deployment["spec"].get("paused"):
            await self._forget_history(deployment, sets, new)
        return await self._report(deployment, sets, new)

    async def _roll(self, deployment: Object, sets: list[Object]) -> Result | None:
        deployment, sets, new = await self._ensure_new(deployment, sets)
        if new is None:
            return await self._report(deployment, sets, None)
        wanted = rollout.new_replicas(deployment, sets, new)
        if wanted != replicas_of(new):
            sets = await self._resize(deployment, sets, {new["metadata"]["name"]: wanted})
            return await self._report(deployment, sets, revisions.find_new(deployment, sets))
        old = [one for one in sets if one is not new]
        sizes = rollout.scale_down_old(deployment, old, new)
        if sizes:
            sets = await self._resize(deployment, sets, sizes)
        elif status.is_complete(deployment, status.counts(deployment, sets, new)):
            await self._forget_history(deployment, sets, new)
        return await self._report(deployment, sets, revisions.find_new(deployment, sets))

    async def _recreate(self, deployment: Object, sets: list[Object]) -> Result | None:
        new = revisions.find_new(deployment, sets)
        old = [one for one in sets if one is not new]
        sizes = {one["metadata"]["name"]: 0 for one in old if replicas_of(one)}
        if sizes:
            sets = await self._resize(deployment, sets, sizes)
            return await self._report(deployment, sets, revisions.find_new(deployment, sets))
        if any(not is_terminal(pod) for one in old for pod in owned_by(self._pods, one["metadata"]["uid"])):
            return await self._report(deployment, sets, new)
        deployment, sets, new = await self._ensure_new(deployment, sets)
        if new is None:
            return await self._report(deployment, sets, None)
        sets = await self._resize(deployment, sets, {new["metadata"]["name"]: replicas_of(deployment)})
        new = revisions.find_new(deployment, sets)
        if status.is_complete(deployment, status.counts(deployment, sets, new)):
            await self._forget_history(deployment, sets, new)
        return await self._report(deployment, sets, new)

    # --- what the steps consist of ---

    async def _ensure_new(self, deployment: Object, sets: list[Object]) -> tuple[Object, list[Object], Object | None]:
        """Make sure that the set of the current template exists and is the newest revision; None: it cannot be made here."""
        new = revisions.find_new(deployment, sets)
        if new is not None:
            return await self._mark_revision(deployment, sets, new)
        limits = rollout.bounds(deployment)
        size = rollout.new_replicas(deployment, sets, None)
        fresh = revisions.make_new(deployment, revisions.next_revision(deployment, sets), size, limits.most)
        try:
            new = await self._client.create(REPLICA_SETS, fresh)
        except ApiError as exc:
            if namespace_is_ending(exc):
                return deployment, sets, None
            if exc.reason == "AlreadyExists":
                new = await self._same_or_collision(deployment, fresh)
            else:
                await self._note_failure(deployment, fresh, exc)
                raise
        else:
            self._tell_scaled(deployment, new, 0, size)
            deployment = await self._note_progress(deployment, "NewReplicaSetCreated", "Created new replica set", new)
        return await self._mark_revision(deployment, [*sets, new], new)

    async def _same_or_collision(self, deployment: Object, fresh: Object) -> Object:
        """The name is taken: by our own set that the cache lacks, or by another's, then the hash must change."""
        meta = fresh["metadata"]
        there = await self._client.get(REPLICA_SETS, meta["name"], meta["namespace"])
        owner = controller_of(there)
        if (
            owner is not None
            and owner["uid"] == deployment["metadata"]["uid"]
            and revisions.same_template(deployment, there)
        ):
            return there
        old = deployment.get("status") or {}
        collisions = revisions.number(old.get("collisionCount")) + 1
        await self._write_status(deployment, {**old, "collisionCount": collisions})
        raise ApiError(409, "Conflict", f"replica set {meta['name']} belongs to another template; trying another name")

    async def _note_progress(self, deployment: Object, reason: str, text: str, new: Object) -> Object:
        if not status.has_deadline(deployment):
            return deployment
        old = deployment.get("status") or {}
        fresh = {**old, "conditions": list(old.get("conditions") or ())}
        message = f'{text} "{new["metadata"]["name"]}"'
        status.set_condition(fresh, "Progressing", "True", reason, message, self._clock.time())
        return await self._write_status(deployment, fresh)

    async def _note_failure(self, deployment: Object, fresh: Object, exc: ApiError) -> None:
        text = f'Failed to create new replica set "{fresh["metadata"]["name"]}": {exc}'
        self._recorder.event(deployment, "Warning", "ReplicaSetCreateError", text)
        if not status.has_deadline(deployment):
            return
        old = deployment.get("status") or {}
        after = {**old, "conditions": list(old.get("conditions") or ())}
        status.set_condition(after, "Progressing", "False", "ReplicaSetCreateError", text, self._clock.time())
        if after != old:
            await self._write_status(deployment, after)

    async def _write_status(self, deployment: Object, fresh: Object) -> Object:
        return self._own.wrote(await self._client.update_status(DEPLOYMENTS, {**deployment, "status": fresh}))

    async def _mark_revision(
        self, deployment: Object, sets: list[Object], new: Object
    ) -> tuple[Object, list[Object], Object]:
        """Give the new set, and the Deployment, the highest revision."""
        old = [one for one in sets if one is not new]
        limits = rollout.bounds(deployment)
        marked = revisions.with_revision(deployment, new, revisions.next_revision(deployment, old), limits.most)
        if marked is not new:
            marked = await self._client.update(REPLICA_SETS, marked)
            sets = [marked if one is new else one for one in sets]
        revision = revisions.annotations_of(marked).get(revisions.REVISION)
        if revisions.annotations_of(deployment).get(revisions.REVISION) != revision:
            meta = deployment["metadata"]
            patch = {"metadata": {"uid": meta["uid"], "annotations": {revisions.REVISION: revision}}}
            deployment = self._own.wrote(await self._client.patch(DEPLOYMENTS, meta["name"], patch, meta["namespace"]))
        old_status = deployment.get("status") or {}
        if not any(one.get("type") == "Progressing" for one in old_status.get("conditions") or ()):
            deployment = await self._note_progress(deployment, "FoundNewReplicaSet", "Found new replica set", marked)
        return deployment, sets, marked

    async def _resize(self, deployment: Object, sets: list[Object], sizes: Mapping[str, int]) -> list[Object]:
        """Write new sizes, and on every set that has pods what the whole shall have; returns the sets as they are then."""
        limits = rollout.bounds(deployment)
        told = {revisions.DESIRED: str(replicas_of(deployment)), revisions.MOST: str(limits.most)}
        after = []
        for one in sets:
            size = sizes.get(one["metadata"]["name"], replicas_of(one))
            annotations = {**revisions.annotations_of(one), **told}
            resized = size != replicas_of(one)
            if resized or (size and annotations != revisions.annotations_of(one)):
                meta = {**one["metadata"], "annotations": annotations}
                written = await self._client.update(
                    REPLICA_SETS, {**one, "metadata": meta, "spec": {**one["spec"], "replicas": size}}
                )
                if resized:
                    self._tell_scaled(deployment, one, replicas_of(one), size)
                after.append(written)
            else:
                after.append(one)
        return after

    def _tell_scaled(self, deployment: Object, one: Object, old: int, new: int) -> None:
        if old == new:
            return
        way = "up" if new > old else "down"
        text = f"Scaled {way} replica set {one['metadata']['name']} from {old} to {new}"
        self._recorder.event(deployment, "Normal", "ScalingReplicaSet", text)

    async def _forget_history(self, deployment: Object, sets: Sequence[Object], new: Object | None) -> None:
        """Delete the oldest revisions beyond the limit."""
        limit = deployment["spec"].get("revisionHistoryLimit")
        if limit is None:
            return
        idle = [
            one
            for one in sets
            if (new is None or one["metadata"]["uid"] != new["metadata"]["uid"])
            and not replicas_of(one)
            and not (one.get("status") or {}).get("replicas")
            and revisions.number((one.get("status") or {}).get("observedGeneration"))
            >= revisions.number(one["metadata"].get("generation"))
            and not is_terminating(one)
        ]
        idle.sort(key=lambda one: (revisions.revision_of(one), one["metadata"].get("creationTimestamp") or ""))
        for one in idle[: max(len(idle) - int(limit), 0)]:
            try:
                await self._client.delete(
                    REPLICA_SETS, one["metadata"]["name"], one["metadata"]["namespace"], uid=one["metadata"]["uid"]
                )
            except ApiError as exc:
                if exc.code != 404:
                    raise

    async def _report(self, deployment: Object, sets: Sequence[Object], new: Object | None) -> Result | None:
        """Write the status if it changed; come back when a rollout that does not get on is late."""
        now = self._clock.time()
        old = deployment.get("status") or {}
        after = status.next_status(deployment, sets, new, now)
        if not after["conditions"]:
            del after["conditions"]
        if after != {name: value for name, value in old.items() if name in _OURS and value not in (0, [], None)}:
            others = {name: value for name, value in old.items() if name not in _OURS}
            deployment = await self._write_status(deployment, {**others, **after})
        wait_s = status.stuck_in_s(deployment, after, now)
        return Result(wait_s) if wait_s is not None else None


_OURS = frozenset(
    {
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "observedGeneration",
        "collisionCount",
        "conditions",
    }
)
