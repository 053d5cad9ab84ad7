"""A pod's status from what is known of it: phase, conditions, container states. Pure: time is an argument.

Source  Kubernetes: "Pod Lifecycle"; core/v1 PodStatus; reasons and texts as kubelet words them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.edge.edged.adoption import ANNOTATION_SPEC, container_hash
from edgesite.edge.edged.imagenames import InvalidImageName, normalized
from edgesite.edge.edged.lifecycle import has_ended, is_over
from edgesite.edge.edged.pod import FINAL_PHASES, Pod
from edgesite.edge.edged.resources import qos_class
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus
from edgesite.edge.edged.state import PodState, Waiting
from edgesite.kube.times import format_time

__all__ = ["FOREIGN", "init_done", "pod_phase", "pod_status", "status_patch"]

_RESIZING: Final = ("PodResizePending", "PodResizeInProgress")
_LISTS: Final = ("podIPs", "hostIPs")
#: Members of a pod's status that are not ours to take away.
FOREIGN: Final = frozenset({"nominatedNodeName", "resize", "resourceClaimStatuses"})


def pod_status(
    state: PodState, *, host_ips: Sequence[str], runtime_name: str, now: float, ended: bool = False
) -> dict[str, Any]:
    """Return the status. ``now`` is seconds since the epoch; ``ended``: the pod is over whatever its restart policy says."""
    pod = state.pod
    before = state.reported or pod.status
    start_time = state.start_time or before.get("startTime") or format_time(now)
    if state.rejection is not None:
        return {
            "phase": "Failed",
            "reason": state.rejection.reason,
            "message": state.rejection.message,
            "startTime": start_time,
            "qosClass": qos_class(pod),
        }
    inits = [_container(state, one, runtime_name, init=True) for one in pod.init_containers]
    mains = [_container(state, one, runtime_name, init=False) for one in pod.containers]
    initialized = init_done(state)
    phase = pod_phase(pod, inits, mains, initialized)
    if ended and phase in ("Running", "Pending"):
        phase = _ended_phase(mains)
    if state.termination is not None:
        phase = "Failed"
    elif before.get("phase") in FINAL_PHASES:
        phase = before["phase"]  # whatever the runtime has forgotten since
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": _conditions(state, phase, inits, mains, initialized, before.get("conditions") or (), now),
        "startTime": start_time,
        "qosClass": pod.status.get("qosClass") or qos_class(pod),
        "containerStatuses": mains,
    }
    if host_ips:
        status["hostIP"] = host_ips[0]
        status["hostIPs"] = [{"ip": one} for one in host_ips]
    ips = tuple(host_ips) if pod.host_network else state.ips
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": one} for one in ips]
    if inits:
        status["initContainerStatuses"] = inits
    if pod.ephemeral_containers:
        status["ephemeralContainerStatuses"] = [
            _ephemeral(state, one, runtime_name) for one in pod.ephemeral_containers
        ]
    if generation := pod.metadata.get("generation"):
        status["observedGeneration"] = generation
        for one in status["conditions"]:
            one["observedGeneration"] = generation
    if state.termination is not None:
        status |= {"reason": state.termination.reason, "message": state.termination.message}
    elif phase == before.get("phase") == "Failed":
        status |= {name: before[name] for name in ("reason", "message") if before.get(name)}
    return status


def status_patch(uid: str, before: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strategic merge patch that makes the status of the pod with ``uid`` ``status``, whatever of ours it had."""
    patch: dict[str, Any] = {name: None for name in before if name not in status and name not in FOREIGN}
    patch |= status
    shown = {one["type"] for one in status.get("conditions") or ()}
    past = [
        one["type"] for one in before.get("conditions") or () if one["type"] in _RESIZING and one["type"] not in shown
    ]
    if past:  # a merge keeps what it is not told of
        patch["conditions"] = [*status["conditions"], *({"type": one, "$patch": "delete"} for one in past)]
    for name in _LISTS:
        gone = [one for one in before.get(name) or () if name in status and one not in status[name]]
        if gone:
            # These lists merge by address. API servers before v1.24 store a directive where there was no list: none is sent in vain.
            patch[name] = [*status[name], *({"ip": one["ip"], "$patch": "delete"} for one in gone if one.get("ip"))]
    return {"metadata": {"uid": uid}, "status": patch}


