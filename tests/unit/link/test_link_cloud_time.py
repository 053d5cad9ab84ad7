"""The cloud's time, and renewals that follow it whatever this machine's clock does."""

from __future__ import annotations

import logging
import random
from email.utils import formatdate

import anyio
import pytest

from edgesite.edge.edgehub.certificates import JoinError
from edgesite.edge.edgehub.cloudtime import CloudTime
from edgesite.edge.edgehub.renewal import LOOK_S, Renewal
from edgesite.net.tls_faults import clock_fault

pytestmark = pytest.mark.anyio

TODAY = 1_795_150_000.0
DAY = 86_400.0
LOG = logging.getLogger("cloudtime")


class Clock:
    """Sleeps at once; ``wall`` is what this machine believes."""

    def __init__(self, wall: float) -> None:
        self.now, self.wall = 1000.0, wall
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.wall + self.now - 1000.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


class Cloud:
    """Its certificates begin by its own clock and are due after 250 days."""

    def __init__(self, clock: Clock, ahead_s: float = 0.0) -> None:
        self.clock, self.ahead_s = clock, ahead_s
        self.issued = [self.time()]
        self.tells, self.answers = True, True

    def time(self) -> float:
        return TODAY + self.clock.now - 1000.0 + self.ahead_s

    async def renewal_at(self) -> float:
        return self.issued[-1] + 250 * DAY

    async def ask_date(self) -> str:
        if not self.answers:
            raise JoinError("no answer")
        return formatdate(self.time(), usegmt=True) if self.tells else ""

    async def renew(self) -> None:
        self.issued.append(self.time())


async def keep(clock: Clock, cloud: Cloud, days: float, time: CloudTime | None = None) -> int:
    """Run for so many days; returns how often a certificate was put to use."""
    used: list[None] = []
    renewal = Renewal(cloud, time or CloudTime(clock, LOG), clock, random.Random(1), LOG, lambda: used.append(None))  # type: ignore[arg-type]
    until = clock.now + days * DAY
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(renewal.run)
        while clock.now < until:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    return len(used)


@pytest.mark.parametrize("wall", [TODAY, 180.0, TODAY + 3650 * DAY], ids=["right", "1970", "2036"])
async def test_a_certificate_is_renewed_when_it_is_time_by_the_clouds_clock(wall: float) -> None:
    clock = Clock(wall)
    time = CloudTime(clock, LOG)
    time.note(formatdate(TODAY, usegmt=True))  # as on connecting
    cloud = Cloud(clock)
    assert await keep(clock, cloud, 249, time) == 0
    assert await keep(clock, cloud, 2, time) == 1
    assert await keep(clock, cloud, 249, time) == 0


async def test_a_clock_that_jumps_ahead_renews_nothing() -> None:
    """Nothing was told on connecting, as over QUIC or by KubeEdge's hub: the cloud is asked before anything is signed."""
    clock = Clock(TODAY)
    cloud = Cloud(clock)
    assert await keep(clock, cloud, 1) == 0
    clock.wall += 300 * DAY
    assert await keep(clock, cloud, 30) == 0
    assert max(clock.slept) <= LOOK_S


async def test_a_cloud_that_tells_no_time_is_not_asked_over_and_over() -> None:
    clock = Clock(TODAY + 300 * DAY)
    cloud = Cloud(clock)
    cloud.tells = False
    assert 1 <= await keep(clock, cloud, 1) <= 24, "each hour at most"


async def test_a_cloud_out_of_reach_is_asked_again() -> None:
    clock = Clock(TODAY)
    cloud = Cloud(clock)
    cloud.answers = False
    assert await keep(clock, cloud, 260) == 0
    cloud.answers = True
    assert await keep(clock, cloud, 0.1) == 1


def test_differing_clocks_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(180.0)
    time = CloudTime(clock, LOG)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert time.note(formatdate(TODAY + clock.now - 1000.0, usegmt=True))
            clock.now += 60
        assert [one.levelname for one in caplog.records] == ["WARNING"]
        assert "behind the cloud's, where it is 2026-11-20" in caplog.text
        clock.wall = TODAY
        assert time.note(formatdate(clock.time(), usegmt=True))
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
    assert time.now() == pytest.approx(clock.time(), abs=1.5)


def test_dates_that_are_none_change_nothing() -> None:
    time = CloudTime(Clock(TODAY), LOG)
    for bad in (None, "", "yesterday", "Thu, 32 Nov 2026 05:00:00 GMT", "Thu, 01 Jan 99999 00:00:00 GMT"):
        assert not time.note(bad)
    assert time.now() == TODAY


def test_other_failures_are_not_the_clocks() -> None:
    for error in (OSError("Connection refused"), TimeoutError(), JoinError("the cloud refused the token")):
        assert clock_fault(error, TODAY) == ""
