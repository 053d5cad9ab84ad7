"""Changes CPU and memory of running containers in place, when a pod's spec says so and the node has room.

What a container has now is noted on it when it is made; a later change is applied again after a restart of edgesite, which is harmless.

Errors  RuntimeFault and StageWait from `Resizer.run`.
State   `PodState.actual`: resources by container id, in memory.
Source  Kubernetes: "Resize CPU and Memory Resources assigned to Containers": resizePolicy, conditions PodResizePending and
        PodResizeInProgress with their reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from edgesite.edge.edged.pod import effective_requests
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus, RuntimeFault, RuntimeUnavailable
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.specs import noted_resources, resizable
from edgesite.edge.edged.state import PodState, ResizeTrouble, StageWait
from edgesite.edge.edged.stopper import ContainerStopper

__all__ = ["Resizer"]

RETRY_S: Final = 30.0
_RESOURCES: Final = ("cpu", "memory")
Changed = list[tuple[ContainerStatus, Mapping[str, Any]]]


class Resizer:
    def __init__(self, services: PodServices, stopper: ContainerStopper) -> None:
        self._services, self._stopper = services, stopper

    async def run(self, state: PodState, due: Callable[[float], None]) -> None:
        """Apply what differs. ``due`` is told when (monotonic) to look again at what cannot be done now. Raises RuntimeFault, StageWait."""
        changed = self._changed(state)
        if not changed:
            state.resize = None
            return
        state.resize = self._refusal(state)
        if state.resize is not None:
            due(self._services.clock.monotonic() + RETRY_S)
            return
        await self._services.cgroups.change(state.pod, only_more=True)
        for status, container in changed:
            await self._apply(state, status, container)
        await self._services.cgroups.change(state.pod, only_more=False)

    def _changed(self, state: PodState) -> Changed:
        specs = {one["name"]: one for one in (*state.pod.containers, *state.pod.init_containers)}
        found: Changed = []
        running = {one.id: one for one in state.running() if one.state is ContainerState.RUNNING}
        state.actual = {key: one for key, one in state.actual.items() if key in running}
        for status in running.values():
            if (container := specs.get(status.name)) is None:
                continue
            wanted = resizable(container)
            if state.actual.setdefault(status.id, noted_resources(status, wanted)) != wanted:
                found.append((status, container))
        return found

    def _refusal(self, state: PodState) -> ResizeTrouble | None:
        """Why the node cannot give what the pod wants: never, or not now."""
        others = [one.pod for one in self._services.pods() if one is not state and one.admitted and not one.finished]
        for resource in _RESOURCES:
            capacity = self._services.node.allocatable_nano.get(resource, 0)
            wanted = effective_requests(state.pod, resource)
            used = sum(effective_requests(one, resource) for one in others)
            unit = 10**6 if resource == "cpu" else 10**9
            if capacity and wanted > capacity:
                text = f"Node didn't have enough capacity: {resource}, requested: {wanted // unit}, capacity: {capacity // unit}"
                return ResizeTrouble("PodResizePending", "Infeasible", text)
            if capacity and wanted + used > capacity:
                text = f"Node didn't have enough resource: {resource}, requested: {wanted // unit}, used: {used // unit}, capacity: {capacity // unit}"
                return ResizeTrouble("PodResizePending", "Deferred", text)
        return None

    async def _apply(self, state: PodState, status: ContainerStatus, container: Mapping[str, Any]) -> None:
        services, pod, wanted = self._services, state.pod, resizable(container)
        if _needs_restart(container, state.actual[status.id], wanted):
            await self._stopper.stop(state, status, f"Container {status.name} resize requires restart")
            return  # it is made again with what is wanted now
        resources = services.resources_of(pod, container)
        try:
            await services.runtime.update_resources(status.id, resources)
        except RuntimeUnavailable:
            raise
        except RuntimeFault as exc:
            state.resize = ResizeTrouble("PodResizeInProgress", "Error", str(exc))
            raise StageWait(str(exc), RETRY_S) from exc
        state.actual[status.id] = wanted
        services.log.info("pod=%s container=%s was resized to %s", pod.key, status.name, wanted)


def _needs_restart(container: Mapping[str, Any], actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    policies = {one.get("resourceName"): one.get("restartPolicy") for one in container.get("resizePolicy") or ()}
    return any(
        policies.get(resource) == "RestartContainer" and _part(actual, resource) != _part(wanted, resource)
        for resource in _RESOURCES
    )


def _part(resources: Mapping[str, Any], resource: str) -> list[Any]:
    return [(resources.get(kind) or {}).get(resource) for kind in ("limits", "requests")]
