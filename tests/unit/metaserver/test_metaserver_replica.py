"""What is kept of what was read: newest states, written together, bounded, and whole or not there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesite.edge.metamanager import replica as replicas
from edgesite.edge.metamanager.database import EdgeDatabase
from edgesite.edge.metamanager.hot import HOT_BYTES, Hot
from edgesite.edge.metamanager.replica import Collected, Document, KindKey, Replica, Stored
from edgesite.edge.metamanager.store import Arrival, EdgeStore, StoreError
from edgesite.kube import json
from edgesite.net.real import RealClock, RealDisk, RealThreads

pytestmark = pytest.mark.anyio
MAPS = KindKey("", "v1", "configmaps")
NODES = KindKey("", "v1", "nodes")


def stored(name: str, revision: int, text: str = "", namespace: str = "default") -> Stored:
    obj = {"metadata": {"name": name, "namespace": namespace, "resourceVersion": str(revision)}, "data": {"x": text}}
    return Stored(namespace, name, revision, json.dumps(obj))


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[Replica, EdgeStore]]:
    threads = RealThreads()
    worker = threads.worker("test")
    database = EdgeDatabase(RealDisk(), path)
    await worker.submit(database.open)
    store = EdgeStore(database, worker)
    await store.load()
    made = Replica(store, RealClock(), logging.getLogger("test"))
    await made.load()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        yield made, store
        tasks.cancel_scope.cancel()
    await worker.submit(database.close)
    await worker.close()
    await threads.close()


async def test_the_newest_state_is_seen_at_once_and_kept(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as (it, _):
        it.put(MAPS, stored("a", 5, "new"))
        it.put(MAPS, stored("a", 4, "old"))
        it.put(MAPS, stored("b", 6))
        it.put(MAPS, stored("c", 6, namespace="other"))
        it.drop(MAPS, "default", "b", 7)
        it.drop(MAPS, "default", "a", 4)
        it.set_scope("s", 7)
        before = await it.list(MAPS, "default")
        await it.flush()
        assert list(await it.list(MAPS, "default")) == list(before)
        assert [one.name for one in await it.list(MAPS)] == ["a", "c"]
        it.put(MAPS, stored("a", 3, "older"))
        await it.flush()
    async with opened(tmp_path / "db") as (it, _):
        found = await it.get(MAPS, "default", "a")
        assert found is not None
        assert (found.revision, json.loads(found.value)["data"]) == (5, {"x": "new"})
        assert await it.get(MAPS, "default", "b") is None
        assert it.scope("s") == 7
        it.put(MAPS, stored("a", 1, "restored"), back=True)
        await it.flush()
        found = await it.get(MAPS, "default", "a")
        assert found is not None
        assert found.revision == 1


async def test_kinds_and_namespaces_that_begin_alike_are_apart(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as (it, _):
        for namespace in ("a", "a-b", "a.b", "a0"):
            it.put(MAPS, stored("x", 1, namespace=namespace))
        it.put(KindKey("", "v1", "configmaps2"), stored("x", 1, namespace="a"))
        it.put(NODES, stored("n", 1, namespace=""))
        for _ in range(2):
            assert [one.namespace for one in await it.list(MAPS, "a")] == ["a"]
            assert len(await it.list(MAPS)) == 4
            assert [one.name for one in await it.list(NODES)] == ["n"]
            await it.flush()


async def test_a_disk_that_refuses_loses_nothing_that_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "db") as (it, store):
        it.put(MAPS, stored("a", 5))
        it.set_scope("s", 5)
        with monkeypatch.context() as broken:

            async def refuse(statements: object) -> None:
                raise StoreError("full")

            broken.setattr(store, "write", refuse)
            with pytest.raises(StoreError):
                await it.flush()
        it.put(MAPS, stored("a", 6))
        assert len(await it.list(MAPS)) == 1
        await it.flush()
    async with opened(tmp_path / "db") as (it, _):
        found = await it.get(MAPS, "default", "a")
        assert found is not None
        assert (found.revision, it.scope("s")) == (6, 5)


async def test_what_was_used_longest_ago_goes_when_there_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "OBJECTS_MOST", 12)
    async with opened(tmp_path / "db") as (it, store):
        for namespace in ("old", "followed", "new"):
            for n in range(6):
                it.put(MAPS, stored(f"c{n}", n + 1, namespace=namespace))
            it.set_scope(json.dumps(["", "v1", "configmaps", namespace, "", ""]).decode(), 9)
        await it.flush()
        held = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c0", "namespace": "old", "uid": "u"}}
        await store.apply([Arrival("old/configmap/c0", held)])
        it.is_followed = lambda key: "followed" in key
        await it.make_room()
        assert [one.name for one in await it.list(MAPS, "old")] == ["c0"], "a pod of this node needs it"
        assert len(await it.list(MAPS, "followed")) == 6
        assert it.scope(json.dumps(["", "v1", "configmaps", "old", "", ""]).decode()) is None


async def test_documents_are_kept_by_what_was_asked(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as (it, _):
        await it.put_document("/apis", Document("{}", b"\x00\xff"))
        await it.put_document("/large", Document("{}", b"x" * (replicas.DOCUMENT_BYTES + 1)))
        assert await it.document("/apis") == Document("{}", b"\x00\xff")
        assert await it.document("/large") is None


async def test_what_is_read_again_is_in_memory_until_anything_is_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as (it, store):
        it.put(MAPS, stored("a", 5, "old"))
        await it.flush()
        assert it.at_once(MAPS, "default", "a") is None
        assert await it.get(MAPS, "default", "a") == it.at_once(MAPS, "default", "a")
        it.put(MAPS, stored("a", 6, "new"))
        assert it.at_once(MAPS, "default", "a") is None
        await it.flush()
        assert (await it.get(MAPS, "default", "a")).revision == 6  # type: ignore[union-attr]
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "data": {}}
        obj["metadata"] = {"name": "a", "namespace": "default", "resourceVersion": "9", "uid": "u"}
        await store.apply([Arrival("default/configmap/a", obj)])
        assert it.at_once(MAPS, "default", "a") is None
        assert (await it.get(MAPS, "default", "a")).revision == 9  # type: ignore[union-attr]
        it.drop(MAPS, "default", "a", 10)
        assert it.at_once(MAPS, "default", "a") is None
        assert await it.get(MAPS, "default", "a") is None


def test_memory_of_what_was_read_is_bounded() -> None:
    hot = Hot()
    for n in range(100):
        hot.put((MAPS, "default", str(n)), stored(str(n), n, "x" * 20_000), hot.changes)
    kept = [n for n in range(100) if hot.find((MAPS, "default", str(n))) is not None]
    assert kept == list(range(100 - len(kept), 100))
    assert 8 < len(kept) <= HOT_BYTES // 20_000
    before = hot.changes
    hot.drop((MAPS, "default", "99"))
    hot.put((MAPS, "default", "99"), stored("99", 99), before)
    assert hot.find((MAPS, "default", "99")) is None, "it was written while it was read"


def collected(it: Collected) -> list[Any]:
    return list(json.loads(b"[%b]" % b"".join(it.take())))


async def test_lists_to_be_sent_hold_what_is_written_and_what_is_not_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "PIECE_BYTES", 150)
    async with opened(tmp_path / "db") as (it, _):
        assert collected(await it.collect(MAPS, "", None)) == []
        for at, name in enumerate("bdfh"):
            it.put(MAPS, stored(name, at + 1, "é\n"))
        await it.flush()
        for name in "aceg":
            it.put(MAPS, stored(name, 10))
        it.put(MAPS, stored("d", 11, "newer"))
        it.drop(MAPS, "default", "f", 12)
        it.drop(MAPS, "default", "h", 13)
        it.put(MAPS, stored("z", 14))
        found = await it.collect(MAPS, "default", None)
        assert found.first == stored("a", 10).value
        assert len(found.pieces) > 2
        whole = collected(found)
        assert whole == [json.loads(one.value) for one in await it.list(MAPS, "default")]
        assert [one["metadata"]["name"] for one in whole] == [*"abcdegz"]
        some = collected(await it.collect(MAPS, "", lambda one: one.name in "bz"))
        assert [one["metadata"]["name"] for one in some] == ["b", "z"]
        await it.flush()
        assert collected(await it.collect(MAPS, "default", None)) == whole
