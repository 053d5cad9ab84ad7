"""The status of a Deployment: counts, conditions, and whether a rollout gets on. Pure; time is an argument.

Units   Times are seconds since the epoch.
Source  kube-controller-manager's deployment controller: condition types, reasons and messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edgesite.controlplane.deployment.revisions import number, replicas_of
from edgesite.controlplane.deployment.rollout import available, bounds, total
from edgesite.kube.times import format_time, parse_time

__all__ = ["counts", "has_deadline", "is_complete", "next_status", "set_condition", "stuck_in_s"]

NO_DEADLINE: Final = 2**31 - 1  #: the API's word for "wait for ever"
Object = dict[str, Any]


def has_deadline(deployment: Object) -> bool:
    deadline = deployment["spec"].get("progressDeadlineSeconds")
    return deadline is not None and deadline != NO_DEADLINE


def _condition(status: Object, kind: str) -> Object | None:
    return next((one for one in status.get("conditions") or () if one.get("type") == kind), None)


def set_condition(
    status: Object, kind: str, value: str, reason: str, message: str, now: float, *, renew: bool = False
) -> None:
    """Set a condition. One that says the same stays as it is, unless ``renew`` asks for a new update time."""
    old = _condition(status, kind)
    if old is not None and (old.get("status"), old.get("reason")) == (value, reason) and not renew:
        return
    stamp = format_time(now)
    changed = old.get("lastTransitionTime", stamp) if old is not None and old.get("status") == value else stamp
    fresh = {
        "type": kind,
        "status": value,
        "lastUpdateTime": stamp,
        "lastTransitionTime": changed,
        "reason": reason,
        "message": message,
    }
    status["conditions"] = [*(one for one in status.get("conditions") or () if one.get("type") != kind), fresh]


def counts(deployment: Object, sets: Sequence[Object], new: Object | None) -> Object:
    """Return the counts of the status, as the sets have them."""

    def count(member: str, some: Sequence[Object]) -> int:
        return sum(number((one.get("status") or {}).get(member)) for one in some)

    found = {
        "replicas": count("replicas", sets),
        "updatedReplicas": count("replicas", [new] if new is not None else []),
        "readyReplicas": count("readyReplicas", sets),
        "availableReplicas": available(sets),
        "unavailableReplicas": max(total(sets) - available(sets), 0),
    }
    status: Object = {name: value for name, value in found.items() if value}
    status["observedGeneration"] = deployment["metadata"].get("generation", 0)
    old = deployment.get("status") or {}
    if old.get("collisionCount"):
        status["collisionCount"] = old["collisionCount"]
    status["conditions"] = [dict(one) for one in old.get("conditions") or ()]
    return status


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether the rollout is done: all pods are of the new template, available, and no others are left."""
    wanted = replicas_of(deployment)
    return (
        number(status.get("updatedReplicas")) == wanted
        and number(status.get("replicas")) == wanted
        and number(status.get("availableReplicas")) == wanted
        and number(status.get("observedGeneration")) >= number(deployment["metadata"].get("generation"))
    )


def next_status(deployment: Object, sets: Sequence[Object], new: Object | None, now: float) -> Object:
    """Return the whole status as it should be now."""
    status = counts(deployment, sets, new)
    limits = bounds(deployment)
    if number(status.get("availableReplicas")) >= limits.least:
        text = "Deployment has minimum availability."
        set_condition(status, "Available", "True", "MinimumReplicasAvailable", text, now)
    else:
        text = "Deployment does not have minimum availability."
        set_condition(status, "Available", "False", "MinimumReplicasUnavailable", text, now)
    _judge_progress(deployment, status, new, now)
    _copy_failure(status, sets, new)
    return status


def _judge_progress(deployment: Object, status: Object, new: Object | None, now: float) -> None:
    if not has_deadline(deployment):
        status["conditions"] = [one for one in status["conditions"] if one.get("type") != "Progressing"]
        return
    if deployment["spec"].get("paused"):
        return
    current = _condition(status, "Progressing")
    done = number(status.get("replicas")) == number(status.get("updatedReplicas"))
    if done and current is not None and current.get("reason") == "NewReplicaSetAvailable":
        return
    what = (
        f'ReplicaSet "{new["metadata"]["name"]}"'
        if new is not None
        else f'Deployment "{deployment["metadata"]["name"]}"'
    )
    if is_complete(deployment, status):
        set_condition(
            status,
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            f"{what} has successfully progressed.",
            now,
            renew=True,
        )
    elif _gets_on(deployment.get("status") or {}, status):
        set_condition(status, "Progressing", "True", "ReplicaSetUpdated", f"{what} is progressing.", now, renew=True)
    elif _is_late(deployment, current, now):
        set_condition(
            status, "Progressing", "False", "ProgressDeadlineExceeded", f"{what} has timed out progressing.", now
        )


def _gets_on(old: Object, new: Object) -> bool:
    def of(status: Object, member: str) -> int:
        return number(status.get(member))

    return (
        of(new, "updatedReplicas") > of(old, "updatedReplicas")
        or of(new, "replicas") - of(new, "updatedReplicas") < of(old, "replicas") - of(old, "updatedReplicas")
        or of(new, "readyReplicas") > of(old, "readyReplicas")
        or of(new, "availableReplicas") > of(old, "availableReplicas")
    )


def _is_late(deployment: Object, current: Object | None, now: float) -> bool:
    if current is None or current.get("reason") == "NewReplicaSetAvailable":
        return False
    if current.get("reason") == "ProgressDeadlineExceeded":
        return True
    return _late_at(deployment, current) <= now


def _late_at(deployment: Object, current: Object) -> float:
    return parse_time(current["lastUpdateTime"]) + float(deployment["spec"]["progressDeadlineSeconds"])


def _copy_failure(status: Object, sets: Sequence[Object], new: Object | None) -> None:
    """Show that pods cannot be made: of the new set, or of any where there is no new one."""
    status["conditions"] = [one for one in status["conditions"] if one.get("type") != "ReplicaFailure"]
    for one in [new] if new is not None else sets:
        failure = _condition(one.get("status") or {}, "ReplicaFailure")
        if failure is not None:
            copied = {**failure, "lastUpdateTime": failure.get("lastTransitionTime")}
            status["conditions"].append(copied)
            return


def stuck_in_s(deployment: Object, status: Object, now: float) -> float | None:
    """Return the seconds until a rollout that does not get on counts as failed; None if that cannot happen."""
    current = _condition(status, "Progressing")
    if not has_deadline(deployment) or current is None or is_complete(deployment, status):
        return None
    if deployment["spec"].get("paused") or current.get("reason") == "ProgressDeadlineExceeded":
        return None
    if current.get("reason") == "NewReplicaSetAvailable":
        return None
    return max(_late_at(deployment, current) - now, 0.0) + 1.0
