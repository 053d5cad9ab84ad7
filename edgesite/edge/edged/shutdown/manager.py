"""Ends pods in order when the host is about to shut down, and keeps new ones away meanwhile.

Pods of ordinary priority come first and share all of the time but that of the critical ones, which are stopped after them. A pod's own
grace period counts where it is shorter. The node says that it is not ready as soon as the shutdown is known of.

Units   Seconds.
Errors  None: without logind there is nothing to be told, which is logged once and tried again.
State   `NodeFacts.shutting_down`.
Source  Kubernetes: "Node Shutdowns" (shutdownGracePeriod, shutdownGracePeriodCriticalPods); reason and text of the pods as kubelet has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.edged.resources import is_critical
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState, Termination

if TYPE_CHECKING:
    from edgesite.edge.edged.pods import Pods
    from edgesite.edge.edged.shutdown.logind import Logind

__all__ = ["NodeShutdown", "system_address"]

CONFIG: Final = Path("/etc/systemd/logind.conf.d/99-edgesite.conf")

RETRY_FIRST_S: Final = 5.0
RETRY_MOST_S: Final = 300.0
LOOK_S: Final = 0.1  #: while pods end
_WHY: Final = Termination("Terminated", "Pod was terminated in response to imminent node shutdown.", disruption=True)


class NodeShutdown:
    def __init__(
        self, services: PodServices, pods: Pods, *, changed: Callable[[], None], config: Path = CONFIG
    ) -> None:
        """``changed``: the node's conditions are others. ``config`` is where logind reads how long it may be held up."""
        self._services, self._pods, self._changed, self._config = services, pods, changed, config

    async def run(self) -> None:
        """Watch for shutdowns until cancelled; return at once where none is to be held up."""
        services = self._services
        if services.settings.shutdown_grace_s <= 0:
            return
        from edgesite.edge.edged.shutdown.logind import logind  # few nodes ask for it

        delay_s = RETRY_FIRST_S
        while True:
            try:
                async with logind(system_address(), services.log, self._config) as host:
                    delay_s = RETRY_FIRST_S
                    await self._watch(host)
            except OSError as exc:
                if delay_s == RETRY_FIRST_S:
                    services.log.warning("pods cannot be ended in order when the host shuts down: %s", exc)
            await services.clock.sleep(delay_s * (0.75 + services.random.random() / 2))
            delay_s = min(delay_s * 2, RETRY_MOST_S)

    async def _watch(self, host: Logind) -> None:
        settings, log = self._services.settings, self._services.log
        longest_s = await host.longest_delay_s(settings.shutdown_grace_s)
        total_s = min(settings.shutdown_grace_s, longest_s)
        if total_s < settings.shutdown_grace_s:
            log.warning("pods get %g s when the host shuts down, not %g s", total_s, settings.shutdown_grace_s)
        await host.hold()
        log.info("a shutdown of the host is held up for %g s", total_s)
        while True:
            if await host.prepared():
                log.warning("the host shuts down")
                self._note(True)
                await self._end_all(total_s, min(settings.shutdown_critical_s, total_s))
                host.release()
            else:
                log.info("the host does not shut down after all")
                self._note(False)
                await host.hold()

    def _note(self, shutting_down: bool) -> None:
        self._services.node.shutting_down = shutting_down
        self._changed()

    async def _end_all(self, total_s: float, critical_s: float) -> None:
        ends_at = self._services.clock.monotonic() + total_s
        await self._end([one for one in self._running() if not is_critical(one.pod)], ends_at - critical_s)
        # What is left is everybody's: also of ordinary pods that have not ended yet.
        await self._end(self._running(), ends_at)
        if left := self._running():
            self._services.log.warning("%d pods have not ended in time", len(left))

    def _running(self) -> list[PodState]:
        return [
            one for one in self._pods.states() if not (one.finished and not any(one.running())) and not one.released
        ]

    async def _end(self, states: Sequence[PodState], ends_at: float) -> None:
        """Ask pods to end, and wait until they have or the time is over."""
        clock = self._services.clock
        for state in states:
            left_s = max(ends_at - clock.monotonic(), 0.0)
            self._pods.terminate(state.pod.uid, _WHY, min(left_s, state.pod.grace_s))
        uids = {one.pod.uid for one in states}
        with anyio.move_on_after(max(ends_at - clock.monotonic(), 0.0)):
            while any(one.pod.uid in uids for one in self._running()):
                await clock.sleep(LOOK_S)


def system_address() -> str:
    """Path of the system bus' socket."""
    for one in os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "").split(";"):
        if one.startswith("unix:path="):
            return one.removeprefix("unix:path=").partition(",")[0]
    return "/run/dbus/system_bus_socket"
