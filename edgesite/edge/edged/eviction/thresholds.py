"""When a resource is too short. Pure: what is left, and the time, are arguments.

Units   Bytes, inodes, process ids; seconds of a monotonic clock.
Errors  None: a threshold that cannot be read is left out (the configuration was validated before).
Source  Kubernetes: "Node-pressure Eviction": signals, hard and soft thresholds, grace periods, minimum reclaim, transition period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgesite.edge.edged.machine import Pressure
from edgesite.kube.quantity import InvalidQuantity, parse
from edgesite.kube.times import InvalidTime, parse_duration

__all__ = ["CONDITIONS", "RESOURCES", "Observation", "Threshold", "Watch", "observe", "read_thresholds"]

#: Node condition by signal.
CONDITIONS: Final = {
    "memory.available": "MemoryPressure",
    "nodefs.available": "DiskPressure",
    "nodefs.inodesFree": "DiskPressure",
    "imagefs.available": "DiskPressure",
    "imagefs.inodesFree": "DiskPressure",
    "pid.available": "PIDPressure",
}
RESOURCES: Final = {
    "memory.available": "memory",
    "nodefs.available": "ephemeral-storage",
    "nodefs.inodesFree": "inodes",
    "imagefs.available": "ephemeral-storage",
    "imagefs.inodesFree": "inodes",
    "pid.available": "pids",
}


@dataclass(frozen=True, slots=True)
class Observation:
    available: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """Below ``percent`` of the capacity, or below ``amount``. ``grace_s`` 0: hard."""

    signal: str
    amount: int = 0
    percent: float = 0.0
    grace_s: float = 0.0
    reclaim: int = 0  #: how much more than the threshold must be free before it counts as over
    reclaim_percent: float = 0.0

    @property
    def hard(self) -> bool:
        return not self.grace_s

    def least(self, capacity: int) -> int:
        return int(capacity * self.percent / 100) if self.percent else self.amount

    def is_met(self, seen: Observation, before: bool) -> bool:
        """Whether too little is left; one that was met ``before`` stays so until the minimum reclaim is free as well."""
        extra = int(seen.capacity * self.reclaim_percent / 100) if self.reclaim_percent else self.reclaim
        return seen.available < self.least(seen.capacity) + (extra if before else 0)


def read_thresholds(
    hard: Mapping[str, str],
    soft: Mapping[str, str],
    grace: Mapping[str, str],
    reclaim: Mapping[str, str],
) -> tuple[Threshold, ...]:
    """Return what the configuration says, memory first: it is the most urgent."""
    found: list[Threshold] = []
    for signal, text in (*hard.items(), *soft.items()):
        is_soft = len(found) >= len(hard)
        amount, percent = _amount(text)
        more, more_percent = _amount(reclaim.get(signal, "0"))
        found.append(
            Threshold(signal, amount, percent, _grace_s(grace.get(signal, "")) if is_soft else 0.0, more, more_percent)
        )
    known = [one for one in found if one.signal in CONDITIONS and (one.amount or one.percent)]
    return tuple(sorted(known, key=lambda one: one.signal != "memory.available"))


def _amount(text: str) -> tuple[int, float]:
    try:
        if text.endswith("%"):
            return 0, float(text[:-1])
        return parse(text).value(), 0.0
    except (InvalidQuantity, ValueError):
        return 0, 0.0


def _grace_s(text: str) -> float:
    try:
        return parse_duration(text) or 1.0
    except InvalidTime:
        return 1.0  # kubelet refuses a soft threshold without a grace period; a hard one would be the greater harm


def observe(node: Pressure, images: Pressure | None, memory_bytes: int) -> dict[str, Observation]:
    """Return what each signal shows, of ``memory_bytes`` in all. Without a disk of their own, images share the node's."""
    images = images or node
    seen = {
        "memory.available": Observation(node.memory_available_bytes, memory_bytes),
        "nodefs.available": Observation(node.disk_available_bytes, node.disk_bytes),
        "nodefs.inodesFree": Observation(node.inodes_free, node.inodes),
        "imagefs.available": Observation(images.disk_available_bytes, images.disk_bytes),
        "imagefs.inodesFree": Observation(images.inodes_free, images.inodes),
        "pid.available": Observation(node.pids_most - node.pids, node.pids_most),
    }
    # Some file systems count no inodes, some kernels tell no limit: then nothing can be said.
    return {signal: one for signal, one in seen.items() if one.capacity > 0}


class Watch:
    """Thresholds over time. ``take`` each observation, then ask."""

    def __init__(self, thresholds: tuple[Threshold, ...], transition_s: float) -> None:
        self._thresholds, self._transition_s = thresholds, transition_s
        self._met_since: dict[Threshold, float] = {}
        self._stressed_at: dict[str, float] = {}
        self._now = 0.0

    def change(self, thresholds: tuple[Threshold, ...], transition_s: float) -> None:
        """Go on by other thresholds; those that were met already and are among them have been met for as long."""
        self._thresholds, self._transition_s = thresholds, transition_s

    def take(self, seen: Mapping[str, Observation], now: float) -> None:
        self._now = now
        met = {}
        for one in self._thresholds:
            if (shown := seen.get(one.signal)) and one.is_met(shown, one in self._met_since):
                met[one] = self._met_since.get(one, now)
                self._stressed_at[CONDITIONS[one.signal]] = now
        self._met_since = met

    def stress(self) -> frozenset[str]:
        """Node conditions that hold: for a while after the trouble is over, lest pods come back too soon."""
        return frozenset(
            kind for kind, at in self._stressed_at.items() if at == self._now or self._now - at < self._transition_s
        )

    def due(self) -> tuple[Threshold, ...]:
        """Thresholds that have been met for longer than their grace period."""
        return tuple(
            one
            for one in self._thresholds
            if one in self._met_since and self._now - self._met_since[one] >= one.grace_s
        )
