"""Removes ended containers that are more than the node shall keep. What a pod's status is made of stays: the newest of each name.

Units   Seconds; nanoseconds since the epoch where the runtime's times are meant.
Errors  None leave `run`: what cannot be removed now is tried again.
State   None.
Source  kubelet, pkg/kubelet/kuberuntime/kuberuntime_gc.go: minimumGCAge, maxPerPodContainerCount and maxContainerCount, who goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from edgesite.edge.edged.runtime import ContainerState, ContainerStatus
from edgesite.edge.edged.services import PodServices
from edgesite.edge.edged.state import PodState
from edgesite.edge.edged.stopper import ContainerStopper

__all__ = ["ContainerCollector", "made_before_ns", "surplus", "surplus_of_all"]

LOOK_S: Final = 60.0
_NS: Final = 1_000_000_000


def made_before_ns(services: PodServices) -> int:
    """Return when a container must have been made that may be removed now."""
    return int((services.clock.time() - services.settings.dead_container_age_s) * _NS)


def surplus(history: Sequence[ContainerStatus], kept: int, made_before: int) -> list[ContainerStatus]:
    """Return those of one name that go, from all of it with the newest first: ``kept`` stay beside that; below 0, all do."""
    old = history[1 + kept :] if kept >= 0 else ()
    return [one for one in old if one.state is ContainerState.EXITED and one.created_ns <= made_before]


def surplus_of_all(
    histories: Iterable[Sequence[ContainerStatus]], most: int, made_before: int
) -> list[ContainerStatus]:
    """Return those that go so that ``most`` ended ones stay on the node: each name keeps its share, and then the oldest go."""
    ended = 0
    spare: list[list[ContainerStatus]] = []
    for history in histories:
        ended += sum(one.state is ContainerState.EXITED for one in history)
        if found := surplus(history, 0, made_before):
            spare.append(found)
    if ended <= most or not spare:
        return []
    share = max(most // len(spare), 1)
    beyond = sorted((one for found in spare for one in found[share:]), key=_made_at)
    within = sorted((one for found in spare for one in found[:share]), key=_made_at)
    return [*beyond, *within][: ended - most]


def _made_at(container: ContainerStatus) -> int:
    return container.created_ns


class ContainerCollector:
    """Does what the pods' own work does not see to: the bound of the whole node, and containers that had been too young to go."""

    def __init__(self, services: PodServices, states: Callable[[], Iterable[PodState]]) -> None:
        self._services, self._states = services, states
        self._stopper = ContainerStopper(services)

    async def run(self) -> None:
        """Look every minute until cancelled, where the node is set up so that there may be anything to do."""
        settings = self._services.settings
        while True:
            await self._services.clock.sleep(LOOK_S)
            if settings.max_dead_containers_of_all >= 0 or settings.dead_container_age_s > 0:
                await self.look()

    async def look(self) -> None:
        settings, before = self._services.settings, made_before_ns(self._services)
        histories = [history for state in self._states() for history in _histories(state)]
        gone = [one for history in histories for one in surplus(history, settings.max_dead_containers, before)]
        if settings.max_dead_containers_of_all >= 0:
            taken = {one.id for one in gone}
            left = ([one for one in history if one.id not in taken] for history in histories)
            gone += surplus_of_all(left, settings.max_dead_containers_of_all, before)
        for one in gone:
            await self._stopper.forget(one)


def _histories(state: PodState) -> list[list[ContainerStatus]]:
    return [state.all_of(name) for name in dict.fromkeys(one.status.name for one in state.containers.values())]
