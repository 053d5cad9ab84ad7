"""Stopping a container that the runtime still takes for a running one."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from edgesite.edge.edged.runtime import ContainerState
from edgesite.edge.edged.stopper import ContainerStopper

pytestmark = pytest.mark.anyio


class LateRuntime:
    """Stops at once, and says so only when it is asked for the ``late``-th time."""

    def __init__(self, late: int) -> None:
        self.late = late
        self.asked = 0

    async def stop_container(self, container_id: str, grace_s: float) -> None:
        assert container_id == "c1"

    async def container_status(self, container_id: str) -> Any:
        self.asked += 1
        state = ContainerState.EXITED if self.asked >= self.late else ContainerState.RUNNING
        return SimpleNamespace(id=container_id, name="main", state=state)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("late", "state"), [(1, "EXITED"), (4, "EXITED"), (1000, "RUNNING")])
async def test_what_is_stopped_is_looked_at_until_it_has_ended(late: int, state: str) -> None:
    runtime, clock = LateRuntime(late), Clock()
    events = SimpleNamespace(report=lambda *told: None)
    services: Any = SimpleNamespace(runtime=runtime, clock=clock, events=events, log=logging.getLogger("test"))
    running = SimpleNamespace(id="c1", name="main", state=ContainerState.RUNNING)
    pod = SimpleNamespace(grace_s=30.0, containers=[], init_containers=[], reference=dict)
    pod_state: Any = SimpleNamespace(pod=pod, containers={"c1": SimpleNamespace(status=running, sandbox_id="s1")})
    await ContainerStopper(services).stop(pod_state, running, "it ends")  # type: ignore[arg-type]
    assert pod_state.containers["c1"].status.state is ContainerState[state]
    assert clock.now < 3
