"""What the kubelet API asks of edged: where logs are, which pods there are, a command in a container.

Errors  ApiError in kubelet's words: 404 for what is not here, 400 for a log that does not exist yet, 500 for the runtime's failures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.pods import Pods
from edgesite.edge.edged.podusage import PodDetails, PodMeter
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus, FilesystemUsage, RuntimeFault
from edgesite.edge.edged.server.source import CommandResult, ContainerLog, ContainerUsage, PodUsage, ProbeCount
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState
from edgesite.edge.edged.streams import StreamAddress, StreamOptions
from edgesite.kube.errors import ApiError, bad_request, internal

__all__ = ["EdgedLogs"]

COMMAND_S: Final = 300.0
_PULL_REASONS: Final = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


class EdgedLogs:
    """`edgesite.edge.edged.server.source.LogSource` on the pods of edged."""

    def __init__(self, pods: Pods, services: PodServices) -> None:
        self._pods, self._services, self._runtime = pods, services, services.runtime
        self._meter = PodMeter(services.paths)

    async def container_log(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> ContainerLog:
        state = self._find(namespace, pod, container)
        container_id = _log_of(state, container, previous)
        seen = state.containers.get(container_id)
        if seen is None or not seen.status.log_path:
            raise bad_request(f'unable to retrieve container logs for container "{container}" in pod "{pod}"')

        def running() -> bool:
            now = state.containers.get(container_id)
            return now is not None and now.status.state is ContainerState.RUNNING

        return ContainerLog(Path(seen.status.log_path), running)

    def pods(self) -> list[dict[str, Any]]:
        return [one.pod.raw | {"status": one.reported or one.pod.status} for one in self._pods.states()]

    def running_pods(self) -> list[dict[str, Any]]:
        found = []
        for state in self._pods.states():
            running = [{"name": one.name, "image": one.image, "resources": {}} for one in state.running()]
            if running:
                pod = state.pod
                metadata = {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}
                found.append({"metadata": metadata, "spec": {"containers": running}, "status": {}})
        return found

    async def usage(self) -> list[PodUsage]:
        try:
            stats = {one.id: one for one in await self._runtime.container_stats()}
        except RuntimeFault as exc:
            raise internal(str(exc)) from exc
        found = []
        for state in self._pods.states():
            containers = [
                ContainerUsage(one.image, one.started_ns, stats[one.id]) for one in state.running() if one.id in stats
            ]
            if containers:
                pod = state.pod
                found.append(PodUsage(pod.namespace, pod.name, pod.uid, state.start_time, containers))
        return found

    async def details(self) -> dict[str, PodDetails]:
        services = self._services
        chosen = [(one, services.cgroups.parent(one.pod)) for one in self._pods.states() if any(one.running())]
        found = await services.threads.run(self._meter.measure, chosen, services.clock.monotonic())
        for state, _ in chosen:
            if told := await services.csi.usage(state.pod.uid):  # drivers know better than the file system
                details = found[state.pod.uid]
                volumes = [
                    replace(one, fs=told.get(state.volumes.get(one.name, ""), one.fs)) for one in details.volumes
                ]
                found[state.pod.uid] = replace(details, volumes=volumes)
        return found

    async def image_disk(self) -> FilesystemUsage | None:
        try:
            return next(iter(await self._runtime.image_filesystems()), None)
        except RuntimeFault as exc:
            raise internal(str(exc)) from exc

    def probe_counts(self) -> list[ProbeCount]:
        return [
            ProbeCount(state.pod.namespace, state.pod.name, state.pod.uid, *key, count)
            for state in self._pods.states()
            for key, count in state.probed.items()
        ]

    async def run(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> CommandResult:
        state = self._find(namespace, pod, container)
        found = state.latest(container)
        if found is None or found.state is not ContainerState.RUNNING:
            raise ApiError(404, "NotFound", f'container "{container}" in pod "{pod}" is not running')
        try:
            result = await self._runtime.exec_sync(found.id, command, COMMAND_S)
        except RuntimeFault as exc:
            raise internal(str(exc)) from exc
        return CommandResult(result.exit_code, result.stdout + result.stderr)

    async def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], options: StreamOptions
    ) -> StreamAddress:
        found = self._running(namespace, pod, container)
        try:
            return await self._runtime.exec(found.id, command, options)
        except RuntimeFault as exc:
            raise _failed(str(exc)) from exc

    async def attach(self, namespace: str, pod: str, container: str, options: StreamOptions) -> StreamAddress:
        found = self._running(namespace, pod, container)
        spec = self._find(namespace, pod, container).pod
        tty = next((bool(one.get("tty")) for one in _specs(spec) if one["name"] == container), False)
        try:
            return await self._runtime.attach(found.id, replace(options, tty=tty))
        except RuntimeFault as exc:
            raise _failed(str(exc)) from exc

    async def port_forward(self, namespace: str, pod: str, ports: Sequence[int]) -> StreamAddress:
        state = self._pods.find(namespace, pod)
        if state is None:
            raise ApiError(404, "NotFound", f'pod "{pod}" does not exist')
        if state.sandbox is None:
            raise _failed(f'pod "{pod}" is not running')
        try:
            return await self._runtime.port_forward(state.sandbox.id, ports)
        except RuntimeFault as exc:
            raise _failed(str(exc)) from exc

    def _running(self, namespace: str, pod: str, container: str) -> ContainerStatus:
        """Raises ApiError."""
        found = self._find(namespace, pod, container).latest(container)
        if found is None or found.state is not ContainerState.RUNNING:
            raise _failed(f'container not found ("{container}")')
        return found

    def _find(self, namespace: str, pod: str, container: str) -> PodState:
        state = self._pods.find(namespace, pod)
        if state is None:
            raise ApiError(404, "NotFound", f'pod "{pod}" does not exist')
        names = (one["name"] for one in _specs(state.pod))
        if container not in names:
            raise ApiError(404, "NotFound", f'container "{container}" not found in pod "{pod}"')
        return state


def _failed(text: str) -> ApiError:
    return ApiError(500, "InternalError", text)


def _specs(pod: Pod) -> list[dict[str, Any]]:
    return [*pod.containers, *pod.init_containers, *pod.ephemeral_containers]


def _log_of(state: PodState, container: str, previous: bool) -> str:
    """Return the id of the container whose log is meant. Raises ApiError."""
    status = _status_of(state, container)
    now, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
    where = f'container "{container}" in pod "{state.pod.name}"'
    if previous:
        if not last:
            raise bad_request(f"previous terminated {where} not found")
        return _bare(last)
    if "running" in now or "terminated" in now:
        return _bare(now.get("terminated") or status)
    if last:
        return _bare(last)
    if "waiting" in now:
        reason = now["waiting"].get("reason", "")
        raise bad_request(f"{where} is waiting to start: {_PULL_REASONS.get(reason, reason)}")
    raise bad_request(f"{where} is not available")


def _status_of(state: PodState, container: str) -> dict[str, Any]:
    for member in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for one in state.reported.get(member) or ():
            if one.get("name") == container:
                found: dict[str, Any] = one
                return found
    return {"state": {"waiting": {"reason": "ContainerCreating"}}}


def _bare(holder: dict[str, Any]) -> str:
    """The runtime's own id of what a status calls "containerd://<id>"."""
    return str(holder.get("containerID") or "").rpartition("://")[2]
