"""The token bucket before an API server that is not ours."""

import anyio
import pytest

from edgesite.client import ratelimit
from edgesite.client.ratelimit import RateLimit, TooManyRequests
from edgesite.testing.virtualtime import settle

pytestmark = pytest.mark.anyio


async def send(limit, flow, count, went, clock):
    async def one():
        await limit.take(flow)
        went.append((round(clock.monotonic(), 3), flow))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)


async def test_a_burst_goes_at_once_and_the_rest_at_the_rate(clock):
    limit, went = RateLimit(clock, 10, 5), []
    await send(limit, "a", 15, went, clock)
    times = [when - went[0][0] for when, _ in went]
    assert times[:5] == [0.0] * 5
    assert times[5:] == pytest.approx([0.1 * number for number in range(1, 11)], abs=0.02)
    await clock.sleep(60)
    again = []
    await send(limit, "a", 6, again, clock)
    assert [round(when - again[0][0], 1) for when, _ in again] == [0.0] * 5 + [0.1]


async def test_a_flow_of_many_requests_does_not_hold_up_another(clock):
    limit, went = RateLimit(clock, 10, 1), []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, limit, "records", 100, went, clock)
        await settle()
        tasks.start_soon(send, limit, "leases", 3, went, clock)
    assert len(went) == 103
    last_lease = max(number for number, (_, flow) in enumerate(went) if flow == "leases")
    assert last_lease <= 8


async def test_who_gives_up_leaves_its_turn_to_others(clock):
    limit, went = RateLimit(clock, 1, 1), []
    await limit.take("a")
    async with anyio.create_task_group() as tasks:

        async def impatient():
            with anyio.move_on_after(0.5):
                await limit.take("a")
                went.append("impatient")

        async def patient():
            await limit.take("a")
            went.append(round(clock.monotonic(), 1))

        started = clock.monotonic()
        tasks.start_soon(impatient)  # the one that watches the clock
        tasks.start_soon(patient)
    assert went == [pytest.approx(started + 1.0, abs=0.1)]
    assert limit.waiting == 0


async def test_a_full_queue_refuses(clock, monkeypatch):
    monkeypatch.setattr(ratelimit, "MOST_WAITING", 2)
    limit = RateLimit(clock, 1, 1)
    await limit.take("a")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(limit.take, "a")
        tasks.start_soon(limit.take, "b")
        await settle()
        with pytest.raises(TooManyRequests):
            await limit.take("c")


async def test_no_rate_is_no_limit(clock):
    limit, went = RateLimit(clock, 0, 1), []
    await send(limit, "a", 1000, went, clock)
    assert {when for when, _ in went} == {went[0][0]}
