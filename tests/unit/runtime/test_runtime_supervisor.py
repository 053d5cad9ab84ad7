"""Supervision: start by need, restart after a crash, isolation, ordered stop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from graphlib import CycleError

import anyio
import pytest
from prometheus_client import CollectorRegistry, Counter

from edgesite.runtime.supervisor import MissingModule, ModuleState, Running, Supervisor, start_order

pytestmark = pytest.mark.anyio


class Named:
    def __init__(self, name: str, *needs: str) -> None:
        self.name = name
        self.needs = frozenset(needs)
        self.stands_for: frozenset[str] = frozenset()


class InstantClock:
    """Sleeping takes no time, but others run meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


def supervisor(running: Iterable[Running], clock: InstantClock | None = None) -> Supervisor:
    crashes = Counter("crashes", "", ["module"], registry=CollectorRegistry())
    return Supervisor(list(running), clock=clock or InstantClock(), random=random.Random(1), crashes=crashes)


def serving(name: str, log: list[str], *needs: str) -> Running:
    async def run(ready: Callable[[], None]) -> None:
        log.append(f"start {name}")
        ready()
        try:
            await anyio.sleep_forever()
        finally:
            log.append(f"stop {name}")

    return Running(Named(name, *needs), run)  # type: ignore[arg-type]


def test_start_order_puts_needs_first() -> None:
    order = start_order([Named("c", "b"), Named("a"), Named("b", "a")])  # type: ignore[list-item]
    assert [one.name for one in order] == ["a", "b", "c"]


def test_a_module_may_stand_for_another() -> None:
    other = Named("kubeapi")
    other.stands_for = frozenset({"apiserver"})
    order = start_order([Named("hub", "apiserver"), other])  # type: ignore[list-item]
    assert [one.name for one in order] == ["kubeapi", "hub"]


def test_a_missing_need_is_named() -> None:
    with pytest.raises(MissingModule, match="edged needs metamanager"):
        start_order([Named("edged", "metamanager")])  # type: ignore[list-item]


def test_a_circle_of_needs_is_an_error() -> None:
    with pytest.raises(CycleError):
        start_order([Named("a", "b"), Named("b", "a")])  # type: ignore[list-item]


async def test_starts_in_order_and_stops_in_reverse() -> None:
    log: list[str] = []
    site = supervisor([serving("edged", log, "meta"), serving("hub", log), serving("meta", log, "hub")])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.run)
        await site.all_ready.wait()
        tasks.cancel_scope.cancel()

    assert log == ["start hub", "start meta", "start edged", "stop edged", "stop meta", "stop hub"]


async def test_a_cancellation_that_nobody_asked_for_is_a_crash() -> None:
    starts = 0

    async def run(ready: Callable[[], None]) -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            given_up = asyncio.get_running_loop().create_future()
            given_up.cancel()
            await given_up  # as of a library that answers so when its connection closes
        ready()
        await anyio.sleep_forever()

    module = Running(Named("module"), run)  # type: ignore[arg-type]
    site = supervisor([module])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.run)
        with anyio.fail_after(5):
            await site.all_ready.wait()
        assert (module.crashes, module.state) == (1, ModuleState.READY)
        tasks.cancel_scope.cancel()
    assert module.state is ModuleState.STOPPED


async def test_a_crash_is_restarted_with_backoff_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    clock = InstantClock()
    log: list[str] = []
    starts = 0

    async def run(ready: Callable[[], None]) -> None:
        nonlocal starts
        starts += 1
        if starts < 5:
            raise RuntimeError(f"crash {starts}")
        ready()
        await anyio.sleep_forever()

    crashing = Running(Named("crashing"), run)  # type: ignore[arg-type]
    other = serving("other", log)
    site = supervisor([crashing, other], clock)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.run)
        await site.all_ready.wait()
        assert crashing.problem() is None
        assert log == ["start other"]
        tasks.cancel_scope.cancel()

    assert crashing.crashes == 4
    assert all(low <= one <= low * 1.2 for low, one in zip([1, 2, 4, 8], clock.slept, strict=True))
    assert "crash 4" in caplog.text


async def test_a_module_that_returns_by_itself_counts_as_crashed(caplog: pytest.LogCaptureFixture) -> None:
    ended = anyio.Event()

    async def run(ready: Callable[[], None]) -> None:
        ready()
        ended.set()

    class Stuck(InstantClock):
        async def sleep(self, seconds: float) -> None:
            await anyio.sleep_forever()

    one = Running(Named("short"), run)  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(supervisor([one], Stuck()).run)
        await ended.wait()
        await anyio.wait_all_tasks_blocked()
        assert one.state is ModuleState.CRASHED
        assert "ended by itself" in (one.problem() or "")
        tasks.cancel_scope.cancel()


async def test_what_does_not_stop_in_time_is_left_behind_by_name(caplog: pytest.LogCaptureFixture) -> None:
    released = anyio.Event()

    async def run(ready: Callable[[], None]) -> None:
        ready()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await released.wait()

    stubborn = Running(Named("stubborn"), run)  # type: ignore[arg-type]
    site = supervisor([stubborn])

    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            await site.run(grace_s=0)

        tasks.start_soon(serve)
        await site.all_ready.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.wait_all_tasks_blocked()
            assert "stubborn did not stop" in caplog.text
            released.set()