def is_marked_not_ready(told: Mapping[str, Any], reported: Mapping[str, Any]) -> bool:
    """Whether somebody else has marked a pod as not ready that was reported to be: Kubernetes' node lifecycle controller does so to
    pods of a silent node, and does not take it back. It leaves ContainersReady alone, where a report from here has both."""
    there, here = _condition_values(told), _condition_values(reported)
    return here.get("Ready") == "True" != there.get("Ready", "True") and there.get("ContainersReady") == "True"


def _condition_values(status: Mapping[str, Any]) -> dict[str, Any]:
    return {one.get("type", ""): one.get("status") for one in status.get("conditions") or ()}


def init_done(state: PodState) -> bool:
    """Whether the init containers have done their work, so that the main ones may run."""
    pod = state.pod
    if all(has_ended(state, one) for one in pod.containers):
        return True
    if any(state.current(one["name"]) for one in pod.containers):
        return True  # main containers are only made after it; the runtime may have forgotten the init containers since
    for container in pod.init_containers:
        found = state.current(container["name"]) or (state.latest(container["name"]) if is_over(state) else None)
        if found is None:
            return False
        if pod.is_sidecar(container):
            if found.state is not ContainerState.RUNNING or not state.started.get(found.id, True):
                return False
        elif found.state is not ContainerState.EXITED or found.exit_code:
            return False
    return bool(state.sandboxes) or not pod.init_containers


def pod_phase(
    pod: Pod, inits: Sequence[Mapping[str, Any]], mains: Sequence[Mapping[str, Any]], initialized: bool
) -> str:
    """Return the phase that container statuses add up to."""
    if not initialized and inits:
        failed = [one for one in inits if (one["state"].get("terminated") or {}).get("exitCode")]
        if failed and pod.restart_policy == "Never":
            return "Failed"
        if not any("running" in one["state"] for one in mains):
            return "Pending"
    running = waiting = stopped = succeeded = 0
    for one in mains:
        state = one["state"]
        if "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            succeeded += not state["terminated"]["exitCode"]
        elif (one.get("lastState") or {}).get("terminated"):
            stopped += 1
        else:
            waiting += 1
    if waiting:
        return "Pending"
    if running or pod.restart_policy == "Always":
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if pod.restart_policy == "Never" else "Running"


def _ended_phase(mains: Sequence[Mapping[str, Any]]) -> str:
    codes = [(one["state"].get("terminated") or {}).get("exitCode", 1) for one in mains]
    return "Failed" if any(codes) else "Succeeded"


def _container(state: PodState, container: Mapping[str, Any], runtime_name: str, *, init: bool) -> dict[str, Any]:
    name = container["name"]
    history = state.all_of(name)
    latest = history[0] if history else None
    last: dict[str, Any] = {}
    if latest is None:
        earlier = _told(state, name)
        shown: dict[str, Any] = {"waiting": _waiting(state, name, init)}
        last = dict((earlier or {}).get("lastState") or {})
        past = (earlier or {}).get("state") or {}
        terminated = past.get("terminated") or (_lost(past["running"], earlier or {}) if "running" in past else None)
        if terminated:
            if state.finished or state.pod.deleting:
                shown = {"terminated": terminated}  # the runtime has forgotten it, but what became of it is known
            else:
                last = {"terminated": terminated}
        restarts = max(state.reported_restarts(name), 0)
    else:
        shown = _shown(state, latest, runtime_name)
        waiting = state.waiting.get(name)
        if waiting is not None and latest.state is not ContainerState.RUNNING:
            last = shown if "terminated" in shown else {}
            shown = {"waiting": _plain(waiting)}
        elif len(history) > 1:
            last = _shown(state, history[1], runtime_name)
            last = last if "terminated" in last else {}
        else:
            last = dict((_told(state, name) or {}).get("lastState") or {}) if latest.attempt else {}
        restarts = latest.attempt
    status: dict[str, Any] = {
        "name": name,
        "state": shown,
        "lastState": last,
        "ready": _is_ready(state, container, latest, shown, init),
        "restartCount": restarts,
        "image": _image_name(container, latest),
        "imageID": latest.image_ref if latest else "",
        "started": _is_started(state, latest, shown),
    }
    if latest is not None:
        status["containerID"] = f"{runtime_name}://{latest.id}"
        if resources := state.actual.get(latest.id):
            status["resources"] = resources
        if mounts := _mounts(state, container):
            status["volumeMounts"] = mounts
    return status


