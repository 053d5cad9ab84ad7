"""The Job controller as a module.

Units   Times are seconds.
Errors  ApiError from the API goes to the work queue, which retries.
State   Expectations and the pauses after failures, in memory; all else is in the API.
Source  kube-controller-manager's job and ttl-after-finished controllers (behaviour, condition and event reasons; 10 s after the first
        failure, doubling to 6 minutes).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from edgesite.client import Controller, ObjectKey, Result, TerminalError, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.expectations import Expectations
from edgesite.controlplane.job.accounting import (
    FINALIZER,
    INDEX,
    Standing,
    assess,
    format_indexes,
    index_of,
    is_indexed,
)
from edgesite.controlplane.ownership import Claimer, index_by_controller
from edgesite.controlplane.podcontrol import BURST, PodControl, in_parallel, namespace_is_ending
from edgesite.controlplane.pods import condition, controller_of, is_ready, is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import JOBS, PODS
from edgesite.kube.selectors import InvalidSelector, from_object
from edgesite.kube.times import format_time, parse_time

__all__ = ["JobController", "JobModule"]

PAUSE_FIRST_S: Final = 10.0
PAUSE_MOST_S: Final = 360.0
Object = dict[str, Any]


class JobModule(ControlPlaneModule):
    """Runs jobs."""

    name = "job"
    component = "job-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await JobController(cluster).run(ready)


class JobController:
    """Reconciles one job at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._clock = ctx.clock
        self._client, self._recorder = cluster.client, cluster.recorder
        self._jobs = cluster.informers.of(JOBS)
        self._pods = cluster.informers.of(PODS)
        index_by_controller(self._pods)
        self._failures: dict[
            str, tuple[int, float]
        ] = {}  # uid of the job: failures seen, and when pods may be made again
        self._control = PodControl(cluster.client, cluster.recorder, JOBS, self._pods, Expectations(ctx.clock))
        self._controller = Controller("job", self.reconcile, ctx.clock, ctx.random, workers=2, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            touch = self._controller.queue.add
            handlers.enter_context(
                self._jobs.add_handler(
                    lambda one: touch(key_of(one)), lambda old, new: touch(key_of(new)), self._job_gone
                )
            )
            handlers.enter_context(
                self._pods.add_handler(
                    lambda pod: self._pod_seen(pod, gone=False),
                    lambda old, new: self._pod_seen(new, gone=False),
                    lambda pod: self._pod_seen(pod, gone=True),
                )
            )
            await self._controller.run((self._jobs, self._pods), ready=ready)

    def _job_gone(self, job: Object) -> None:
        self._control.expectations.forget(key_of(job))
        self._failures.pop(job["metadata"]["uid"], None)
        self._controller.queue.add(key_of(job))

    def _pod_seen(self, pod: Object, *, gone: bool) -> None:
        if (owner := self._control.saw(pod, gone=gone)) is not None:
            self._controller.queue.add(owner)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Count, start and end pods, and say how the job stands. Raises ApiError, TerminalError."""
        job = self._jobs.by_key(key)
        if job is None:
            await self._release_orphans(key)
            return None
        if finished := _finished(job):
            return await self._after(key, job, finished)
        try:
            selector = from_object(job["spec"].get("selector"))
        except InvalidSelector as exc:
            raise TerminalError(str(exc)) from exc
        if waits_s := self._control.expectations.pending_s(key):
            return Result(waits_s)
        pods = await Claimer(self._client, job, JOBS, selector).claim(self._pods)
        standing = assess(job, pods, self._clock.time())
        pause_s = self._note_failures(job, standing)
        over = standing.complete or standing.failure is not None
        if over or job["spec"].get("suspend") or is_terminating(job):
            await in_parallel([lambda pod=pod: self._control.delete(job, pod) for pod in standing.active])  # type: ignore[misc]
        job = await self._report(job, standing)
        for pod in standing.release:
            await self._release(pod)
        if over or job["spec"].get("suspend") or is_terminating(job):
            return None
        error = None
        if not pause_s:
            error = await self._start(job, standing)
        if error is not None and not namespace_is_ending(error):
            raise error
        waits = [wait_s for wait_s in (pause_s, standing.deadline_in_s) if wait_s]
        return Result(min(waits)) if waits else None

    def _note_failures(self, job: Object, standing: Standing) -> float:
        """Return the seconds until pods may be made again after a failure."""
        uid, now = job["metadata"]["uid"], self._clock.monotonic()
        known, until = self._failures.get(uid, (0, 0.0))
        if standing.all_failed > known:
            delay_s = min(PAUSE_FIRST_S * 2.0 ** min(standing.all_failed - 1, 10), PAUSE_MOST_S)
            known, until = standing.all_failed, now + delay_s
            self._failures[uid] = (known, until)
        return max(until - now, 0.0)

    async def _start(self, job: Object, standing: Standing) -> ApiError | None:
        spec = job["spec"]
        parallelism = spec.get("parallelism")
        most = 1 if parallelism is None else int(parallelism)
        if is_indexed(job):
            running = {index_of(pod) for pod in standing.active}
            free = [at for at in range(int(spec.get("completions") or 0)) if at not in standing.done_indexes | running]
            indexes: list[int | None] = list(free[: max(most - len(standing.active), 0)])
        else:
            completions = spec.get("completions")
            left = (
                (0 if standing.all_succeeded else most) if completions is None else completions - standing.all_succeeded
            )
            indexes = [None] * max(min(most, left) - len(standing.active), 0)
        surplus = [] if indexes else sorted(standing.active, key=is_ready)[: max(len(standing.active) - most, 0)]
        await in_parallel([lambda pod=pod: self._control.delete(job, pod) for pod in surplus])  # type: ignore[misc]
        return await in_parallel([lambda at=at: self._create(job, at) for at in indexes[:BURST]])  # type: ignore[misc]

    async def _create(self, job: Object, index: int | None) -> None:
        template = copy.deepcopy(job["spec"]["template"])
        meta = template.setdefault("metadata", {})
        meta["finalizers"] = [*(meta.get("finalizers") or ()), FINALIZER]
        if index is not None:
            meta["annotations"] = {**(meta.get("annotations") or {}), INDEX: str(index)}
            meta["labels"] = {**(meta.get("labels") or {}), INDEX: str(index)}
            template["spec"].setdefault("hostname", f"{job['metadata']['name']}-{index}")
            for container in (*(template["spec"].get("initContainers") or ()), *template["spec"]["containers"]):
                names = {one["name"] for one in container.get("env") or ()}
                if "JOB_COMPLETION_INDEX" not in names:
                    path = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
                    container["env"] = [
                        *(container.get("env") or ()),
                        {"name": "JOB_COMPLETION_INDEX", "valueFrom": path},
                    ]
        await self._control.create(job, template)

    # --- status ---

    async def _report(self, job: Object, standing: Standing) -> Object:
        """Write how the job stands, if that is news; finished only when no pod is left and all are counted."""
        old, now = job.get("status") or {}, format_time(self._clock.time())
        status: Object = {name: old[name] for name in ("startTime", "completionTime", "conditions") if old.get(name)}
        suspended = bool(job["spec"].get("suspend"))
        conditions = [dict(one) for one in old.get("conditions") or ()]
        self._note_suspension(job, conditions, suspended, now)
        if suspended:
            status.pop("startTime", None)
        else:
            status.setdefault("startTime", now)
        counts = {
            "active": 0 if suspended or standing.complete or standing.failure else len(standing.active),
            "ready": sum(is_ready(pod) for pod in standing.active),
            "terminating": standing.terminating,
            "succeeded": standing.succeeded,
            "failed": standing.failed,
        }
        status.update({name: count for name, count in counts.items() if count})
        if is_indexed(job) and standing.done_indexes:
            status["completedIndexes"] = format_indexes(standing.done_indexes)
        uncounted = {"succeeded": standing.uncounted_succeeded, "failed": standing.uncounted_failed}
        status["uncountedTerminatedPods"] = {name: uids for name, uids in uncounted.items() if uids}
        drained = not any(uncounted.values()) and not standing.active and not standing.terminating
        if standing.complete:
            _set(
                conditions, "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods", now
            )
            if drained:
                _set(conditions, "Complete", "CompletionsReached", "Reached expected number of succeeded pods", now)
                status["completionTime"] = now
        elif standing.failure is not None:
            _set(conditions, "FailureTarget", *standing.failure, now)
            if drained:
                _set(conditions, "Failed", *standing.failure, now)
        if conditions:
            status["conditions"] = conditions
        if status == old:
            return job
        written = await self._client.update_status(JOBS, {**job, "status": status})
        if drained and standing.complete:
            self._recorder.event(job, "Normal", "Completed", "Job completed")
        elif drained and standing.failure is not None:
            self._recorder.event(job, "Warning", *standing.failure)
        return written

    def _note_suspension(self, job: Object, conditions: list[Object], suspended: bool, now: str) -> None:
        was = (condition(job, "Suspended") or {}).get("status") == "True"
        if suspended == was:
            return
        reason, text = ("JobSuspended", "Job suspended") if suspended else ("JobResumed", "Job resumed")
        _set(conditions, "Suspended", reason, text, now, value=str(suspended))
        self._recorder.event(job, "Normal", "Suspended" if suspended else "Resumed", text)

    async def _after(self, key: ObjectKey, job: Object, finished: Object) -> Result | None:
        """A finished job: let go of what is left of its pods, and delete it when its time is over."""
        await self._release_orphans(key)
        self._failures.pop(job["metadata"]["uid"], None)
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or is_terminating(job):
            return None
        left_s = parse_time(finished["lastTransitionTime"]) + float(ttl) - self._clock.time()
        if left_s > 0:
            return Result(left_s)
        try:
            await self._client.delete(
                JOBS, key.name, key.namespace, propagation="Foreground", uid=job["metadata"]["uid"]
            )
        except ApiError as exc:
            if exc.code not in (404, 409):
                raise
        return None

    async def _release_orphans(self, key: ObjectKey) -> None:
        """Pods whose job is over or gone must not be held by it."""
        for pod in self._pods.list(key.namespace):
            owner = controller_of(pod)
            if owner is not None and owner.get("kind") == JOBS.kind and owner.get("name") == key.name:
                await self._release(pod)

    async def _release(self, pod: Object) -> None:
        meta = pod["metadata"]
        kept = [one for one in meta.get("finalizers") or () if one != FINALIZER]
        if len(kept) == len(meta.get("finalizers") or ()):
            return
        patch = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "finalizers": kept}}
        try:
            await self._client.patch(PODS, meta["name"], patch, meta["namespace"])
        except ApiError as exc:
            if exc.code != 404:
                raise


def _finished(job: Object) -> Object | None:
    for kind in ("Complete", "Failed"):
        found = condition(job, kind)
        if found is not None and found.get("status") == "True":
            return dict(found)
    return None


def _set(conditions: list[Object], kind: str, reason: str, message: str, now: str, *, value: str = "True") -> None:
    old = next((one for one in conditions if one.get("type") == kind), None)
    if old is not None and old.get("status") == value:
        return
    if old is not None:
        conditions.remove(old)
    conditions.append(
        {
            "type": kind,
            "status": value,
            "lastProbeTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }
    )
