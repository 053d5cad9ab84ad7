"""Pre-pull jobs: their state, as a pure function of what the nodes have told.

    status.state     Checking, Pulling, Successful, Failed          status.status[]: one entry a node, images included

A job is failed as soon as more nodes have failed than ``failureTolerate`` (a share, 0 to 1) allows; nodes that have not begun are
then left alone. ``concurrency`` nodes work at once.

Source  KubeEdge v1.16, operations.kubeedge.io/v1alpha1 (members, states, events); v1.23.1 (recorded: what nodes tell).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edgesite.kube import json

__all__ = [
    "FAILED",
    "FINAL",
    "PULLING",
    "SUCCESSFUL",
    "begin",
    "ended",
    "is_at_work",
    "is_over",
    "summed_up",
    "template_of",
    "timeout_of",
    "to_begin",
    "told",
]

Object = dict[str, Any]
CHECKING: Final = "Checking"
PULLING: Final = "Pulling"
SUCCESSFUL: Final = "Successful"
FAILED: Final = "Failed"
FINAL: Final = frozenset({SUCCESSFUL, FAILED})
_SUCCESS, _FAILURE = "Success", "Failure"
_TIMEOUT_S: Final = 300
_REASON_CHARS: Final = 1024


def template_of(job: Object) -> Object:
    """What is to be pulled where."""
    return (job.get("spec") or {}).get("imagePrePullTemplate") or {}


def timeout_of(job: Object) -> float:
    """Seconds that one node may take."""
    value = template_of(job).get("timeoutSeconds")
    return float(value) if isinstance(value, int) and value > 0 else _TIMEOUT_S


def is_over(status: Object) -> bool:
    return status.get("state") in FINAL


def is_at_work(status: Object, node: str) -> bool:
    """Whether a node has been told, and is not done."""
    rows = (one.get("nodeStatus") or {} for one in status.get("status") or ())
    return any(one.get("nodeName") == node and one.get("state") not in FINAL for one in rows)


def begin(node: str, now: str) -> Object:
    """The entry of a node that was told."""
    return {"nodeStatus": _node_status(node, CHECKING, "Init", _SUCCESS, "", now)}


def ended(node: str, event: str, why: str, now: str, images: Sequence[Object] = ()) -> Object:
    """The entry of a node that has done its work, or failed with ``why``."""
    state = FAILED if why else SUCCESSFUL
    entry: Object = {"nodeStatus": _node_status(node, state, event, _FAILURE if why else _SUCCESS, why, now)}
    if images:
        entry["imageStatus"] = list(images)
    return entry


def told(entry: Object | None, node: str, content: Object, now: str) -> Object | None:
    """The entry after a node has told of an action; None if that changes nothing. A final state stays."""
    state = ((entry or {}).get("nodeStatus") or {}).get("state")
    if entry is None or state in FINAL:
        return None
    action, succeeded = str(content.get("action") or ""), bool(content.get("succ"))
    why = "" if succeeded else str(content.get("reason") or "the node does not say why")[:_REASON_CHARS]
    if action == "Check" and succeeded:
        return {"nodeStatus": _node_status(node, PULLING, action, _SUCCESS, "", now)}
    return ended(node, action, why, now, _images(content.get("extend")))


def summed_up(entries: Sequence[Object], expected: int, spec: Object, now: str) -> Object:
    """The status of the whole job."""
    states = [(one.get("nodeStatus") or {}).get("state") for one in entries]
    failed, done = states.count(FAILED), states.count(SUCCESSFUL)
    state, action = (PULLING if done or failed or PULLING in states else CHECKING), _SUCCESS
    if failed and failed > expected * _tolerated(spec):
        state, action = FAILED, _FAILURE
    elif failed + done >= expected:
        state = SUCCESSFUL
    reason = f"{failed} of {expected} nodes failed" if failed else ""
    event = "Init" if state == CHECKING else "Pull"
    return {"state": state, "event": event, "action": action, "reason": reason, "time": now, "status": list(entries)}


def to_begin(names: Sequence[str], status: Object, spec: Object) -> list[str]:
    """The nodes that may begin now."""
    entries = status.get("status") or ()
    begun = {
        (one.get("nodeStatus") or {}).get("nodeName"): (one.get("nodeStatus") or {}).get("state") for one in entries
    }
    at_work = sum(state not in FINAL for state in begun.values())
    at_once = spec.get("concurrency")
    free = (at_once if isinstance(at_once, int) and at_once > 0 else 1) - at_work
    return [name for name in names if name not in begun][: max(free, 0)]


def _node_status(node: str, state: str, event: str, action: str, reason: str, now: str) -> Object:
    made = {"nodeName": node, "state": state, "event": event, "action": action, "time": now}
    return {**made, "reason": reason} if reason else made


def _tolerated(spec: Object) -> float:
    try:
        return min(max(float(spec.get("failureTolerate") or 0.0), 0.0), 1.0)
    except (TypeError, ValueError):
        return 0.0


def _images(extend: Any) -> list[Object]:
    """What became of each image: a JSON text of {"image", "status": "True" | "False", "reason"}."""
    try:
        rows = json.loads(extend) if isinstance(extend, str) and extend else []
    except json.InvalidJson:
        return []
    found = []
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("image"), str):
            state = SUCCESSFUL if row.get("status") == "True" else FAILED
            reason = {"reason": str(row["reason"])[:_REASON_CHARS]} if row.get("reason") else {}
            found.append({"image": row["image"], "state": state, **reason})
    return found
