"""`LogSource` from what edged knows of its pods: which attempt of a container is meant, and why there may be none.

Errors  ApiError in kubelet's words; OSError never: whether the file is there is seen when it is read.
State   None: pods are looked at anew for each request.
Source  kubelet (which attempt "previous" means, texts of refusals).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus, Runtime, RuntimeFault
from edgesite.edge.edged.server.source import CommandResult, ContainerLog
from edgesite.edge.edged.state import PodState
from edgesite.kube.errors import ApiError, bad_request, internal

__all__ = ["PodFinder", "PodLogs"]

_COMMAND_S: Final = 120.0
_HAS_RUN: Final = frozenset({ContainerState.RUNNING, ContainerState.EXITED, ContainerState.UNKNOWN})
_RUNS: Final = frozenset({ContainerState.RUNNING, ContainerState.UNKNOWN})
_PULLS: Final = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


class PodFinder(Protocol):
    """The pods of this node."""

    def states(self) -> Iterable[PodState]: ...

    def find(self, namespace: str, name: str) -> PodState | None: ...


class PodLogs:
    """Implements `LogSource`."""

    def __init__(self, pods: PodFinder, paths: Paths, runtime: Runtime) -> None:
        self._pods = pods
        self._paths = paths
        self._runtime = runtime

    async def container_log(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> ContainerLog:
        """See `LogSource`. Raises ApiError."""
        state = self._find(namespace, pod, container)
        attempt = _previous(state, container) if previous else _current(state, container)
        path = attempt.log_path or self._paths.pod_logs(state.pod) / container / f"{attempt.attempt}.log"

        def running() -> bool:
            seen = state.containers.get(attempt.id)
            return seen is not None and seen.status.state in _RUNS and self._pods.find(namespace, pod) is state

        return ContainerLog(self._paths.logs / path, running)

    def pods(self) -> list[dict[str, Any]]:
        return [{**one.pod.raw, "status": one.reported or one.pod.status} for one in self._pods.states()]

    def running_pods(self) -> list[dict[str, Any]]:
        found = []
        for state in self._pods.states():
            containers = [{"name": one.name, "image": one.image, "resources": {}} for one in state.running()]
            if containers:
                names = {"name": state.pod.name, "namespace": state.pod.namespace, "uid": state.pod.uid}
                found.append({"metadata": names, "spec": {"containers": containers}, "status": {}})
        return found

    async def run(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> CommandResult:
        """See `LogSource`. Raises ApiError."""
        state = self._find(namespace, pod, container)
        target = next((one for one in state.all_of(container) if one.state in _RUNS), None)
        if target is None:
            raise internal(f'container "{container}" in pod "{pod}" is not running')
        try:
            result = await self._runtime.exec_sync(target.id, command, _COMMAND_S)
        except RuntimeFault as exc:
            raise internal(str(exc)) from exc
        return CommandResult(result.exit_code, result.stdout + result.stderr)

    def _find(self, namespace: str, pod: str, container: str) -> PodState:
        """Raises ApiError."""
        state = self._pods.find(namespace, pod)
        if state is None:
            raise ApiError(404, "NotFound", f'pod "{pod}" does not exist')
        if container not in _names(state):
            raise ApiError(404, "NotFound", f'container "{container}" not found in pod "{pod}"')
        return state


def _names(state: PodState) -> set[str]:
    members = ("containers", "initContainers", "ephemeralContainers")
    return {one.get("name", "") for member in members for one in state.pod.spec.get(member) or ()}


def _current(state: PodState, container: str) -> ContainerStatus:
    """The newest attempt that has run. Raises ApiError."""
    found = next((one for one in state.all_of(container) if one.state in _HAS_RUN), None)
    if found is not None:
        return found
    waiting = state.waiting.get(container)
    reason = waiting.reason if waiting is not None else "ContainerCreating"
    said = _PULLS.get(reason, reason)
    raise bad_request(f'container "{container}" in pod "{state.pod.name}" is waiting to start: {said}')


def _previous(state: PodState, container: str) -> ContainerStatus:
    """The attempt that ended before the present one, or the newest if the container waits to be started again. Raises ApiError."""
    attempts = [one for one in state.all_of(container) if one.state in _HAS_RUN]
    restarting = bool(attempts) and attempts[0].state is ContainerState.EXITED and container in state.waiting
    ended = [one for one in attempts[0 if restarting else 1 :] if one.state is ContainerState.EXITED]
    if not ended:
        raise bad_request(f'previous terminated container "{container}" in pod "{state.pod.name}" not found')
    return ended[0]
