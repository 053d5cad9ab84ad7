"""Makes and deletes the pods of a controller, with the events that tell of it.

Errors  ApiError from the API.
Source  kube-controller-manager (event reasons and messages, slow start: 1, 2, 4, … at once).
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.client import ObjectKey, key_of
from edgesite.controlplane.ownership import reference_to
from edgesite.controlplane.pods import controller_of, is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import PODS

if TYPE_CHECKING:
    from edgesite.client import Client, EventRecorder, Informer
    from edgesite.client.workqueue import WorkQueue
    from edgesite.controlplane.expectations import Expectations
    from edgesite.kube.resources import Resource

__all__ = ["BURST", "OwnerQueue", "PodControl", "in_parallel", "namespace_is_ending", "slow_start"]

BURST: Final = 500  #: pods made or deleted by one reconcile
PARALLEL: Final = 16  #: requests under way at once
Object = dict[str, Any]


class PodControl:
    """Makes and deletes the pods of one kind of owner, and knows which of that its cache does not show yet."""

    def __init__(
        self, client: Client, recorder: EventRecorder, resource: Resource, pods: Informer, expectations: Expectations
    ) -> None:
        self.expectations = expectations
        self._client, self._recorder, self._resource = client, recorder, resource
        self._pods = pods

    def owner_of(self, pod: Object) -> ObjectKey | None:
        """Return the object of our kind that controls the pod."""
        owner = controller_of(pod)
        if owner is None or owner.get("kind") != self._resource.kind:
            return None
        return ObjectKey(pod["metadata"].get("namespace") or "", owner["name"])

    def saw(self, pod: Object, *, gone: bool = False) -> ObjectKey | None:
        """The cache shows the pod, or that it is gone; return its owner."""
        owner = self.owner_of(pod)
        if owner is not None:
            self.expectations.saw(owner, pod["metadata"]["uid"], leaving=gone or is_terminating(pod))
        return owner

    async def create(self, owner: Object, template: Object, *, name: str = "", patch: Object | None = None) -> None:
        """Make a pod from ``template``; ``patch`` replaces members of its spec. Raises ApiError."""
        meta = copy.deepcopy(template.get("metadata") or {})
        pod_meta: Object = {"namespace": owner["metadata"]["namespace"]}
        if name:
            pod_meta["name"] = name
        else:
            pod_meta["generateName"] = owner["metadata"]["name"] + "-"
        for member in ("labels", "annotations", "finalizers"):
            if meta.get(member):
                pod_meta[member] = meta[member]
        pod_meta["ownerReferences"] = [reference_to(owner, self._resource)]
        spec = {**copy.deepcopy(template["spec"]), **(patch or {})}
        try:
            pod = await self._client.create(
                PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": pod_meta, "spec": spec}
            )
        except ApiError as exc:
            if not namespace_is_ending(exc):
                self._recorder.event(owner, "Warning", "FailedCreate", f"Error creating: {exc}")
            raise
        self._recorder.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        if self._cached(pod) is None:
            self.expectations.created(key_of(owner), pod["metadata"]["uid"])

    async def delete(self, owner: Object, pod: Object) -> None:
        """Delete a pod; one that is gone already is fine. Raises ApiError."""
        key, uid = key_of(owner), pod["metadata"]["uid"]
        self.expectations.deleted(key, uid)
        try:
            await self._delete(owner, pod)
        except BaseException:
            self.expectations.saw(key, uid, leaving=True)
            raise
        seen = self._cached(pod)
        if seen is None or is_terminating(seen):
            self.expectations.saw(key, uid, leaving=True)

    async def _delete(self, owner: Object, pod: Object) -> None:
        meta = pod["metadata"]
        try:
            await self._client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
        except ApiError as exc:
            if exc.code == 404 or exc.reason == "Conflict":  # gone, or another pod of that name
                return
            self._recorder.event(owner, "Warning", "FailedDelete", f"Error deleting: {exc}")
            raise
        self._recorder.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    def _cached(self, pod: Object) -> Object | None:
        """The pod as the cache has it; None if it has none, or another one of that name."""
        seen = self._pods.by_key(key_of(pod))
        return seen if seen is not None and seen["metadata"]["uid"] == pod["metadata"]["uid"] else None


class OwnerQueue:
    """Handlers for an informer of pods: queue the owner of each that comes, changes or goes.

    ``adopters(pod)`` gives the objects of our kind that may want a pod without an owner: asked when it comes to be one, and when
    its labels change, not for each report of its status.
    """

    def __init__(
        self, control: PodControl, queue: WorkQueue[ObjectKey], adopters: Callable[[Object], Iterable[ObjectKey]]
    ) -> None:
        self._control, self._queue, self._adopters = control, queue, adopters

    def seen(self, pod: Object) -> None:
        if (owner := self._control.saw(pod)) is not None:
            self._queue.add(owner)
        elif controller_of(pod) is None:
            for one in self._adopters(pod):
                self._queue.add(one)

    def changed(self, old: Object, new: Object) -> None:
        if (owner := self._control.owner_of(old)) is not None:
            self._queue.add(owner)
        stays_orphan = controller_of(old) is None and controller_of(new) is None
        if not stays_orphan or old["metadata"].get("labels") != new["metadata"].get("labels"):
            self.seen(new)

    def gone(self, pod: Object) -> None:
        if (owner := self._control.saw(pod, gone=True)) is not None:
            self._queue.add(owner)


def namespace_is_ending(exc: ApiError) -> bool:
    """Whether a creation was refused because its namespace is being deleted: trying again is pointless."""
    return exc.code == 403 and any(
        cause.get("reason") == "NamespaceTerminating" for cause in exc.details.get("causes") or ()
    )


async def slow_start(count: int, make: Callable[[], Awaitable[None]]) -> ApiError | None:
    """Call ``make`` so many times, in batches that double while all goes well; returns the first error, then stops."""
    batch = 1
    while count > 0:
        size = min(batch, count)
        error = await in_parallel([make] * size)
        if error is not None:
            return error
        count -= size
        batch *= 2
    return None


async def in_parallel(calls: list[Callable[[], Awaitable[None]]]) -> ApiError | None:
    """Make all calls, some at once; returns the first error after all are done."""
    errors: list[ApiError] = []
    limit = anyio.Semaphore(PARALLEL)

    async def one(call: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            try:
                await call()
            except ApiError as exc:
                errors.append(exc)

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(one, call)
    return errors[0] if errors else None
