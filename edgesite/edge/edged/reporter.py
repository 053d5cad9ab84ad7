"""Sends pod statuses to the cloud: only when they changed, always whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState
from edgesite.edge.edged.status import FOREIGN, pod_status, status_patch

__all__ = ["StatusReporter"]


class StatusReporter:
    def __init__(self, services: PodServices) -> None:
        self._services = services
        self._again = False

    def forget(self) -> None:
        """Take the next status for news."""
        self._again = True

    async def report(self, state: PodState, *, ended: bool = False) -> None:
        """Work out the pod's status, and hand it on if it is news."""
        services = self._services
        status = pod_status(
            state,
            host_ips=services.node.ips,
            runtime_name=services.node.runtime_name,
            now=services.clock.time(),
            ended=ended,
        )
        before = state.reported
        shared = {name: before[name] for name in before if name in status}
        gone = [name for name in before if name not in status and name not in FOREIGN]
        if not (self._again or gone) and (status == shared or _plain(status) == _plain(shared)):
            return
        if state.pod.is_static and not state.mirror_uid:
            state.reported = status  # nobody to tell yet; it is told anew once there is
            return
        patch = status_patch(state.mirror_uid or state.pod.uid, before, status)
        await services.meta.report_status("pod", state.pod.namespace, state.pod.name, patch)
        # Only now: what could not be kept is news still.
        self._again = False
        state.reported = status


def _plain(value: Any) -> Any:
    """The same without what is null or empty: the API stores neither."""
    if isinstance(value, Mapping):
        return {name: plain for name, one in value.items() if (plain := _plain(one)) not in (None, "", {}, [])}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
