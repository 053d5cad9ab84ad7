"""Liveness, readiness and startup probes: exec, httpGet, tcpSocket, grpc.

Each probe of each running container is a task of its own that sleeps between its tries. The worker is woken only when an answer
changes what is known.

Units   Seconds.
Errors  None: a probe that cannot be carried out has failed.
State   Thresholds are counted in memory; after a restart of edgesite a container that was ready stays so until a probe fails.
Source  Kubernetes: "Configure Liveness, Readiness and Startup Probes"; core/v1 Probe (defaults and meaning of thresholds).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio

from edgesite.edge.edged.events import WARNING
from edgesite.edge.edged.httpcheck import http_status, http_target, port_number, socket_address
from edgesite.edge.edged.runtime import ContainerStatus, DeadlineReached, RuntimeFault
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState, Unhealthy

__all__ = ["ProbeSet", "Verdict"]

_WORDS: Final = {"livenessProbe": "Liveness", "readinessProbe": "Readiness", "startupProbe": "Startup"}


@dataclass(slots=True)
class Verdict:
    """What a row of answers amounts to. ``holds`` changes only after as many equal answers as the threshold says."""

    holds: bool
    success_threshold: int = 1
    failure_threshold: int = 3
    _same: int = 0
    _last: bool | None = None

    def take(self, answer: bool) -> bool:
        """Count one answer; return whether the verdict was reached now (again, or for the first time)."""
        self._same = self._same + 1 if answer is self._last else 1
        self._last = answer
        if self._same < (self.success_threshold if answer else self.failure_threshold):
            return False
        self.holds = answer
        return True


class ProbeSet:
    """The probes of one pod."""

    def __init__(self, services: PodServices, state: PodState, wake: Callable[[], None]) -> None:
        self._services, self._state, self._wake = services, state, wake
        self._scopes: dict[str, anyio.CancelScope] = {}  # by container id

    def follow(self) -> None:
        """Probe the containers that run now, and those alone."""
        specs = {one["name"]: one for one in (*self._state.pod.containers, *self._state.pod.init_containers)}
        running = {one.id: one for one in self._state.running()}
        for container_id in tuple(self._scopes):
            if container_id not in running:
                self._scopes.pop(container_id).cancel()
                self._forget(container_id)
        for container_id, status in running.items():
            spec = specs.get(status.name, {})
            if container_id not in self._scopes and any(spec.get(name) for name in _WORDS):
                self._begin(status, spec)

    def stop(self) -> None:
        for container_id in tuple(self._scopes):
            self._scopes.pop(container_id).cancel()
            self._forget(container_id)

    def _begin(self, status: ContainerStatus, spec: Mapping[str, Any]) -> None:
        state = self._state
        told = self._told(status)
        if spec.get("readinessProbe"):
            state.ready[status.id] = bool(told.get("ready"))
        if spec.get("startupProbe"):
            state.started[status.id] = bool(told.get("started"))
        scope = self._scopes[status.id] = anyio.CancelScope()
        self._services.beside(self._all, status, spec, scope)

    def _told(self, status: ContainerStatus) -> Mapping[str, Any]:
        """What the pod's status said of this very container before edgesite was restarted."""
        for one in self._state.reported.get("containerStatuses") or ():
            if str(one.get("containerID", "")).endswith(status.id):
                told: Mapping[str, Any] = one
                return told
        return {}

    def _forget(self, container_id: str) -> None:
        for answers in (self._state.ready, self._state.started):
            answers.pop(container_id, None)

    async def _all(self, status: ContainerStatus, spec: Mapping[str, Any], scope: anyio.CancelScope) -> None:
        with scope:
            if spec.get("startupProbe") and not self._state.started.get(status.id):
                await self._loop("startupProbe", status, spec)
            async with anyio.create_task_group() as tasks:
                for kind in ("livenessProbe", "readinessProbe"):
                    if spec.get(kind):
                        tasks.start_soon(self._loop, kind, status, spec)

    async def _loop(self, kind: str, status: ContainerStatus, spec: Mapping[str, Any]) -> None:
        """Probe again and again; a startup probe ends with its first success."""
        probe, clock, random = spec[kind], self._services.clock, self._services.random
        period_s = float(probe.get("periodSeconds") or 10)
        verdict = Verdict(
            self._state.ready.get(status.id, False) if kind == "readinessProbe" else kind == "livenessProbe",
            probe.get("successThreshold") or 1,
            probe.get("failureThreshold") or 3,
        )
        age_s = max(clock.time() - status.started_ns / 1e9, 0.0)
        delay_s = max(float(probe.get("initialDelaySeconds") or 0) - age_s, 0.0)
        if age_s > period_s:
            delay_s = max(delay_s, random.random() * period_s)  # after a restart of edgesite not all at once
        await clock.sleep(delay_s)
        while True:
            began = clock.monotonic()
            well, text = await self._once(probe, status, spec)
            self._state.probed[status.name, _WORDS[kind], "successful" if well else "failed"] += 1
            if not well:
                said = f"{_WORDS[kind]} probe {'failed' if text else 'errored'}: {text}"
                self._services.events.report(self._state.pod.reference(), WARNING, "Unhealthy", said, status.name)
            if verdict.take(well) and self._conclude(kind, probe, status, well):
                return
            await clock.sleep(max(period_s - (clock.monotonic() - began), 0.0))

    def _conclude(self, kind: str, probe: Mapping[str, Any], status: ContainerStatus, well: bool) -> bool:
        """Act on a verdict; return whether this probe has done its work."""
        state = self._state
        if kind == "readinessProbe":
            if state.ready.get(status.id) is not well:
                state.ready[status.id] = well
                self._wake()
            return False
        if well:
            if kind == "startupProbe":
                state.started[status.id] = True
                self._wake()
            return kind == "startupProbe"
        grace = probe.get("terminationGracePeriodSeconds")
        why = f"Container {status.name} failed {_WORDS[kind].lower()} probe"
        state.unhealthy[status.id] = Unhealthy(why, None if grace is None else float(grace))
        self._wake()
        return True

    async def _once(
        self, probe: Mapping[str, Any], status: ContainerStatus, spec: Mapping[str, Any]
    ) -> tuple[bool, str]:
        timeout_s = float(probe.get("timeoutSeconds") or 1)
        try:
            with anyio.fail_after(timeout_s + 1.0 if probe.get("exec") else timeout_s):
                return await self._try(probe, status, spec, timeout_s)
        except (TimeoutError, DeadlineReached):
            return False, f"command timed out after {timeout_s:g}s" if probe.get(
                "exec"
            ) else f"no answer within {timeout_s:g}s"
        except (RuntimeFault, OSError, ValueError) as exc:
            return False, str(exc)

    async def _try(
        self, probe: Mapping[str, Any], status: ContainerStatus, spec: Mapping[str, Any], timeout_s: float
    ) -> tuple[bool, str]:
        services, state = self._services, self._state
        if (action := probe.get("exec")) is not None:
            result = await services.runtime.exec_sync(status.id, action.get("command") or (), timeout_s)
            return result.exit_code == 0, (result.stdout + result.stderr).decode(errors="replace")[:10_240]
        ip = next(iter(services.node.ips if state.pod.host_network else state.ips), "127.0.0.1")
        if (action := probe.get("httpGet")) is not None:
            code, _ = await http_status(services.net, http_target(spec, action, ip))
            return 200 <= code < 400, f"HTTP probe failed with statuscode: {code}"
        if (action := probe.get("tcpSocket")) is not None:
            address = socket_address(action.get("host") or ip, port_number(spec, action.get("port")))
            transport, _ = await services.net.connect(_Silent, address)
            transport.abort()
            return True, ""
        if (action := probe.get("grpc")) is not None:
            from edgesite.edge.edged.grpccheck import grpc_health

            address = socket_address(ip, port_number(spec, action.get("port")))
            word = await grpc_health(services.net, address, action.get("service") or "", timeout_s)
            return word == "SERVING", f'service unhealthy (responded with "{word}")'
        return False, "the probe has no action that is supported here"


class _Silent(asyncio.Protocol):
    """A connection on which nothing is said: that it came about is all."""
