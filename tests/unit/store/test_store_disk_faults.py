"""What the store does when its disk is full, broken or corrupt."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import apsw
import pytest

from edgesite.net.real import RealClock, RealThreads
from edgesite.store import Compacted, FormatTooNew, Limits, Store, WriteFailed
from edgesite.testing.simulator.disk import Disk, SimDisk
from edgesite.testing.store import numbered

pytestmark = pytest.mark.anyio
Open = Callable[[], Awaitable[Store]]
PATH = Path("/state.db")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(random.Random(1), lambda: 0.0)
    yield disk
    disk.close()


@pytest.fixture
async def reopen(disk: Disk) -> AsyncIterator[Open]:
    """Open the store, killing the one that is open."""
    threads = RealThreads()
    before: list[SimDisk] = []

    async def open_store() -> Store:
        for one in before:
            one.die()
        before[:] = [SimDisk(disk)]
        return await Store.open(PATH, clock=RealClock(), threads=threads, disk=before[0], limits=Limits(retain=4))

    yield open_store
    for one in before:
        one.die()
    await threads.close()


async def test_a_full_disk_refuses_writes_and_leaves_reads_alone(disk: Disk, reopen: Open) -> None:
    store = await reopen()
    row = await store.put("/pods/default/a", numbered)
    disk.full = True
    with store.watch("/pods/") as watch:
        with pytest.raises(WriteFailed) as caught:
            await store.put("/pods/default/a", lambda revision: bytes(100_000), expect=row.revision)
        assert isinstance(caught.value.__cause__, apsw.FullError)
        assert store.failure is not None
        assert store.get("/pods/default/a") == store.latest("/pods/default/a") == row
        disk.full = False
        again = await store.put("/pods/default/a", numbered, expect=row.revision)
        assert store.failure is None
        assert [event.row for event in watch.take()] == [again]


async def test_leases_live_on_while_the_disk_is_full(disk: Disk, reopen: Open) -> None:
    store = await reopen()
    await store.put("/leases/nodes/a", numbered, volatile=True)
    await store.put("/leases/nodes/a", numbered, volatile=True)
    disk.full = True
    outcomes: list[str] = []

    async def create() -> None:
        with pytest.raises(WriteFailed):
            await store.put("/pods/default/a", lambda revision: bytes(100_000))
        outcomes.append("refused")

    async def renew() -> None:
        await store.put("/leases/nodes/a", numbered, volatile=True)
        outcomes.append("renewed")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create)
        tasks.start_soon(renew)
    assert sorted(outcomes) == ["refused", "renewed"]


async def test_writes_that_rest_on_a_failed_one_fail_with_it(disk: Disk, reopen: Open) -> None:
    store = await reopen()
    disk.broken = True
    refused: list[str] = []

    async def put(key: str) -> None:
        with pytest.raises(WriteFailed):
            await store.put(key, numbered)
        refused.append(key)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(put, "/pods/default/a")
    assert len(refused) == 3
    assert store.latest("/pods/default/a") is None
    disk.broken = False
    await store.put("/pods/default/a", numbered, expect=0)


@pytest.mark.parametrize("damage", ["header", "page", "value"])
async def test_a_corrupt_file_is_kept_aside_and_salvaged(
    disk: Disk, reopen: Open, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = await reopen()
    for number in range(60):
        await store.put(f"/pods/default/{number:02}", lambda revision: b"value " * 100)
    newest = store.revision
    await store.close()
    data = disk.files[str(PATH)].data
    at = {"header": 0, "page": 4096 * 8, "value": data.rindex(b"value value") + 3}[damage]
    data[at : at + 2] = b"??"
    if damage == "page":
        data[at : at + 4096] = bytes(4096)
    with caplog.at_level(logging.ERROR):
        store = await reopen()
    assert "corrupt" in caplog.text
    assert f"{PATH}.corrupt-1" in disk.files
    assert store.revision > newest
    kept = {"header": 0, "page": 40, "value": 59}[damage]
    assert store.count("/pods/") >= kept
    with pytest.raises(Compacted):
        store.watch("/pods/", after=newest)
    await store.put("/pods/default/new", numbered)
    store = await reopen()
    assert store.get("/pods/default/new") is not None
    await store.close()


async def test_a_file_of_a_later_program_is_left_alone(disk: Disk, reopen: Open) -> None:
    store = await reopen()
    await store.close()
    other = SimDisk(disk)
    connection = other.connect(PATH)
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(FormatTooNew, match="format 99"):
        await reopen()
    assert next(iter(disk.files)) == str(PATH)


async def test_the_file_does_not_grow_with_the_number_of_writes(disk: Disk, reopen: Open) -> None:
    store = await reopen()
    for _ in range(300):
        await store.put("/pods/default/a", lambda revision: bytes(1000))
    await store.close()
    assert len(disk.files[str(PATH)].data) < 40_000


async def test_space_of_what_was_deleted_is_given_back(disk: Disk, reopen: Open) -> None:
    store = await reopen()
    async with anyio.create_task_group() as tasks:
        for number in range(400):
            tasks.start_soon(store.put, f"/pods/default/{number}", lambda revision: bytes(20_000))
    async with anyio.create_task_group() as tasks:
        for number in range(400):
            tasks.start_soon(store.delete, f"/pods/default/{number}")
    for _ in range(200):  # each write takes some of what is superfluous with it
        await store.put("/pods/default/a", numbered)
    await store._committer.shrink()
    await store.close()
    assert len(disk.files[str(PATH)].data) < 1_000_000
