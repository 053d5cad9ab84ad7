"""Virtual time, deadlocks, killed processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextvars import copy_context

import anyio
import pytest

from edgesite.testing.simulator.loop import PROCESS, Deadlock, Livelock, SimLoop


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    loop = SimLoop()
    yield loop
    loop.close()
    loop.bury()


def test_time_jumps_to_the_next_timer(loop: SimLoop) -> None:
    async def main() -> list[float]:
        times = []
        for _ in range(3):
            await anyio.sleep(3600)
            times.append(loop.time())
        return times

    assert loop.run_until_complete(main()) == [3600, 7200, 10800]


def test_deadlines_follow_virtual_time(loop: SimLoop) -> None:
    async def main() -> float:
        with anyio.move_on_after(30):
            await anyio.sleep_forever()
        return loop.time()

    assert loop.run_until_complete(main()) == 30


def test_waiting_for_what_cannot_come_is_a_deadlock(loop: SimLoop) -> None:
    task = loop.create_task(anyio.Event().wait())
    with pytest.raises(Deadlock):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_polling_without_sleep_is_a_livelock(loop: SimLoop) -> None:
    async def poll() -> None:
        while True:  # noqa: ASYNC110 - this is what is to be found
            await asyncio.sleep(0)

    task = loop.create_task(poll())
    with pytest.raises(Livelock):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_a_killed_process_runs_no_further_line(loop: SimLoop) -> None:
    done: list[str] = []
    woken = asyncio.Event()

    async def program() -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 5)
                await woken.wait()
        finally:
            done.append("cleaned up")

    async def main() -> None:
        context = copy_context()
        context.run(PROCESS.set, "program")
        running.append(loop.create_task(program(), context=context))
        await anyio.sleep(1)
        loop.kill("program")
        woken.set()
        await anyio.sleep(60)

    running: list[asyncio.Task[None]] = []
    loop.run_until_complete(main())
    assert done == []
    assert not running[0].done()


def test_a_fuse_kills_between_two_callbacks(loop: SimLoop) -> None:
    steps: list[int] = []

    async def program() -> None:
        for step in range(100):
            steps.append(step)
            await asyncio.sleep(0)

    async def main() -> None:
        context = copy_context()
        context.run(PROCESS.set, "program")
        running.append(loop.create_task(program(), context=context))
        loop.light_fuse("program", 7, lambda: loop.kill("program"))
        await anyio.sleep(1)

    running: list[asyncio.Task[None]] = []
    loop.run_until_complete(main())
    assert steps == list(range(7))


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_tasks_is_drawn_from_the_seed(seed: int) -> None:
    def order() -> list[int]:
        loop = SimLoop(random.Random(seed))
        seen: list[int] = []

        async def note(number: int) -> None:
            seen.append(number)

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(note, number)

        loop.run_until_complete(main())
        loop.close()
        return seen

    assert order() == order() != list(range(20))
    assert sorted(order()) == list(range(20))
