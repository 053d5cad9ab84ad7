"""How far others may raise the revisions: as far as a restored file can once have gone, and no liar further, however often it tries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.net.real import RealDisk, RealThreads
from edgesite.store import Store
from edgesite.store.ceiling import MOST, RATE, SPARE, ceiling
from edgesite.testing.simulator.disk import Disk as SimulatedDisk
from edgesite.testing.simulator.disk import SimDisk

pytestmark = pytest.mark.anyio
BEGAN = 1_800_000_000


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = float(BEGAN)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


class Site:
    """A store's file, opened again and again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.db"
        self.clock = Clock()
        self.threads = RealThreads()

    async def open(self) -> Store:
        opened: dict[str, Any] = {"clock": self.clock, "threads": self.threads, "disk": RealDisk()}
        return await Store.open(self.path, **opened)

    def back_up(self) -> None:
        shutil.copy(self.path, self.path.with_name("backup.db"))

    def restore(self) -> None:
        shutil.copy(self.path.with_name("backup.db"), self.path)


async def write(store: Store) -> int:
    return (await store.put("/pods/default/web", lambda revision: b"{}")).revision


async def test_what_a_store_had_given_out_before_it_was_restored_is_believed_over_restarts(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with await site.open() as store:
        await write(store)
    site.back_up()
    site.clock.now += 30 * 86400
    seen = 30 * 86400 * 15_000  # as fast as disks are, all of a month
    site.restore()
    for _ in range(3):  # who has seen it comes late
        async with await site.open() as store:
            await write(store)
            assert store.revision < seen
    async with await site.open() as store:
        assert store.advance(seen)
        assert await write(store) == seen + 1
    await site.threads.close()


async def test_a_liar_raises_revisions_no_further_than_time_allows(tmp_path: Path) -> None:
    site = Site(tmp_path)
    days, starts = 300, 30
    for _ in range(starts):
        async with await site.open() as store:
            for leap in (MOST, 1 << 30, 1 << 20, 1 << 10, 1, 1):
                for _ in range(20):
                    store.advance(store.revision + leap)
                    await write(store)
        site.clock.now += days / starts * 86400
    async with await site.open() as store:
        assert store.revision < days * 86400 * RATE + (starts + 1) * SPARE + 20_000
    await site.threads.close()


async def test_a_liar_gets_little_from_a_store_that_runs(tmp_path: Path) -> None:
    site = Site(tmp_path)
    async with await site.open() as store:
        site.clock.now += 400 * 86400
        assert not store.advance(SPARE + 1)
        assert store.advance(SPARE)
        assert not store.advance(SPARE + 1)
        assert await write(store) == SPARE + 1, "the store itself goes on"
        assert store.advance(SPARE + 1)
    await site.threads.close()


async def test_a_disk_that_takes_nothing_does_not_keep_a_store_from_opening(tmp_path: Path) -> None:
    import random

    threads, clock = RealThreads(), Clock()
    disk = SimulatedDisk(random.Random(1), lambda: 0.0)
    owner = SimDisk(disk)
    opened: dict[str, Any] = {"clock": clock, "threads": threads, "disk": owner}
    async with await Store.open(Path("/state.db"), **opened) as store:
        await write(store)
    disk.full = True
    async with await Store.open(Path("/state.db"), **opened) as store:
        assert store.get("/pods/default/web") is not None
    disk.close()
    await threads.close()


@given(
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 50),
    st.integers(0, 1 << 40),
    st.integers(-(1 << 40), 1 << 40),
)
def test_bounds(newest: int, before: int, noted_at: int, now: int) -> None:
    found = ceiling(newest, before=before, noted_at=noted_at, now=now)
    assert found >= min(newest + SPARE, SPARE)
    if newest or noted_at:
        assert max(before, newest + SPARE) <= found <= max(before, newest + MOST)
    if noted_at and now <= noted_at:
        assert found == max(before, newest + SPARE), "a clock that is behind allows no more than bursts"
