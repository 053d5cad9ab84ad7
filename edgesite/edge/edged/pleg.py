"""Learns what happens in the runtime: from its events, and from lists where it has none or may have lost one.

Each list is two calls, whatever the number of pods; workers are told only of pods in which something changed.

Units   Seconds.
Errors  None: a runtime that does not answer is asked again with back-off, and the node says that it is not ready.
Source  kubelet's pod lifecycle event generator (what it is for); the intervals are ours.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import anyio

from edgesite.context import Clock
from edgesite.edge.edged.runtime import (
    LABEL_POD_UID,
    ContainerEvent,
    ContainerEventType,
    ContainerInfo,
    Runtime,
    RuntimeFault,
    RuntimeUnsupported,
    SandboxInfo,
)

__all__ = ["Inventory", "Pleg", "PodInventory"]

WITH_EVENTS_S: Final = 30.0
WITHOUT_EVENTS_S: Final = 1.0
SETTLE_S: Final = 2.0
TROUBLE_FIRST_S: Final = 0.5
TROUBLE_MOST_S: Final = 10.0


@dataclass(slots=True)
class PodInventory:
    """What the runtime has of one pod."""

    sandboxes: list[SandboxInfo] = field(default_factory=list)
    containers: list[ContainerInfo] = field(default_factory=list)

    def states(self) -> frozenset[tuple[str, str]]:
        """Equal for two lists between which nothing happened."""
        rows = [(one.id, one.state.value) for one in self.sandboxes]
        return frozenset(rows + [(one.id, one.state.value) for one in self.containers])


Inventory = Mapping[str, PodInventory]  # by pod uid


class Pleg:
    """``changed`` gets the uids of pods that look different than at the last list, with the list; ``ended`` gets containers that
    an event says have ended; ``healthy`` gets None, or what is wrong with the runtime."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        random: random.Random,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        *,
        changed: Callable[[set[str], Inventory], None],
        ended: Callable[[ContainerEvent], None],
        healthy: Callable[[str | None], None],
    ) -> None:
        self._runtime, self._clock, self._random, self._log = runtime, clock, random, log
        self._changed, self._ended, self._healthy = changed, ended, healthy
        self._states: dict[str, frozenset[tuple[str, str]]] = {}
        self._listening_since: float | None = None
        self._now = anyio.Event()
        self._trouble_s = 0.0

    def list_soon(self) -> None:
        self._now.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            while True:
                wait_s = await self._list()
                with anyio.move_on_after(wait_s):
                    await self._now.wait()
                self._now = anyio.Event()

    async def _list(self) -> float:
        """List once; return how long to wait until the next."""
        try:
            sandboxes = await self._runtime.list_sandboxes()
            containers = await self._runtime.list_containers()
        except RuntimeFault as exc:
            if not self._trouble_s:
                self._log.error("the container runtime cannot be listed: %s", exc)
            self._healthy(str(exc))
            self._trouble_s = min(max(self._trouble_s * 2, TROUBLE_FIRST_S), TROUBLE_MOST_S)
            return self._trouble_s * (0.75 + self._random.random() / 2)
        if self._trouble_s:
            self._log.info("the container runtime answers again")
        self._trouble_s = 0.0
        self._healthy(None)
        self._compare(_by_pod(sandboxes, containers))
        return WITH_EVENTS_S if self._hears() else WITHOUT_EVENTS_S

    def _hears(self) -> bool:
        """Whether events can be relied on: the stream stands for long enough that a list has covered what came before it."""
        since = self._listening_since
        return since is not None and self._clock.monotonic() - since > SETTLE_S

    def _compare(self, inventory: Inventory) -> None:
        states = {uid: one.states() for uid, one in inventory.items()}
        changed = {uid for uid, state in states.items() if self._states.get(uid) != state}
        changed |= self._states.keys() - states.keys()
        self._states = states
        self._changed(changed, inventory)

    async def _listen(self) -> None:
        delay_s = TROUBLE_FIRST_S
        while True:
            self._listening_since = self._clock.monotonic()
            try:
                async for event in self._runtime.events():
                    delay_s = TROUBLE_FIRST_S
                    if event.type is ContainerEventType.STOPPED:
                        self._ended(event)
            except RuntimeUnsupported:
                self._listening_since = None
                self._log.info("the container runtime has no events: it is listed every %g s", WITHOUT_EVENTS_S)
                return
            except RuntimeFault as exc:
                self._log.info("the runtime's events ended, listing meanwhile: %s", exc)
            # What happened without being heard is found by a list.
            self._listening_since = None
            self.list_soon()
            await self._clock.sleep(delay_s * (0.75 + self._random.random() / 2))
            delay_s = min(delay_s * 2, TROUBLE_MOST_S)


def _by_pod(sandboxes: Iterable[SandboxInfo], containers: Iterable[ContainerInfo]) -> Inventory:
    found: dict[str, PodInventory] = {}
    for sandbox in sandboxes:
        if uid := sandbox.labels.get(LABEL_POD_UID):
            found.setdefault(uid, PodInventory()).sandboxes.append(sandbox)
    for container in containers:
        if uid := container.labels.get(LABEL_POD_UID):
            found.setdefault(uid, PodInventory()).containers.append(container)
    return found
