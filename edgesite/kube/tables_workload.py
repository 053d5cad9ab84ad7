"""Printers of pods and of what runs them.

Source  Columns of kubectl for these kinds, and the meaning of a pod's STATUS column in kube-apiserver's printers.
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube import times
from edgesite.kube.tablecells import (
    NONE,
    UNKNOWN,
    UNSET,
    Printer,
    age,
    columns,
    containers,
    flag,
    images,
    labels,
    selector,
    since,
)

__all__ = ["PRINTERS", "pod_status"]

Object = dict[str, Any]


def _pod(pod: Object, now: float) -> list[Any]:
    spec, status = pod.get("spec", {}), pod.get("status", {})
    reason, ready, total, restarts, last = pod_status(pod)
    text = str(restarts)
    if restarts and last:
        text = f"{restarts} ({since(last, now)} ago)"
    ips = status.get("podIPs", [])
    gates = spec.get("readinessGates", [])
    met = sum(_condition(status, gate.get("conditionType", "")) == "True" for gate in gates)
    return [
        pod["metadata"].get("name", ""),
        f"{ready}/{total}",
        reason,
        text,
        age(pod, now),
        (ips[0].get("ip") if ips else status.get("podIP")) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{met}/{len(gates)}" if gates else NONE,
    ]


def pod_status(pod: Object) -> tuple[str, int, int, int, str]:
    """The STATUS of a pod, containers ready, containers in all, restarts, and the time of the last one ("": none known)."""
    spec, status = pod.get("spec", {}), pod.get("status", {})
    reason = status.get("reason") or status.get("phase", "")
    if _condition_reason(status, "PodScheduled") == "SchedulingGated":
        reason = "SchedulingGated"
    sidecars = {one.get("name") for one in spec.get("initContainers", ()) if one.get("restartPolicy") == "Always"}
    total = len(spec.get("containers", ())) + len(sidecars)
    init_reason, ready, restarts, last, sidecar_restarts, sidecar_last = _init_status(pod, sidecars)
    if init_reason and _condition(status, "Initialized") != "True":
        reason = init_reason
    else:
        restarts, last = sidecar_restarts, sidecar_last
        reason, running = init_reason or reason, 0
        for one in reversed(status.get("containerStatuses", ())):
            restarts += one.get("restartCount", 0)
            last = max(last, _finished(one))
            reason, is_running = _container_reason(one, reason)
            running += is_running
        ready += running
        if reason == "Completed" and running:
            reason = "Running" if _condition(status, "Ready") == "True" else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return reason, ready, total, restarts, last


def _init_status(pod: Object, sidecars: set[Any]) -> tuple[str, int, int, str, int, str]:
    """Why the pod is still initialising ("": it is not), sidecars ready; restarts and their last time, of all and of sidecars."""
    count = len(pod.get("spec", {}).get("initContainers", ()))
    ready = restarts = sidecar_restarts = 0
    last = sidecar_last = ""
    for index, one in enumerate(pod.get("status", {}).get("initContainerStatuses", ())):
        restarts += one.get("restartCount", 0)
        last = max(last, _finished(one))
        is_sidecar = one.get("name") in sidecars
        if is_sidecar:
            sidecar_restarts += one.get("restartCount", 0)
            sidecar_last = max(sidecar_last, _finished(one))
        state = one.get("state", {})
        terminated, waiting = state.get("terminated"), state.get("waiting", {})
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if is_sidecar and one.get("started"):
            ready += bool(one.get("ready"))
            continue
        if terminated is not None:
            reason = f"Init:{terminated.get('reason') or _exit(terminated)}"
        elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
            reason = f"Init:{waiting['reason']}"
        else:
            reason = f"Init:{index}/{count}"
        return reason, ready, restarts, last, sidecar_restarts, sidecar_last
    return "", ready, restarts, last, sidecar_restarts, sidecar_last


def _container_reason(status: Object, reason: str) -> tuple[str, int]:
    state = status.get("state", {})
    waiting, terminated = state.get("waiting", {}), state.get("terminated")
    if waiting.get("reason"):
        return waiting["reason"], 0
    if terminated is not None:
        return terminated.get("reason") or _exit(terminated), 0
    return reason, int(bool(status.get("ready")) and "running" in state)


def _exit(terminated: Object) -> str:
    signal = terminated.get("signal", 0)
    return f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode', 0)}"


def _finished(status: Object) -> str:
    """When the container's last run ended. Times of the API sort as text."""
    return status.get("lastState", {}).get("terminated", {}).get("finishedAt") or ""


