"""When the hub writes: at once to who is quiet, and many objects in one frame to who has some on their way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from edgesite.cloud.cloudhub.outlet import Outlet

pytestmark = pytest.mark.anyio


class Peer:
    def __init__(self, name: str, written: list[str], *, may_gather: bool = False) -> None:
        self.may_gather = may_gather
        self._name, self._written = name, written

    def settle(self) -> None:
        self._written.append(self._name)


class Clock:
    """Sleeps end when the test says so."""

    def __init__(self) -> None:
        self.over = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        assert 0 < seconds < 0.1
        await self.over.wait()


async def _run(steps: Any) -> list[str]:
    clock = Clock()
    outlet = Outlet(clock)  # type: ignore[arg-type]
    written: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outlet.run)
        await settle()
        await steps(SimpleNamespace(outlet=outlet, clock=clock, written=written))
        tasks.cancel_scope.cancel()
    return written


async def settle() -> None:
    for _ in range(8):
        await checkpoint()


async def test_a_quiet_peer_is_written_to_once_for_all_that_came_together() -> None:
    async def steps(made: Any) -> None:
        peer = Peer("a", made.written)
        for _ in range(3):
            made.outlet.add(peer)
        await settle()
        assert made.written == ["a"]
        made.outlet.add(peer)
        await settle()

    assert await _run(steps) == ["a", "a"]


async def test_who_may_gather_is_written_to_after_a_moment_and_others_do_not_wait_for_it() -> None:
    async def steps(made: Any) -> None:
        made.outlet.add(Peer("busy", made.written, may_gather=True))
        made.outlet.add(Peer("quiet", made.written))
        await settle()
        assert made.written == ["quiet"]
        made.clock.over.set()
        await settle()

    assert await _run(steps) == ["quiet", "busy"]


async def test_what_has_become_urgent_does_not_wait_for_the_moment() -> None:
    async def steps(made: Any) -> None:
        peer = Peer("a", made.written, may_gather=True)
        made.outlet.add(peer)
        await settle()
        peer.may_gather = False  # a delete was queued
        made.outlet.add(peer)
        await settle()
        assert made.written == ["a"]
        made.clock.over.set()
        await settle()

    assert await _run(steps) == ["a", "a"]


async def test_every_gathered_peer_gets_its_turn() -> None:
    async def steps(made: Any) -> None:
        for at in range(200):
            made.outlet.add(Peer(str(at), made.written, may_gather=True))
        await settle()
        made.clock.over.set()
        await settle()
        await settle()

    assert await _run(steps) == [str(at) for at in range(200)]
