"""Looks at what is left on the node, says what is short, and makes room: images nobody uses first, then pods, one at a time.

Units   Seconds, bytes.
Errors  None leave `run`: what cannot be measured now is measured at the next look.
State   Since when each threshold has been met, in memory. An evicted pod has failed for good; that is in its status.
Source  Kubernetes: "Node-pressure Eviction"; kubelet looks every 10 seconds, as often as this node may report its status.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edgesite.context import Clock, Threads
from edgesite.edge.edged.events import WARNING
from edgesite.edge.edged.eviction.ranking import (
    Usage,
    choose,
    has_storage_limits,
    local_storage_excess,
    termination,
)
from edgesite.edge.edged.eviction.thresholds import RESOURCES, Observation, Threshold, Watch, observe, read_thresholds
from edgesite.edge.edged.eviction.usage import measure
from edgesite.edge.edged.imagegc import ImageCollector
from edgesite.edge.edged.lifecycle import is_over
from edgesite.edge.edged.machine import Machine
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.runtime import Runtime, RuntimeFault
from edgesite.edge.edged.services import NodeFacts
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.edge.edged.state import PodState, Termination

__all__ = ["EvictionParts", "Evictions", "Terminator"]

LEAST_GRACE_S: Final = 1.0  #: of a pod that is evicted at once
ROOM_S: Final = 30.0  #: how long the next eviction waits until what the last pod held is free
_DISK: Final = ("nodefs.", "imagefs.")


class Terminator(Protocol):
    """Ends one pod; `edgesite.edge.edged.pods.Pods.terminate`."""

    def __call__(self, uid: str, why: Termination, grace_s: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class EvictionParts:
    settings: EdgedSettings
    node: NodeFacts
    runtime: Runtime
    machine: Machine
    images: ImageCollector
    paths: Paths
    clock: Clock
    threads: Threads
    log: logging.Logger | logging.LoggerAdapter[logging.Logger]


class Evictions:
    """``changed`` is called when the node's conditions are others than before; ``report(type, reason, message)`` speaks of the node."""

    def __init__(
        self,
        parts: EvictionParts,
        data_dir: Path,
        *,
        pods: Callable[[], Iterable[PodState]],
        terminate: Terminator,
        changed: Callable[[], None],
        report: Callable[[str, str, str], None],
    ) -> None:
        self._parts, self._data_dir, self._pods, self._terminate = parts, data_dir, pods, terminate
        self._changed, self._report = changed, report
        self._evicted, self._until = "", 0.0  # the pod that was evicted last, and how long its end is waited for
        self._watch = Watch((), 0.0)
        self._needs_images = False
        self.reload()

    def reload(self) -> None:
        """Go on by the settings as they are now."""
        settings = self._parts.settings
        thresholds = read_thresholds(
            settings.eviction_hard, settings.eviction_soft, settings.eviction_soft_grace, settings.eviction_reclaim
        )
        self._watch.change(thresholds, settings.eviction_transition_s)
        self._needs_images = any(one.signal.startswith("imagefs.") for one in thresholds)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self._parts.clock.sleep(self._parts.settings.status_update_s)
            await self.look()

    async def look(self) -> None:
        """Compare what is left with the thresholds, and act."""
        try:
            seen = await self.note_stress()
            await self._enforce_limits()
            if (due := self._watch.due()) and not self._is_ending():
                await self._make_room(due[0], seen)
        except (RuntimeFault, OSError) as exc:
            self._parts.log.warning("the node's resources cannot be looked at now: %s", exc)

    async def note_stress(self) -> dict[str, Observation]:
        """Observe, and let the node's facts say what is short. Raises OSError."""
        parts = self._parts
        node = await parts.threads.run(parts.machine.pressure, self._data_dir)
        images = None
        if self._needs_images:
            try:
                images = await parts.images.disk()
            except RuntimeFault as exc:  # a runtime that is down says nothing of its disk; of the rest there is news
                parts.log.debug("the disk of images cannot be looked at: %s", exc)
        seen = observe(node, images, parts.node.memory_bytes)
        self._watch.take(seen, parts.clock.monotonic())
        stress = self._watch.stress()
        if stress != parts.node.stress:
            parts.node.stress = stress
            self._changed()
        return seen

    async def _make_room(self, threshold: Threshold, seen: dict[str, Observation]) -> None:
        parts = self._parts
        self._report(WARNING, "EvictionThresholdMet", f"Attempting to reclaim {RESOURCES[threshold.signal]}")
        if threshold.signal.startswith(_DISK):
            await parts.images.free(float("inf"))
            seen = await self.note_stress()
            if threshold not in self._watch.due():
                return
        running = [one for one in self._pods() if not is_over(one) and one.admitted]
        usages = await self._measure(running, disk=threshold.signal.startswith(_DISK))
        ranked = choose(threshold, [(one.pod, usages.get(one.pod.uid, Usage())) for one in running])
        if not ranked:
            parts.log.warning("signal=%s is low and there is no pod that may be evicted", threshold.signal)
            return
        pod = ranked[0]  # one at a time: it may be enough
        why = termination(threshold, seen[threshold.signal], pod, usages.get(pod.uid, Usage()))
        parts.log.warning("pod=%s uid=%s is evicted: %s", pod.key, pod.uid, why.message)
        grace_s = LEAST_GRACE_S if threshold.hard else min(pod.grace_s, parts.settings.eviction_max_grace_s)
        self._terminate(pod.uid, why, grace_s)
        self._evicted, self._until = pod.uid, parts.clock.monotonic() + grace_s + ROOM_S

    def _is_ending(self) -> bool:
        """Whether the pod that was evicted last still holds what it was evicted for."""
        if self._parts.clock.monotonic() >= self._until:
            return False
        return any(one.pod.uid == self._evicted and not (one.given_back or one.released) for one in self._pods())

    async def _enforce_limits(self) -> None:
        """End pods that use more of the local disk than they asked for themselves."""
        limited = [one for one in self._pods() if not is_over(one) and one.admitted and has_storage_limits(one.pod)]
        if not limited:
            return
        usages = await self._measure(limited, disk=True)
        for state in limited:
            if (why := local_storage_excess(state.pod, usages[state.pod.uid])) is not None:
                self._parts.log.warning("pod=%s uid=%s is evicted: %s", state.pod.key, state.pod.uid, why.message)
                self._terminate(state.pod.uid, why, LEAST_GRACE_S)

    async def _measure(self, states: list[PodState], *, disk: bool) -> dict[str, Usage]:
        parts = self._parts
        return await measure(states, parts.runtime, parts.paths, parts.threads, disk=disk)