def _condition(status: Object, kind: str) -> str:
    return next((one.get("status", "") for one in status.get("conditions", ()) if one.get("type") == kind), "")


def _condition_reason(status: Object, kind: str) -> str:
    return next((one.get("reason", "") for one in status.get("conditions", ()) if one.get("type") == kind), "")


def _deployment(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    return [
        obj["metadata"].get("name", ""),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age(obj, now),
        containers(spec.get("template", {})),
        images(spec.get("template", {})),
        selector(spec.get("selector")),
    ]


def _replica_set(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    chosen = spec.get("selector") or {}
    plain = obj.get("kind") == "ReplicationController" or not {"matchLabels", "matchExpressions"} & set(chosen)
    return [
        obj["metadata"].get("name", ""),
        spec.get("replicas", 1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age(obj, now),
        containers(spec.get("template", {})),
        images(spec.get("template", {})),
        labels(chosen) if plain else selector(chosen),
    ]


def _stateful_set(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    return [
        obj["metadata"].get("name", ""),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
        age(obj, now),
        containers(spec.get("template", {})),
        images(spec.get("template", {})),
    ]


def _daemon_set(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    template = spec.get("template", {})
    return [
        obj["metadata"].get("name", ""),
        status.get("desiredNumberScheduled", 0),
        status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0),
        status.get("updatedNumberScheduled", 0),
        status.get("numberAvailable", 0),
        labels(template.get("spec", {}).get("nodeSelector")),
        age(obj, now),
        containers(template),
        images(template),
        selector(spec.get("selector")),
    ]


def _job(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    succeeded, parallelism = status.get("succeeded", 0), spec.get("parallelism", 0)
    if "completions" in spec:
        done = f"{succeeded}/{spec['completions']}"
    else:
        done = f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"
    return [
        obj["metadata"].get("name", ""),
        _job_status(obj),
        done,
        _duration(status.get("startTime"), status.get("completionTime"), now),
        age(obj, now),
        containers(spec.get("template", {})),
        images(spec.get("template", {})),
        selector(spec.get("selector")),
    ]


def _job_status(obj: Object) -> str:
    status = obj.get("status", {})
    for kind in ("Complete", "Failed"):
        if _condition(status, kind) == "True":
            return kind
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if _condition(status, kind) == "True":
            return kind
    return "Running"


def _duration(start: str | None, end: str | None, now: float) -> str:
    if not start:
        return ""
    try:
        last = times.parse_time(end) if end else now
        return times.human_duration(last - times.parse_time(start))
    except times.InvalidTime:
        return UNKNOWN


def _cron_job(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    job = spec.get("jobTemplate", {}).get("spec", {})
    last = status.get("lastScheduleTime")
    return [
        obj["metadata"].get("name", ""),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        flag(spec.get("suspend")),
        len(status.get("active", ())),
        since(last, now) if last else NONE,
        age(obj, now),
        containers(job.get("template", {})),
        images(job.get("template", {})),
        selector(job.get("selector")),
    ]


def _autoscaler(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    target = spec.get("scaleTargetRef", {})
    return [
        obj["metadata"].get("name", ""),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _targets(spec.get("metrics", []), status.get("currentMetrics", [])),
        str(spec.get("minReplicas", UNSET)),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age(obj, now),
    ]


def _targets(metrics: list[Object], current: list[Object]) -> str:
    shown = []
    for index, metric in enumerate(metrics[:2]):
        kind = metric.get("type", "")
        member = kind[:1].lower() + kind[1:]
        source = metric.get(member, {})
        now = current[index].get(member, {}).get("current", {}) if index < len(current) else {}
        target = source.get("target", {})
        name = source.get("name") or source.get("metric", {}).get("name", "")
        percent = "averageUtilization" in target
        wanted = (
            f"{target['averageUtilization']}%" if percent else target.get("averageValue") or target.get("value", "")
        )
        seen = now.get("averageUtilization") if percent else now.get("averageValue") or now.get("value")
        have = UNKNOWN if seen is None else f"{seen}%" if percent else str(seen)
        prefix = f"{name}: " if kind in ("Resource", "ContainerResource") else ""
        suffix = " (avg)" if "averageValue" in target and kind != "Resource" else ""
        shown.append(f"{prefix}{have}/{wanted}{suffix}")
    if len(metrics) > len(shown):
        shown.append(f"{len(metrics) - len(shown)} more...")
    return ", ".join(shown) or NONE


def _disruption_budget(obj: Object, now: float) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    return [
        obj["metadata"].get("name", ""),
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        status.get("disruptionsAllowed", 0),
        age(obj, now),
    ]


def _pod_template(obj: Object, now: float) -> list[Any]:
    template = obj.get("template", {})
    pod_labels = labels(template.get("metadata", {}).get("labels"))
    return [obj["metadata"].get("name", ""), containers(template), images(template), pod_labels]


def _controller_revision(obj: Object, now: float) -> list[Any]:
    owner = next((one for one in obj["metadata"].get("ownerReferences", ()) if one.get("controller")), None)
    return [
        obj["metadata"].get("name", ""),
        NONE if owner is None else f"{_owner_kind(owner)}/{owner.get('name', '')}",
        obj.get("revision", 0),
        age(obj, now),
    ]


def _owner_kind(owner: Object) -> str:
    kind = str(owner.get("kind", "")).lower()
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    return f"{kind}.{group}" if group else kind


_REPLICAS: Final = columns("Name | Desired# | Current# | Ready# | Age | Containers+ | Images+ | Selector+")

PRINTERS: Final = {
    ("", "Pod"): Printer(
        columns("Name | Ready | Status | Restarts | Age | IP+ | Node+ | Nominated Node+ | Readiness Gates+"), _pod
    ),
    ("", "PodTemplate"): Printer(columns("Name | Containers | Images | Pod Labels"), _pod_template),
    ("", "ReplicationController"): Printer(_REPLICAS, _replica_set),
    ("apps", "ControllerRevision"): Printer(columns("Name | Controller | Revision# | Age"), _controller_revision),
    ("apps", "DaemonSet"): Printer(
        columns(
            "Name | Desired# | Current# | Ready# | Up-to-date# | Available# | Node Selector | Age | Containers+ | Images+ | Selector+"
        ),
        _daemon_set,
    ),
    ("apps", "Deployment"): Printer(
        columns("Name | Ready | Up-to-date# | Available# | Age | Containers+ | Images+ | Selector+"), _deployment
    ),
    ("apps", "ReplicaSet"): Printer(_REPLICAS, _replica_set),
    ("apps", "StatefulSet"): Printer(columns("Name | Ready | Age | Containers+ | Images+"), _stateful_set),
    ("autoscaling", "HorizontalPodAutoscaler"): Printer(
        columns("Name | Reference | Targets | MinPods | MaxPods# | Replicas# | Age"), _autoscaler
    ),
    ("batch", "CronJob"): Printer(
        columns(
            "Name | Schedule | Timezone | Suspend | Active# | Last Schedule | Age | Containers+ | Images+ | Selector+"
        ),
        _cron_job,
    ),
    ("batch", "Job"): Printer(
        columns("Name | Status | Completions | Duration | Age | Containers+ | Images+ | Selector+"), _job
    ),
    ("policy", "PodDisruptionBudget"): Printer(
        columns("Name | Min Available | Max Unavailable | Allowed Disruptions# | Age"), _disruption_budget
    ),
}
