"""Makes and deletes the pods of a controller, with the events that tell of it.

Errors  ApiError from the API.
Source  kube-controller-manager (event reasons and messages, slow start: 1, 2, 4, … at once).
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.controlplane.ownership import reference_to
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import PODS

if TYPE_CHECKING:
    from edgesite.client import Client, EventRecorder
    from edgesite.kube.resources import Resource

__all__ = ["BURST", "PodControl", "in_parallel", "namespace_is_ending", "slow_start"]

BURST: Final = 500  #: pods made or deleted by one reconcile
PARALLEL: Final = 16  #: requests under way at once
Object = dict[str, Any]


class PodControl:
    """Makes and deletes pods from templates."""

    def __init__(self, client: Client, recorder: EventRecorder, resource: Resource) -> None:
        self._client, self._recorder, self._resource = client, recorder, resource

    async def create(self, owner: Object, template: Object, *, name: str = "", patch: Object | None = None) -> Object:
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
        return pod

    async def delete(self, owner: Object, pod: Object) -> None:
        """Delete a pod; one that is gone already is fine. Raises ApiError."""
        meta = pod["metadata"]
        try:
            await self._client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
        except ApiError as exc:
            if exc.code == 404 or exc.reason == "Conflict":  # gone, or another pod of that name
                return
            self._recorder.event(owner, "Warning", "FailedDelete", f"Error deleting: {exc}")
            raise
        self._recorder.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")


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
