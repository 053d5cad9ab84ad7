"""Lifecycle hooks of containers: exec, httpGet, sleep.

Errors  HookFailed, with a text for the pod's event.
Source  core/v1 LifecycleHandler; Kubernetes: "Container Lifecycle Hooks".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import anyio

from edgesite.edge.edged.httpcheck import HttpTarget, http_status, http_target
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import DeadlineReached, RuntimeFault
from edgesite.edge.edged.services import PodServices

__all__ = ["HookFailed", "run_hook"]

HTTP_S: Final = 30.0
LONGEST_S: Final = 3600.0


class HookFailed(Exception):
    """The hook did not do its work."""


async def run_hook(
    services: PodServices,
    pod: Pod,
    container: Mapping[str, Any],
    container_id: str,
    handler: Mapping[str, Any],
    ip: str,
    limit_s: float = LONGEST_S,
) -> None:
    """Run one hook, for at most ``limit_s``. Raises HookFailed."""
    try:
        with anyio.fail_after(limit_s):
            await _run(services, pod, container, container_id, handler, ip, limit_s)
    except (TimeoutError, DeadlineReached):
        raise HookFailed(f"hook did not end within {limit_s:g}s") from None
    except (RuntimeFault, OSError, ValueError) as exc:
        raise HookFailed(str(exc)) from exc


async def _run(
    services: PodServices,
    pod: Pod,
    container: Mapping[str, Any],
    container_id: str,
    handler: Mapping[str, Any],
    ip: str,
    limit_s: float,
) -> None:
    if (action := handler.get("exec")) is not None:
        result = await services.runtime.exec_sync(container_id, action.get("command") or (), limit_s)
        if result.exit_code:
            said = (result.stdout + result.stderr).decode(errors="replace").strip()[:512]
            raise HookFailed(f"command exited with {result.exit_code}: {said}")
    elif (action := handler.get("httpGet")) is not None:
        target: HttpTarget = http_target(container, action, ip)
        with anyio.fail_after(HTTP_S):
            status, _ = await http_status(services.net, target)
        if not 200 <= status < 400:
            raise HookFailed(f"HTTP hook got status {status}")
    elif (action := handler.get("sleep")) is not None:
        await services.clock.sleep(float(action.get("seconds") or 0))
    else:
        raise HookFailed("invalid handler: no action")
