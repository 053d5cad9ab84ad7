"""The store on a real file: what a restart keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from edgesite.net.real import RealClock, RealDisk, RealThreads
from edgesite.store import Compacted, Conflict, EventType, Limits, Store

pytestmark = pytest.mark.anyio
Open = Callable[[], Awaitable[Store]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def reopen(tmp_path: Path) -> AsyncIterator[Open]:
    threads = RealThreads()
    opened: list[Store] = []

    async def open_store() -> Store:
        for store in opened:
            await store.close()
        opened[:] = [
            await Store.open(
                tmp_path / "state.db",
                clock=RealClock(),
                threads=threads,
                disk=RealDisk(),
                index=lambda key, value: len(value),
                limits=Limits(retain=8),
            )
        ]
        return opened[0]

    yield open_store
    for store in opened:
        await store.close()
    await threads.close()


def value(revision: int) -> bytes:
    return b"at %d" % revision


async def test_rows_revisions_and_attrs_survive_a_restart(reopen: Open) -> None:
    store = await reopen()
    kept = await store.put("/pods/default/a", value, attrs=4)
    await store.put("/pods/default/b", value)
    await store.delete("/pods/default/b")
    revision = store.revision
    store = await reopen()
    assert store.get("/pods/default/a") == kept
    assert store.get("/pods/default/b") is None
    assert store.revision == revision
    assert (await store.put("/pods/default/b", value)).revision > revision


async def test_a_watch_goes_on_after_a_restart(reopen: Open) -> None:
    store = await reopen()
    first = await store.put("/pods/default/a", value)
    await store.put("/pods/default/a", value)
    await store.delete("/pods/default/a", lambda revision: b"last")
    store = await reopen()
    events = store.watch("/pods/", after=first.revision).take()
    assert [(event.type, event.row.value) for event in events] == [
        (EventType.MODIFIED, b"at 2"),
        (EventType.DELETED, b"last"),
    ]
    assert events[0].previous == first.__class__("/pods/default/a", b"at 1", 1, 1, 4)


async def test_a_watch_from_before_what_the_disk_holds_is_compacted(reopen: Open) -> None:
    store = await reopen()
    for _ in range(40):
        await store.put("/pods/default/a", value)
    store = await reopen()
    with pytest.raises(Compacted) as caught:
        store.watch("/pods/", after=1)
    floor = caught.value.floor
    assert [event.revision for event in store.watch("/pods/", after=floor).take()] == list(range(floor + 1, 41))


async def test_volatile_rows_are_kept_by_a_clean_stop(reopen: Open) -> None:
    store = await reopen()
    for _ in range(5):
        await store.put("/leases/node/a", value, volatile=True)
    store = await reopen()
    row = store.get("/leases/node/a")
    assert row is not None
    assert row.value == b"at 5"
    with pytest.raises(Compacted):  # versions in between were never on disk, as far as a restart can tell
        store.watch("/leases/", after=5)


async def test_writers_share_commits_and_one_of_two_loses(reopen: Open) -> None:
    store = await reopen()
    outcomes: list[str] = []

    async def create() -> None:
        try:
            await store.put("/pods/default/a", value, expect=0)
            outcomes.append("created")
        except Conflict:
            outcomes.append("conflict")

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(create)
    assert sorted(outcomes) == ["conflict"] * 7 + ["created"]
