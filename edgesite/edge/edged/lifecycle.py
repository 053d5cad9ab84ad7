"""Which containers of a pod shall run, and when a pod is over. Pure.

Source  Kubernetes: "Pod Lifecycle" (restart policies), "Init Containers".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus
from edgesite.edge.edged.state import PodState
from edgesite.kube.times import InvalidTime, parse_time

__all__ = ["active_deadline", "has_ended", "is_over", "restarts"]


def active_deadline(pod: Pod, start_time: str) -> float | None:
    """Return when (epoch) a pod that was started at ``start_time`` has been active for too long, or None if it never is."""
    limit = pod.spec.get("activeDeadlineSeconds")
    if limit is None or not start_time:
        return None
    try:
        return parse_time(start_time) + float(limit)
    except InvalidTime:
        return None


def restarts(pod: Pod, container: Mapping[str, Any], ended: ContainerStatus, *, init: bool) -> bool:
    """Return whether a container that has ended is to be started again."""
    policy = container.get("restartPolicy") or pod.restart_policy
    if init and policy != "Never" and not pod.is_sidecar(dict(container)):
        policy = "OnFailure"  # an init container's work is done once
    return policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0)


def has_ended(state: PodState, container: Mapping[str, Any]) -> bool:
    """Return whether a main container has ended for good, in this sandbox or in one before it."""
    latest = state.latest(container["name"])
    if latest is None or latest.state is not ContainerState.EXITED:
        return False
    return not restarts(state.pod, container, latest, init=False)


def is_over(state: PodState) -> bool:
    """Return whether nothing of the pod is to be started any more: not even a sandbox, say after a reboot."""
    pod = state.pod
    if state.finished or state.termination is not None:
        return True
    if pod.restart_policy == "Never" and any(_failed(state, one) for one in pod.init_containers):
        return True
    return bool(pod.containers) and all(has_ended(state, one) for one in pod.containers)


def _failed(state: PodState, init_container: Mapping[str, Any]) -> bool:
    latest = state.latest(init_container["name"])
    if latest is None or latest.state is not ContainerState.EXITED or not latest.exit_code:
        return False
    return not restarts(state.pod, init_container, latest, init=True)
