"""Stopping containers: preStop, the stop signal, the grace period, and a shorter one when the user is in a hurry."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import anyio

from edgesite.edge.edged.events import NORMAL, WARNING
from edgesite.edge.edged.hooks import HookFailed, run_hook
from edgesite.edge.edged.loglinks import remove_links
from edgesite.edge.edged.logrotation import log_files
from edgesite.edge.edged.runtime import ContainerState, ContainerStatus, RuntimeFault
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState, Seen
from edgesite.edge.edged.together import together

__all__ = ["ContainerStopper"]

_LOOK_FIRST_S: Final = 0.01
_LOOK_MOST_S: Final = 1.0
LEAST_GRACE_S: Final = 2.0  #: What is left for the program itself when a preStop hook has used up the time.


class ContainerStopper:
    """One for a pod. `hurry` may be called while containers are being stopped."""

    def __init__(self, services: PodServices) -> None:
        self._services = services
        self._grace_s: float | None = None  # shorter than the pod's own
        self._hurried = anyio.Event()

    def hurry(self, grace_s: float) -> None:
        """Shorten the grace period of what is being stopped now and later."""
        if self._grace_s is None or grace_s < self._grace_s:
            self._grace_s = grace_s
            self._hurried.set()
            self._hurried = anyio.Event()

    async def stop_all(self, state: PodState, containers: Iterable[ContainerStatus]) -> None:
        """Stop containers at the same time. Raises RuntimeFault."""
        await together(
            *(functools.partial(self.stop, state, one, f"Stopping container {one.name}") for one in containers)
        )

    async def stop(self, state: PodState, container: ContainerStatus, why: str, grace_s: float | None = None) -> None:
        """Stop one container and note how it ended; ``grace_s`` stands in place of the pod's own. Raises RuntimeFault."""
        services = self._services
        services.events.report(state.pod.reference(), NORMAL, "Killing", why, container.name)
        if grace_s is None:
            grace_s = self._grace(state)
        elif self._grace_s is not None:
            grace_s = min(grace_s, self._grace_s)
        ends_at = services.clock.monotonic() + grace_s
        if await self._pre_stop(state, container, grace_s):
            grace_s = self._grace(state)  # somebody hurried meanwhile; the hook has been given that much already
            ends_at = services.clock.monotonic()
        left_s = max(ends_at - services.clock.monotonic(), min(LEAST_GRACE_S, grace_s))
        await self._until_stopped(state, container.id, left_s)
        status = await self._status_at_end(container.id)
        if (seen := state.containers.get(container.id)) is not None:
            state.containers[container.id] = Seen(status, seen.sandbox_id)

    async def _status_at_end(self, container_id: str) -> ContainerStatus:
        """Return how it ended. A runtime may say for a moment that a program runs which ended just before it was to be stopped."""
        wait_s = _LOOK_FIRST_S
        while True:
            status = await self._services.runtime.container_status(container_id)
            if status.state is not ContainerState.RUNNING or wait_s > _LOOK_MOST_S:
                return status
            await self._services.clock.sleep(wait_s)
            wait_s *= 2

    async def discard(self, state: PodState, container: ContainerStatus) -> None:
        """End and remove a container at once, as if it had never been. Raises RuntimeFault."""
        await self._services.runtime.stop_container(container.id, 0.0)
        await self._services.runtime.remove_container(container.id)
        state.containers.pop(container.id, None)

    async def forget(self, container: ContainerStatus) -> None:
        """Remove an ended container and its log."""
        try:
            await self._services.runtime.remove_container(container.id)
        except RuntimeFault as exc:
            self._services.log.info("container=%s cannot be removed yet: %s", container.id, exc)
            return
        if container.log_path:
            await self._services.threads.run(_remove_log, Path(container.log_path), self._services.paths.log_links)

    def _grace(self, state: PodState) -> float:
        return state.pod.grace_s if self._grace_s is None else min(self._grace_s, state.pod.grace_s)

    async def _pre_stop(self, state: PodState, container: ContainerStatus, grace_s: float) -> bool:
        """Run the hook for as long as the grace period lets it; return whether somebody hurried and it had to be cut off."""
        specs = (*state.pod.containers, *state.pod.init_containers)
        spec = next((one for one in specs if one["name"] == container.name), {})
        handler = (spec.get("lifecycle") or {}).get("preStop")
        if not handler or not grace_s:
            return False
        services = self._services
        ip = next(iter(services.node.ips if state.pod.host_network else state.ips), "127.0.0.1")
        failure, cut_off = "the grace period was shortened", True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._shorten, state, tasks.cancel_scope)
            try:
                await run_hook(services, state.pod, spec, container.id, handler, ip, grace_s)
                failure = ""
            except HookFailed as exc:
                failure = str(exc)
            cut_off = False
            tasks.cancel_scope.cancel()
        if failure:
            text = f"PreStopHook failed: {failure}"
            services.events.report(state.pod.reference(), WARNING, "FailedPreStopHook", text, container.name)
        return cut_off

    async def _shorten(self, state: PodState, hook: anyio.CancelScope) -> None:
        """Bring the hook's end forward each time somebody hurries."""
        while True:
            await self._hurried.wait()
            hook.deadline = min(hook.deadline, anyio.current_time() + self._grace(state))

    async def _until_stopped(self, state: PodState, container_id: str, grace_s: float) -> None:
        """Ask the runtime to stop it; ask again with less grace each time somebody hurries."""
        runtime, log = self._services.runtime, self._services.log
        failure: RuntimeFault | None = None

        async def sooner() -> None:
            try:
                await runtime.stop_container(container_id, self._grace(state))
            except RuntimeFault as exc:
                log.info("container=%s cannot be stopped sooner: %s", container_id, exc)

        async def listen() -> None:
            while True:
                await self._hurried.wait()
                tasks.start_soon(sooner)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            try:
                await runtime.stop_container(container_id, grace_s)
            except RuntimeFault as exc:
                failure = exc
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure


def _remove_log(path: Path, links: Path | None) -> None:
    if links is not None:
        remove_links(links, path)
    for one in log_files(path):
        one.unlink(missing_ok=True)
