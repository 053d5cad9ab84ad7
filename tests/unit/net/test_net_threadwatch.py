"""Which threads stand still, and which only take long."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from edgesite.net.threads import RealThreads
from edgesite.net.threadwatch import ThreadWatch

pytestmark = pytest.mark.anyio


class Watched:
    """Threads, and a clock that only the test advances."""

    def __init__(self) -> None:
        self.threads, self.now = RealThreads(), 0.0
        self.watch = ThreadWatch(lambda: self.threads.workers, lambda: self.now, 60.0)

    async def after(self, seconds: float) -> str | None:
        self.now += seconds
        return self.watch.problem()


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    made = Watched()
    yield made
    await made.threads.close()


async def waiting(event: threading.Event) -> None:
    """Until the thread has gone to sleep for good."""
    with anyio.fail_after(5):
        while not event.is_set():  # noqa: ASYNC110 - a thread sets it
            await anyio.sleep(0.001)
    await anyio.sleep(0.05)


async def test_a_call_that_waits_for_what_never_comes_stands_still(watched: Watched) -> None:
    began, never = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        never.wait()

    worker = watched.threads.worker("store")
    assert await watched.after(0) is None  # it has nothing to do
    done = worker.submit(wait)
    await waiting(began)
    assert await watched.after(0) is None
    assert await watched.after(59) is None
    assert await watched.after(2) == "the thread store has stood still for 61 s"
    never.set()
    await done
    assert await watched.after(100) is None


async def test_a_call_that_works_or_wakes_up_is_left_alone(watched: Watched) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.001):
            pass

    def compute() -> None:
        while not stop.is_set():
            sum(range(1000))

    for name, function in (("wakes", work), ("computes", compute)):
        watched.threads.worker(name).submit(function)
    for _ in range(3):
        assert await watched.after(100) is None
        time.sleep(0.02)  # noqa: ASYNC251 - real time for real threads
    stop.set()


async def test_one_call_after_another_is_no_standstill(watched: Watched) -> None:
    worker = watched.threads.worker("store")
    for _ in range(3):
        gate, began = threading.Event(), threading.Event()
        done = worker.submit(lambda gate=gate, began=began: (began.set(), gate.wait()))  # type: ignore[misc]
        await waiting(began)
        assert await watched.after(40) is None
        gate.set()
        await done