def _mounts(state: PodState, container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How a container's volumes are mounted, if it cares how far down they are read-only."""
    mounts = container.get("volumeMounts") or ()
    if not any(one.get("recursiveReadOnly") for one in mounts):
        return []
    shown = []
    for one in mounts:
        told = {"name": one.get("name", ""), "mountPath": one.get("mountPath", "")}
        if one.get("readOnly"):
            wanted = one.get("recursiveReadOnly") or "Disabled"
            told |= {
                "readOnly": True,
                "recursiveReadOnly": "Enabled" if wanted != "Disabled" and state.recursive_read_only else "Disabled",
            }
        shown.append(told)
    return shown


def _lost(running: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """How a container ended that ran when it was last seen, and of which the runtime knows nothing any more."""
    lost = {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was looked at again: it had been running",
        "startedAt": running.get("startedAt"),
        "finishedAt": None,
    }
    return lost | ({"containerID": told["containerID"]} if told.get("containerID") else {})


def _ephemeral(state: PodState, container: Mapping[str, Any], runtime_name: str) -> dict[str, Any]:
    status = _container(state, container, runtime_name, init=False)
    del status["started"]  # no probe ever asks it
    return status | {"ready": False}


def _told(state: PodState, name: str) -> Mapping[str, Any] | None:
    """What the pod's status last said of a container."""
    for status in (state.reported, state.pod.status):
        for member in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
            for one in status.get(member) or ():
                if one.get("name") == name:
                    found: Mapping[str, Any] = one
                    return found
    return None


def _image_name(container: Mapping[str, Any], latest: ContainerStatus | None) -> str:
    """The name that the pod's spec has for the image. A runtime tells any of those that its image has."""
    wanted = str(container.get("image", ""))
    if latest is None or not latest.image or latest.image.startswith("sha256:"):
        return wanted
    if latest.image == wanted or latest.annotations.get(ANNOTATION_SPEC) != container_hash(container):
        return latest.image  # the latter: made from another spec than the present one, or by another kubelet
    try:
        return normalized(wanted)
    except InvalidImageName:
        return latest.image


def _waiting(state: PodState, name: str, init: bool) -> dict[str, str]:
    if (known := state.waiting.get(name)) is not None:
        return _plain(known)
    later = bool(state.pod.init_containers) and not init and not init_done(state)
    before_inits = init and len(state.pod.init_containers) > 0
    return {"reason": "PodInitializing" if later or before_inits else "ContainerCreating"}


def _plain(waiting: Waiting) -> dict[str, str]:
    return {"reason": waiting.reason} | ({"message": waiting.message} if waiting.message else {})


def _shown(state: PodState, status: ContainerStatus, runtime_name: str) -> dict[str, Any]:
    if status.state in (ContainerState.RUNNING, ContainerState.UNKNOWN):
        return {"running": {"startedAt": format_time(status.started_ns / 1e9)}}
    if status.state is ContainerState.CREATED:
        return {"waiting": _plain(state.waiting.get(status.name, Waiting("ContainerCreating")))}
    terminated: dict[str, Any] = {
        "exitCode": status.exit_code,
        "reason": status.reason or ("Error" if status.exit_code else "Completed"),
        "startedAt": _time_or_none(status.started_ns),
        "finishedAt": _time_or_none(status.finished_ns),
        "containerID": f"{runtime_name}://{status.id}",
    }
    if message := state.messages.get(status.id) or status.message:
        terminated["message"] = message
    return {"terminated": terminated}


def _time_or_none(ns: int) -> str | None:
    return format_time(ns / 1e9) if ns else None


def _is_started(state: PodState, latest: ContainerStatus | None, shown: Mapping[str, Any]) -> bool:
    return latest is not None and "running" in shown and state.started.get(latest.id, True)


def _is_ready(
    state: PodState, container: Mapping[str, Any], latest: ContainerStatus | None, shown: Mapping[str, Any], init: bool
) -> bool:
    if latest is None:
        return False
    if init and not state.pod.is_sidecar(dict(container)):
        return not (shown.get("terminated") or {"exitCode": 1})["exitCode"]
    if "running" not in shown or not state.started.get(latest.id, True):
        return False
    return state.ready.get(latest.id, not container.get("readinessProbe"))


def _conditions(
    state: PodState,
    phase: str,
    inits: Sequence[Mapping[str, Any]],
    mains: Sequence[Mapping[str, Any]],
    initialized: bool,
    before: Sequence[Mapping[str, Any]],
    now: float,
) -> list[dict[str, Any]]:
    over = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase)
    unready = [one["name"] for one in mains if not one["ready"]]
    unready += [
        one["name"]
        for one, spec in zip(inits, state.pod.init_containers, strict=True)
        if state.pod.is_sidecar(spec) and not one["ready"]
    ]
    incomplete = [one["name"] for one in inits if not one["ready"]]
    wanted: list[tuple[str, bool, str, str]] = []
    has_sandbox = state.sandbox is not None and (bool(state.ips) or state.pod.host_network)
    wanted.append(("PodReadyToStartContainers", has_sandbox, "", ""))
    if over == "PodCompleted":
        wanted.append(("Initialized", True, over, ""))
    elif initialized:
        wanted.append(("Initialized", True, "", ""))
    else:
        text = f"containers with incomplete status: [{' '.join(incomplete)}]"
        wanted.append(("Initialized", False, "ContainersNotInitialized", text))
    why, text = "", ""
    if over:
        why = over
    elif unready:
        why, text = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    gate = "" if why else _closed_gate(state.pod)
    wanted.append(("Ready", not (why or gate), why or ("ReadinessGatesNotReady" if gate else ""), text or gate))
    wanted.append(("ContainersReady", not why, why, text))
    wanted.append(("PodScheduled", True, "", ""))
    if state.termination is not None and state.termination.disruption:
        wanted.append(("DisruptionTarget", True, "TerminationByKubelet", state.termination.message))
    if state.resize is not None:
        wanted.append((state.resize.condition, True, state.resize.reason, state.resize.message))
    return [_condition(*one, before, now) for one in wanted]


def _closed_gate(pod: Pod) -> str:
    held = {one.get("type"): one.get("status") for one in pod.status.get("conditions") or ()}
    said = []
    for gate in pod.spec.get("readinessGates") or ():
        kind = gate.get("conditionType")
        if kind not in held:
            said.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif held[kind] != "True":
            said.append(f'the status of pod readiness gate "{kind}" is not "True", but {held[kind]}')
    return f"[{', '.join(said)}]" if len(said) > 1 else "".join(said)


def _condition(
    kind: str, holds: bool, reason: str, message: str, before: Sequence[Mapping[str, Any]], now: float
) -> dict[str, Any]:
    word = "True" if holds else "False"
    old = next((one for one in before if one.get("type") == kind), None)
    since = old.get("lastTransitionTime") if old and old.get("status") == word else None
    return {
        "type": kind,
        "status": word,
        "lastProbeTime": None,
        "lastTransitionTime": since or format_time(now),
        # Null, so that a merge takes away what an earlier state had said.
        "reason": reason or None,
        "message": message or None,
    }
