import random

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.client import Controller, RateLimiter, Result, TerminalError, WorkQueue
from edgesite.kube.errors import conflict
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio


@pytest.fixture
def queue(clock, rng):
    return WorkQueue(clock, RateLimiter(clock, rng))


async def test_a_key_waits_only_once(queue):
    for key in ("a", "b", "a"):
        queue.add(key)
    assert len(queue) == 2


async def test_a_key_that_is_being_worked_on_waits_until_that_ends(queue):
    queue.add("a")
    async with queue.take():
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0
    assert len(queue) == 1
    async with queue.take() as key:
        assert key == "a"
    assert queue.idle


async def test_fresh_keys_overtake_those_of_a_full_list(queue):
    queue.add("old-1", low=True)
    queue.add("old-2", low=True)
    queue.add("fresh")
    queue.add("old-2")
    taken = []
    while len(taken) < 3:
        async with queue.take() as key:
            taken.append(key)
    assert taken == ["fresh", "old-2", "old-1"]
    assert queue.idle


async def test_delayed_keys_come_when_due_and_the_earlier_delay_holds(queue, clock):
    taken = []

    async def worker():
        while True:
            async with queue.take() as key:
                taken.append((key, round(clock.monotonic(), 3)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run)
        tasks.start_soon(worker)
        await settle()
        began = clock.monotonic()
        queue.add_after("late", 20)
        queue.add_after("soon", 5)
        queue.add_after("late", 60)
        await anyio.sleep(100)
        tasks.cancel_scope.cancel()
    assert [(key, round(at - began)) for key, at in taken] == [("soon", 5), ("late", 20)]


async def test_backoff_doubles_to_its_bound_and_is_forgotten(clock):
    limiter = RateLimiter(clock, random.Random(1), first_s=1, most_s=10)
    delays = [limiter.when("a") for _ in range(6)]
    assert [int(one) for one in delays] == [1, 2, 4, 8, 10, 10]
    limiter.forget("a")
    assert limiter.when("a") < 1.2


async def test_all_retries_together_keep_under_the_rate(clock):
    limiter = RateLimiter(clock, random.Random(1), first_s=0.001, qps=10, burst=2)
    delays = [limiter.when(number) for number in range(12)]
    assert max(delays[:2]) < 0.01
    assert delays[-1] == pytest.approx(1.0)


@given(st.lists(st.tuples(st.sampled_from(["add", "low", "take", "done"]), st.integers(0, 3))))
def test_no_key_is_lost_and_none_is_with_two_workers(steps):
    class Still:
        def monotonic(self):
            return 0.0

    queue = WorkQueue(Still(), RateLimiter(Still(), random.Random(0)))
    held, wanted = {}, set()
    for what, key in steps:
        if what in ("add", "low"):
            queue.add(key, low=what == "low")
            wanted.add(key)
        elif what == "take" and queue._dirty.keys() - held.keys():
            block = queue.take()
            entering = block.__aenter__()
            with pytest.raises(StopIteration) as stop:
                entering.send(None)
            taken = stop.value.value
            assert taken not in held
            assert taken in wanted
            held[taken] = block
            wanted.discard(taken)
        elif what == "done" and key in held:
            leaving = held.pop(key).__aexit__(None, None, None)
            with pytest.raises(StopIteration):
                leaving.send(None)
    assert queue._dirty.keys() == wanted
    assert wanted - held.keys() <= {*queue._ready, *queue._low}


async def run_for(controller, seconds):
    with anyio.move_on_after(seconds):
        await controller.run()


async def test_controller_retries_failures_and_leaves_terminal_ones(clock, rng):
    tries = []

    async def reconcile(key):
        tries.append(key)
        if key == "terminal":
            raise TerminalError("never")
        if tries.count(key) < 3:
            raise conflict("pods", key, "modified")

    controller = Controller("test", reconcile, clock, rng)
    controller.queue.add("flaky")
    controller.queue.add("terminal")
    await run_for(controller, 10)
    assert tries.count("flaky") == 3
    assert tries.count("terminal") == 1
    assert controller.queue.failures("flaky") == 0


async def test_controller_requeues_when_asked_and_gives_up_a_reconcile_that_hangs(clock, rng):
    at = []

    async def reconcile(key):
        at.append(round(clock.monotonic()))
        if len(at) == 2:
            await anyio.sleep_forever()
        return Result(requeue_after_s=30)

    controller = Controller("test", reconcile, clock, rng, deadline_s=50)
    controller.queue.add("a")
    await run_for(controller, 100)
    assert at == [0, 30, 80]


async def test_one_key_is_never_with_two_workers(clock, rng):
    active, peak = [], []

    async def reconcile(key):
        active.append(key)
        peak.append(active.count(key))
        await anyio.sleep(1)
        active.remove(key)

    controller = Controller("test", reconcile, clock, rng, workers=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(controller.run)
        for _ in range(20):
            controller.queue.add("a")
            controller.queue.add("b")
            await anyio.sleep(0.3)
        await anyio.sleep(5)
        tasks.cancel_scope.cancel()
    assert max(peak) == 1
    assert controller.queue.idle
