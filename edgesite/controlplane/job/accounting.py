"""How a Job stands: pods counted once, indexes done, whether it is over. Pure; time is an argument.

A finished pod is first noted in the status as not yet counted, then loses its finalizer, then moves to the counters: so a crash at any
point counts it neither twice nor never.

Source  batch/v1 Job (tracking finalizer, uncountedTerminatedPods, completedIndexes, conditions, reasons).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgesite.controlplane.pods import is_terminating
from edgesite.kube.times import parse_time

__all__ = ["FINALIZER", "INDEX", "Standing", "assess", "format_indexes", "index_of", "is_indexed", "parse_indexes"]

FINALIZER: Final = "batch.kubernetes.io/job-tracking"
INDEX: Final = "batch.kubernetes.io/job-completion-index"
Object = dict[str, Any]


@dataclass(slots=True)
class Standing:
    """What is so, and what follows."""

    succeeded: int = 0  # counters of the status
    failed: int = 0
    uncounted_succeeded: list[str] = field(default_factory=list)  # uids
    uncounted_failed: list[str] = field(default_factory=list)
    release: list[Object] = field(default_factory=list)  # pods that may lose the finalizer once the status is written
    active: list[Object] = field(default_factory=list)
    terminating: int = 0
    done_indexes: set[int] = field(default_factory=set)
    failure: tuple[str, str] | None = None  # reason and message
    complete: bool = False
    deadline_in_s: float | None = None

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.uncounted_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.uncounted_failed)


def is_indexed(job: Mapping[str, Any]) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def index_of(pod: Mapping[str, Any]) -> int | None:
    """Return the completion index of a pod of an indexed job."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX)
    return int(text) if text is not None and text.isdecimal() else None


def parse_indexes(text: str) -> set[int]:
    """Read "0-2,5"; what cannot be read is left out."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first.isdecimal() and (not dash or last.isdecimal()):
            found.update(range(int(first), int(last if dash else first) + 1))
    return found


def format_indexes(indexes: Iterable[int]) -> str:
    """Write "0-2,5"; runs of three and more are joined."""
    parts: list[str] = []
    run: list[int] = []
    for index in [*sorted(set(indexes)), None]:
        if run and (index is None or index != run[-1] + 1):
            parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(one) for one in run]
            run = []
        if index is not None:
            run.append(index)
    return ",".join(parts)


def assess(job: Mapping[str, Any], pods: Sequence[Object], now: float) -> Standing:
    """Return how the job stands."""
    status, spec = job.get("status") or {}, job["spec"]
    standing = Standing(int(status.get("succeeded") or 0), int(status.get("failed") or 0))
    standing.done_indexes = parse_indexes(status.get("completedIndexes") or "")
    _account(standing, job, pods)
    completions = spec.get("completions")
    if is_indexed(job):
        standing.complete = len(standing.done_indexes) >= int(completions or 0)
    elif completions is None:
        standing.complete = standing.all_succeeded > 0 and not standing.active
    else:
        standing.complete = standing.all_succeeded >= int(completions)
    _judge(standing, job, now)
    return standing


def _account(standing: Standing, job: Mapping[str, Any], pods: Sequence[Object]) -> None:
    completions, suspended = int(job["spec"].get("completions") or 0), bool(job["spec"].get("suspend"))
    noted = (job.get("status") or {}).get("uncountedTerminatedPods") or {}
    held = {pod["metadata"]["uid"] for pod in pods if FINALIZER in (pod["metadata"].get("finalizers") or ())}
    before = {name: list(noted.get(name) or ()) for name in ("succeeded", "failed")}
    standing.uncounted_succeeded = [uid for uid in before["succeeded"] if uid in held]
    standing.uncounted_failed = [uid for uid in before["failed"] if uid in held]
    standing.failed += len(before["failed"]) - len(standing.uncounted_failed)
    gone_succeeded = len(before["succeeded"]) - len(standing.uncounted_succeeded)
    for pod in pods:
        uid, outcome = pod["metadata"]["uid"], _outcome(pod)
        if outcome is None:
            if is_terminating(pod):
                standing.terminating += 1
            else:
                standing.active.append(pod)
            continue
        if uid not in held:
            continue
        standing.release.append(pod)
        if suspended and outcome == "failed" and is_terminating(pod):
            continue  # ended by the suspension, which is no failure
        if outcome == "failed" and uid not in standing.uncounted_failed:
            standing.uncounted_failed.append(uid)
        if outcome == "succeeded" and uid not in standing.uncounted_succeeded:
            standing.uncounted_succeeded.append(uid)
        index = index_of(pod)
        if outcome == "succeeded" and index is not None and index < completions:
            standing.done_indexes.add(index)
    if is_indexed(job):  # an index counts once, however many of its pods have succeeded
        uncounted = {index_of(pod) for pod in pods if pod["metadata"]["uid"] in standing.uncounted_succeeded}
        standing.succeeded = len(standing.done_indexes - uncounted)
    else:
        standing.succeeded += gone_succeeded


def _outcome(pod: Object) -> str | None:
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Succeeded":
        return "succeeded"
    if phase == "Failed":
        return "failed"
    if is_terminating(pod) and (
        not pod["spec"].get("nodeName") or pod["metadata"].get("deletionGracePeriodSeconds") == 0
    ):
        return "failed"  # it never ran, or its node has let go of it without a last word
    return None


def _judge(standing: Standing, job: Mapping[str, Any], now: float) -> None:
    spec, status = job["spec"], job.get("status") or {}
    if standing.complete:
        return
    limit = spec.get("backoffLimit")
    limit = 6 if limit is None else int(limit)
    restarts = 0
    if (spec["template"]["spec"].get("restartPolicy")) == "OnFailure":
        restarts = sum(
            one.get("restartCount", 0)
            for pod in standing.active
            for name in ("initContainerStatuses", "containerStatuses")
            for one in (pod.get("status") or {}).get(name) or ()
        )
    if standing.all_failed > limit or (restarts and restarts >= max(limit, 1)):
        standing.failure = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and status.get("startTime") and not spec.get("suspend"):
        standing.deadline_in_s = parse_time(status["startTime"]) + float(deadline) - now
        if standing.deadline_in_s <= 0:
            standing.failure = ("DeadlineExceeded", "Job was active longer than specified deadline")
