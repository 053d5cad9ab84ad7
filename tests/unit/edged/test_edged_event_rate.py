"""Events leave no faster than ``eventRecordQPS`` and ``eventBurst`` allow; what waits is replaced by news of the same."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from edgesite.edge.edged.events import WARNING, Events
from edgesite.testing.virtualtime import VirtualClock, VirtualLoop

pytestmark = pytest.mark.anyio
POD = {"kind": "Pod", "name": "web", "namespace": "default", "uid": "1"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": VirtualLoop}


class Kept:
    """Metamanager's end."""

    def __init__(self) -> None:
        self.events: list[tuple[float, dict[str, Any]]] = []

    async def report_event(self, event: dict[str, Any]) -> None:
        self.events.append((VirtualClock().monotonic(), event))


async def test_events_are_paced_and_repetitions_that_wait_are_one() -> None:
    kept, clock = Kept(), VirtualClock()
    events = Events(kept, clock, "edge-1", logging.getLogger("test"), rate=2.0, burst=3)  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events.run)
        for number in range(5):
            events.report(POD, WARNING, "Reason", f"message {number}")
        for _ in range(100):  # of one that still waits
            events.report(POD, WARNING, "Reason", "message 4")
        await anyio.sleep(10)
        tasks.cancel_scope.cancel()
    assert [round(at, 1) for at, _ in kept.events] == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert kept.events[-1][1]["count"] == 101


async def test_no_rate_is_no_limit() -> None:
    kept, clock = Kept(), VirtualClock()
    events = Events(kept, clock, "edge-1", logging.getLogger("test"))  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(events.run)
        for number in range(50):
            events.report(POD, WARNING, "Reason", f"message {number}")
        await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()
    assert len(kept.events) == 50
    assert {at for at, _ in kept.events} == {0.0}
