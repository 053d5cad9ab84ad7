"""What every store promises, as tests: subclass `StoreContract` and give it the fixture ``store``.

The store is empty at the start of each test, its limits are ``CONTRACT_LIMITS``.
"""

from __future__ import annotations

from typing import Final

import anyio
import anyio.lowlevel
import pytest

from edgesite.store import Compacted, Conflict, EventType, FutureRevision, Lagged, Limits, NotFound, Store, StoreClosed

__all__ = ["CONTRACT_LIMITS", "StoreContract", "numbered"]

CONTRACT_LIMITS: Final = Limits(events=20, watch_events=8)


def numbered(revision: int) -> bytes:
    """A value that tells its revision."""
    return b"at %d" % revision


class StoreContract:
    """Reading, writing, listing and watching; not what a crash leaves, which depends on the medium."""

    pytestmark = pytest.mark.anyio

    async def test_a_row_tells_its_revisions(self, store: Store) -> None:
        first = await store.put("/pods/default/a", numbered, attrs={"app": "web"})
        second = await store.put("/pods/default/a", numbered, expect=first.revision)
        assert (first.created, second.created) == (first.revision, first.revision)
        assert second.revision == store.revision == first.revision + 1
        assert second.value == numbered(second.revision)
        assert first.attrs == {"app": "web"}
        assert store.get("/pods/default/a") == second

    async def test_second_writer_from_the_same_revision_loses(self, store: Store) -> None:
        first = await store.put("/pods/default/a", numbered)
        second = await store.put("/pods/default/a", numbered, expect=first.revision)
        with pytest.raises(Conflict) as caught:
            await store.put("/pods/default/a", numbered, expect=first.revision)
        assert caught.value.actual == second

    async def test_expecting_nothing_refuses_what_exists(self, store: Store) -> None:
        await store.put("/pods/default/a", numbered, expect=0)
        with pytest.raises(Conflict):
            await store.put("/pods/default/a", numbered, expect=0)

    async def test_a_writer_is_compared_with_writes_under_way(self, store: Store) -> None:
        outcomes: list[bool] = []

        async def create() -> None:
            try:
                await store.put("/pods/default/a", numbered, expect=0)
            except Conflict:
                outcomes.append(False)
            else:
                outcomes.append(True)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(create)
        assert sorted(outcomes) == [False] * 4 + [True]

    async def test_what_is_under_way_is_not_read(self, store: Store) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.put, "/pods/default/a", numbered)
            await anyio.lowlevel.checkpoint()
            assert store.get("/pods/default/a") is None
            latest = store.latest("/pods/default/a")
            assert latest is not None
        assert store.get("/pods/default/a") == latest

    async def test_a_deletion_has_a_revision_and_a_last_state(self, store: Store) -> None:
        row = await store.put("/pods/default/a", numbered)
        gone = await store.delete("/pods/default/a", lambda revision: b"last", expect=row.revision)
        assert (gone.value, gone.revision, gone.created) == (b"last", row.revision + 1, row.created)
        assert store.get("/pods/default/a") is None
        again = await store.put("/pods/default/a", numbered, expect=0)
        assert again.created == again.revision

    async def test_deleting_what_is_not_there_is_refused(self, store: Store) -> None:
        with pytest.raises(NotFound):
            await store.delete("/pods/default/a")
        with pytest.raises(Conflict):
            await store.delete("/pods/default/a", expect=3)

    async def test_an_encoder_that_fails_changes_nothing(self, store: Store) -> None:
        def fail(revision: int) -> bytes:
            raise ValueError("no")

        before = store.revision
        with pytest.raises(ValueError, match="no"):
            await store.put("/pods/default/a", fail)
        assert store.latest("/pods/default/a") is None
        assert (await store.put("/pods/default/b", numbered)).revision == before + 1

    async def test_lists_are_in_order_and_bounded_by_their_prefix(self, store: Store) -> None:
        for key in ("/pods/b/1", "/pods/a/2", "/pods/a/1", "/podsx/a/1", "/nodes/n", "/pods/a/10", "/pods/a-b/1"):
            await store.put(key, numbered)
        assert [row.key for row in store.list("/pods/a/").rows] == ["/pods/a/1", "/pods/a/10", "/pods/a/2"]
        assert [row.key for row in store.list("/pods/").rows] == sorted(
            ["/pods/b/1", "/pods/a/2", "/pods/a/1", "/pods/a/10", "/pods/a-b/1"]
        )
        everything = [row.key for row in store.list("").rows]
        assert everything == sorted(everything)
        assert len(everything) == store.count("/") == 7
        assert store.list("/nothing/").rows == []

    async def test_pages_stay_at_their_revision(self, store: Store) -> None:
        for name in "abcdef":
            await store.put(f"/pods/default/{name}", numbered)
        page = store.list("/pods/", limit=2)
        assert ([row.key[-1] for row in page.rows], page.remaining) == (["a", "b"], 4)
        await store.delete("/pods/default/c")
        await store.put("/pods/default/bb", numbered)
        changed = await store.put("/pods/default/d", numbered)
        rest = store.list("/pods/", after=page.next_key, limit=3, revision=page.revision)
        assert ([row.key[-1] for row in rest.rows], rest.remaining) == (["c", "d", "e"], 1)
        assert rest.rows[1].revision < changed.revision
        last = store.list("/pods/", after=rest.next_key, limit=3, revision=page.revision)
        assert ([row.key[-1] for row in last.rows], last.next_key, last.remaining) == (["f"], None, 0)

    async def test_a_watch_gets_what_came_before_it_and_what_comes(self, store: Store) -> None:
        first = await store.put("/pods/default/a", numbered)
        second = await store.put("/pods/default/a", numbered)
        await store.put("/nodes/n", numbered)
        with store.watch("/pods/", after=first.revision) as watch:
            await store.delete("/pods/default/a")
            await store.put("/pods/default/b", numbered)
            events = watch.take()
            assert [(event.type, event.row.key[-1]) for event in events] == [
                (EventType.MODIFIED, "a"),
                (EventType.DELETED, "a"),
                (EventType.ADDED, "b"),
            ]
            assert [event.previous for event in events] == [first, second, None]
            assert watch.progress == store.revision

    async def test_watchers_share_their_events(self, store: Store) -> None:
        watches = [store.watch(prefix) for prefix in ("/pods/", "/pods/default/", "/")]
        await store.put("/pods/default/a", numbered)
        events = [watch.take()[0] for watch in watches]
        assert events[0] is events[1] is events[2]
        store.watch("/pods/other/").close()

    async def test_a_waiting_watcher_is_woken(self, store: Store) -> None:
        seen: list[int] = []

        async def follow() -> None:
            with store.watch("/pods/") as watch:
                async for event in watch:
                    seen.append(event.revision)
                    if len(seen) == 3:
                        return

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                await anyio.lowlevel.checkpoint()
                for name in "abc":
                    await store.put(f"/pods/default/{name}", numbered)
        assert seen == sorted(seen)

    async def test_a_callback_announces_events(self, store: Store) -> None:
        called = anyio.Event()
        with store.watch("/pods/") as watch:
            watch.on_ready = called.set
            await store.put("/pods/default/a", numbered)
            with anyio.fail_after(5):
                await called.wait()
            assert len(watch.take()) == 1

    async def test_a_slow_watcher_is_cut_off_after_what_it_had(self, store: Store) -> None:
        with store.watch("/pods/", size=4) as watch:
            for _ in range(6):
                await store.put("/pods/default/a", numbered)
            events = watch.take()
            assert [event.revision for event in events] == [1, 2, 3, 4]
            with pytest.raises(Lagged):
                watch.take()
        with store.watch("/pods/", after=4) as again:
            assert [event.revision for event in again.take()] == [5, 6]

    async def test_closing_a_watch_ends_its_reader(self, store: Store) -> None:
        watch = store.watch("/pods/")

        async def follow() -> None:
            assert [event async for event in watch] == []

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                await anyio.lowlevel.checkpoint()
                watch.close()

    async def test_old_events_are_forgotten_by_number(self, store: Store) -> None:
        for _ in range(30):
            await store.put("/pods/default/a", numbered)
        with pytest.raises(Compacted) as caught:
            store.watch("/pods/", after=5)
        assert caught.value.floor == 10
        assert len(store.watch("/pods/", after=10).take()) == 20
        with pytest.raises(Compacted):
            store.list("/pods/", revision=5)

    async def test_a_busy_kind_leaves_the_history_of_others_alone(self, store: Store) -> None:
        await store.put("/nodes/n", numbered)
        for _ in range(40):
            await store.put("/pods/default/a", numbered)
        assert [event.revision for event in store.watch("/nodes/", after=0).take()] == [1]
        with pytest.raises(Compacted):
            store.watch("/", after=0)

    async def test_compaction_forgets_what_was_before(self, store: Store) -> None:
        for _ in range(5):
            await store.put("/pods/default/a", numbered)
        await store.compact(3)
        assert store.compacted == 3
        for ask in (store.watch, lambda prefix, after: store.list(prefix, revision=after)):
            with pytest.raises(Compacted):
                ask("/pods/", after=2)
            with pytest.raises(Compacted):
                ask("/nothing/yet/", after=2)
        assert len(store.watch("/pods/", after=3).take()) == 2

    async def test_the_future_is_refused(self, store: Store) -> None:
        with pytest.raises(FutureRevision):
            store.watch("/pods/", after=store.revision + 1)
        with pytest.raises(FutureRevision):
            store.list("/pods/", revision=store.revision + 1)
        with pytest.raises(FutureRevision):
            await store.compact(store.revision + 1)

    async def test_volatile_updates_keep_their_place_in_the_sequence(self, store: Store) -> None:
        with store.watch("/") as watch:
            lease = await store.put("/leases/nodes/a", numbered, volatile=True)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.put, "/pods/default/a", numbered)
                await anyio.lowlevel.checkpoint()
                renewed = await store.put("/leases/nodes/a", numbered, volatile=True, expect=lease.revision)
            assert [event.revision for event in watch.take()] == [1, 2, 3]
        assert renewed.revision == 3

    async def test_a_closed_store_refuses_and_ends_its_watches(self, store: Store) -> None:
        watch = store.watch("/pods/")
        await store.close()
        with pytest.raises(StoreClosed):
            await store.put("/pods/default/a", numbered)
        with pytest.raises(StoreClosed):
            store.watch("/pods/")
        with pytest.raises(StoreClosed):
            watch.take()
        await store.close()
