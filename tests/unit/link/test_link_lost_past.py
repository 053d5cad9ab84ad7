"""A cloud that was restored from a backup, and edges that know more than it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesite.edge.metamanager.database import EdgeDatabase
from edgesite.edge.metamanager.store import Arrival, EdgeStore
from edgesite.net.real import RealClock, RealDisk, RealThreads
from edgesite.store import Store
from edgesite.store.ceiling import SPARE
from edgesite.wire.newer import Verdict

pytestmark = pytest.mark.anyio


def pod(uid: str, version: int) -> Arrival:
    metadata = {"name": "web", "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    return Arrival("default/pod/web", {"kind": "Pod", "apiVersion": "v1", "metadata": metadata})


async def test_what_is_forgotten_takes_any_version_once_over_a_restart(tmp_path: Path) -> None:
    threads = RealThreads()
    for restart in (False, True):
        path = tmp_path / f"{restart}.db"
        async with _Edge(threads, path) as store:
            await store.apply([pod("u", 900)])
            assert (await store.apply([pod("u", 20)]))[0].verdict is Verdict.IGNORE
            await store.forget(["u", "of nobody"])
            assert [one.version for one in await store.holdings()] == [0]
            if not restart:
                await _takes_anew(store)
        if restart:
            async with _Edge(threads, path) as store:
                assert [one.version for one in await store.holdings()] == [0]
                await _takes_anew(store)
            async with _Edge(threads, path) as store:
                assert [one.version for one in await store.holdings()] == [20], "it counts again"
    await threads.close()


async def _takes_anew(store: EdgeStore) -> None:
    assert (await store.apply([pod("u", 20)]))[0].verdict is Verdict.STORE
    assert (await store.apply([pod("u", 19)]))[0].verdict is Verdict.IGNORE


async def test_an_end_that_is_forgotten_does_not_stand_in_the_way(tmp_path: Path) -> None:
    threads = RealThreads()
    async with _Edge(threads, tmp_path / "edge.db") as store:
        await store.apply([pod("u", 5), Arrival("default/pod/web", pod("u", 6).obj, is_delete=True)])
        outcome = (await store.apply([pod("u", 4)]))[0]
        assert (outcome.verdict, outcome.ended) == (Verdict.IGNORE, True)
        await store.forget(["u"])
        assert not store.has_ended("u")
        assert (await store.apply([pod("u", 4)]))[0].verdict is Verdict.STORE
    await threads.close()


async def test_revisions_go_on_above_what_others_have_seen(tmp_path: Path) -> None:
    threads = RealThreads()
    opened: dict[str, Any] = {"clock": RealClock(), "threads": threads, "disk": RealDisk()}
    async with await Store.open(tmp_path / "state.db", **opened) as store:
        assert store.advance(5000)
        assert store.advance(10), "nothing to do"
        assert (await store.put("/pods/default/web", lambda revision: b"{}")).revision == 5001
        assert not store.advance(SPARE + 1)
        assert (await store.put("/pods/default/web", lambda revision: b"{}")).revision == 5002
    async with await Store.open(tmp_path / "state.db", **opened) as store:
        assert store.revision == 5002
    await threads.close()


class _Edge:
    """An edge's store, open."""

    def __init__(self, threads: RealThreads, path: Path) -> None:
        self._database = EdgeDatabase(RealDisk(), path)
        self._worker = threads.worker("edge")

    async def __aenter__(self) -> EdgeStore:
        await self._worker.submit(self._database.open)
        store = EdgeStore(self._database, self._worker)
        await store.load()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(store.run)
        return store

    async def __aexit__(self, *exc: object) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._worker.submit(self._database.close)
        await self._worker.close()
