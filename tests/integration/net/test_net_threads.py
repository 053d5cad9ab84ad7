"""Blocking calls off the loop: how many threads, in which order, and what becomes of calls that nobody waits for any more."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from edgesite.net.threads import POOL_SIZE, RealThreads

pytestmark = pytest.mark.anyio


@pytest.fixture
async def threads() -> AsyncIterator[RealThreads]:
    made = RealThreads()
    yield made
    await made.close()


async def test_calls_run_beside_each_other_in_as_many_threads_as_they_need(threads: RealThreads) -> None:
    together = threading.Barrier(POOL_SIZE)
    names: set[str] = set()

    async def call() -> None:
        await threads.run(together.wait, 5)  # passes only if so many are in it at the same time
        names.add(await threads.run(lambda: threading.current_thread().name))

    async with anyio.create_task_group() as tasks:
        for _ in range(2 * POOL_SIZE):
            tasks.start_soon(call)
    assert names == {"edgesite"}
    assert sum(one.name == "edgesite" for one in threading.enumerate()) >= POOL_SIZE


async def test_what_a_call_raises_reaches_who_awaits_it(threads: RealThreads) -> None:
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(next, iter(()))
    assert await threads.run(divmod, 7, 3) == (2, 1)


async def test_a_call_that_was_given_up_before_its_turn_is_not_run(threads: RealThreads) -> None:
    gate, ran = threading.Event(), []
    async with anyio.create_task_group() as tasks:
        for _ in range(POOL_SIZE):
            tasks.start_soon(threads.run, gate.wait, 5)
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0.01):
            await threads.run(ran.append, "given up")
        gate.set()
    await threads.run(ran.append, "wanted")
    assert ran == ["wanted"]


async def test_what_was_begun_ends_before_the_threads_do() -> None:
    threads, done = RealThreads(), []
    gate = threading.Event()

    def slow() -> None:
        gate.wait(5)
        done.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(threads.run, slow)
        await anyio.lowlevel.checkpoint()
        tasks.start_soon(threads.close)
        await anyio.lowlevel.checkpoint()
        gate.set()
    assert done == [1]
