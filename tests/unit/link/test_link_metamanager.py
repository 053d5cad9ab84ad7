"""MetaManager's parts: text of rows, store, outbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.metamanager import outbox as outbox_rows
from edgesite.edge.metamanager.database import EdgeDatabase
from edgesite.edge.metamanager.outbox import Outbox
from edgesite.edge.metamanager.schema import go_json, meta_v2_key, plural_of, token_key
from edgesite.edge.metamanager.store import Arrival, EdgeStore, StoreError
from edgesite.kube import json
from edgesite.net.real import RealDisk, RealThreads
from edgesite.wire.delivery import ObjectRef
from edgesite.wire.message import Message
from edgesite.wire.newer import Verdict

pytestmark = pytest.mark.anyio
POD = "default/pod/web-0"


def pod(version: int, uid: str = "u1", **metadata: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": "web-0",
            "namespace": "default",
            "uid": uid,
            "resourceVersion": str(version),
            **metadata,
        },
    }


def end(uid: str) -> Arrival:
    return Arrival(POD, {"metadata": {"name": "web-0", "namespace": "default", "uid": uid}}, is_delete=True)


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[tuple[EdgeStore, EdgeDatabase]]:
    threads = RealThreads()
    worker = threads.worker("test")
    database = EdgeDatabase(RealDisk(), path)
    try:
        await worker.submit(database.open)
        store = EdgeStore(database, worker)
        await store.load()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.run)
            yield store, database
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await worker.submit(database.close)
            await threads.close()


def test_json_is_written_as_go_writes_it() -> None:
    value = {"b": "<a&b>", "a": [1, None, {"z": "ü", "y": "\u2028"}]}
    assert go_json(value) == '{"a":[1,null,{"y":"\\u2028","z":"ü"}],"b":"\\u003ca\\u0026b\\u003e"}'


@given(st.dictionaries(st.text(), st.text()))
def test_json_means_what_it_meant(value: dict[str, str]) -> None:
    assert json.loads(go_json(value)) == value


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("Pod", "pods"),
        ("Endpoints", "endpoints"),
        ("Ingress", "ingresses"),
        ("Gateway", "gatewaies"),
        ("ConfigMap", "configmaps"),
        ("PodStatus", "podstatus"),
        ("CustomResourceDefinition", "customresourcedefinitions"),
    ],
)
def test_plurals_are_guessed_as_kubeedge_does(kind: str, plural: str) -> None:
    assert plural_of(kind) == plural


def test_keys_of_meta_v2() -> None:
    place = meta_v2_key(pod(7))
    assert place is not None
    assert (place.key, place.resource, place.namespace, place.version) == (
        "/core/v1/pods/default/web-0",
        "/v1, Resource=pods",
        "default",
        7,
    )
    lease = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "e", "namespace": "n"}}
    place = meta_v2_key(lease)
    assert place is not None
    assert (place.key, place.resource) == (
        "/coordination.k8s.io/v1/leases/n/e",
        "coordination.k8s.io/v1, Resource=leases",
    )
    node = meta_v2_key({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "edge-1"}})
    assert node is not None
    assert (node.key, node.namespace) == ("/core/v1/nodes/null/edge-1", "")
    for bad in ({}, {"kind": "Pod"}, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": 5}}, {"metadata": {}}):
        assert meta_v2_key(bad) is None


def test_token_keys_are_kubeedges() -> None:
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "web-0", "uid": "u"}
    spec = {"audiences": ["https://a"], "expirationSeconds": 3607, "boundObjectRef": bound}
    end_of_key = 'v1.BoundObjectReference{Kind:"Pod", APIVersion:"v1", Name:"web-0", UID:"u"}'
    assert token_key("ns", "sa", {"spec": spec}) == f'"sa"/"ns"/[]string{{"https://a"}}/3607/{end_of_key}'
    assert token_key("ns", "sa", {"spec": {**spec, "audiences": None}}) == f'"sa"/"ns"/[]string(nil)/3607/{end_of_key}'


async def test_rows_are_those_of_kubeedge(tmp_path: Path) -> None:
    async with open_store(tmp_path / "edge.db") as (store, database):
        await store.apply([Arrival(POD, pod(5))])
        [row] = database.query("SELECT key, type, value FROM meta")
        text = go_json(pod(5))
        assert row == (POD, "pod", text)
        [row] = database.query("SELECT * FROM meta_v2")
        assert row == ("/core/v1/pods/default/web-0", "/v1, Resource=pods", "default", "web-0", 5, text + "\n")
        [outcome] = await store.apply([end("u1")])
        assert outcome.verdict is Verdict.REMOVE
        assert database.query("SELECT * FROM meta UNION ALL SELECT key, name, value FROM meta_v2") == []


async def test_old_state_never_overwrites_newer(tmp_path: Path) -> None:
    async with open_store(tmp_path / "edge.db") as (store, _):
        arrivals = [Arrival(POD, pod(version)) for version in (5, 3, 5, 7)]
        verdicts = [one.verdict for one in await store.apply(arrivals)]
        assert verdicts == [Verdict.STORE, Verdict.IGNORE, Verdict.IGNORE, Verdict.STORE]
        [replaced] = await store.apply([Arrival(POD, pod(9, "u2"))])
        assert (replaced.verdict, replaced.replaced_uid) == (Verdict.REPLACE, "u1")
        late = await store.apply([Arrival(POD, pod(8, "u1")), end("u1")])
        assert [one.verdict for one in late] == [Verdict.IGNORE, Verdict.IGNORE]
    async with open_store(tmp_path / "edge.db") as (store, _):
        assert await store.holdings() == [ObjectRef("u2", 9, "pod", "default", "web-0")]
        assert [one.verdict for one in await store.apply([Arrival(POD, pod(99, "u1"))])] == [Verdict.IGNORE]
        await store.apply([end("u2")])
        assert [one.verdict for one in await store.apply([Arrival(POD, pod(99, "u2"))])] == [Verdict.IGNORE]


async def test_a_delete_without_uid_means_what_is_held(tmp_path: Path) -> None:
    async with open_store(tmp_path / "edge.db") as (store, _):
        assert [one.verdict for one in await store.apply([Arrival(POD, {}, is_delete=True)])] == [Verdict.IGNORE]
        await store.apply([Arrival(POD, pod(1))])
        assert [one.verdict for one in await store.apply([Arrival(POD, {}, is_delete=True)])] == [Verdict.REMOVE]


async def test_tokens_end_with_their_pod(tmp_path: Path) -> None:
    async with open_store(tmp_path / "edge.db") as (store, _):
        await store.apply([Arrival(POD, pod(1, "u1"))])
        key = token_key("default", "sa", {"spec": {"boundObjectRef": {"uid": "u1"}}})
        await store.put_text(key, "serviceaccounttoken", '{"status":{"token":"t"}}')
        assert await store.get(key) == {"status": {"token": "t"}}
        await store.apply([end("u1")])
        assert await store.get(key) is None


async def test_a_disk_that_refuses_changes_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "edge.db") as (store, database):
        await store.apply([Arrival(POD, pod(1))])
        database.execute([("PRAGMA query_only = 1", ())])
        for arrival in (Arrival(POD, pod(2)), end("u1"), Arrival(POD, pod(3, "u2"))):
            with pytest.raises(StoreError):
                await store.apply([arrival])
        database.execute([("PRAGMA query_only = 0", ())])
        assert await store.holdings() == [ObjectRef("u1", 1, "pod", "default", "web-0")]
        assert [one.verdict for one in await store.apply([Arrival(POD, pod(2))])] == [Verdict.STORE]


async def test_many_writers_share_commits(tmp_path: Path) -> None:
    async with open_store(tmp_path / "edge.db") as (store, database):
        async with anyio.create_task_group() as tasks:
            for at in range(50):
                tasks.start_soon(store.put_text, f"k{at}", "x", "1")
        assert len(database.query("SELECT key FROM meta")) == 50


def test_a_damaged_file_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "edge.db"
    path.write_bytes(b"this is no database, and long enough to be taken for one " * 100)
    database = EdgeDatabase(RealDisk(), path)
    assert database.open() is False
    assert database.query("SELECT * FROM meta") == []
    database.close()
    assert (tmp_path / "edge.db.corrupt-1").exists()
    assert "damaged" in caplog.text
    assert database.open() is True
    database.close()
    with pytest.raises(apsw.ConnectionClosedError):
        database.query("SELECT 1")


# -- the outbox --------------------------------------------------------------------------------------------------


def report(name: str) -> Message:
    return Message(name, resource=name)


def test_the_newest_report_wins_and_one_object_keeps_its_order() -> None:
    outbox = Outbox()
    outbox.put("status/a", "a", report("a1"))
    outbox.put("status/b", "b", report("b1"))
    outbox.put("status/a", "a", report("a2"))
    outbox.put("delete/a", "a", report("a-end"))
    first, second = outbox.next(), outbox.next()
    assert first is not None
    assert second is not None
    assert [first.message.msg_id, second.message.msg_id] == ["b1", "a2"]
    assert outbox.next() is None, "the end of a waits for its status"
    outbox.put("status/a", "a", report("a3"))
    outbox.finished(second)
    left = [entry.message.msg_id for entry in iter(outbox.next, None)]
    assert left == ["a-end"], "of one object one at a time, oldest first"
    assert len(outbox) == 3


def test_a_report_that_was_replaced_under_way_stays() -> None:
    outbox = Outbox()
    outbox.put("status/a", "a", report("a1"))
    first = outbox.next()
    assert first is not None
    outbox.put("status/a", "a", report("a2"))
    outbox.finished(first)
    second = outbox.next()
    assert second is not None
    assert second.message.msg_id == "a2"
    outbox.released(second)
    assert outbox.next() is second


def test_events_are_bounded() -> None:
    outbox = Outbox(events=2)
    for at in range(4):
        outbox.put(f"event/{at}", f"event/{at}", report(str(at)), is_event=True)
    assert (len(outbox), outbox.dropped) == (2, 2)


async def test_saved_reports_come_back(tmp_path: Path) -> None:
    outbox = Outbox()
    async with open_store(tmp_path / "edge.db") as (store, _):
        for name in ("a", "b"):
            outbox.put(f"status/{name}", name, report(name))
        entries, statements = outbox.unsaved()
        for entry in entries:
            entry.saved = True
        await store.write(statements)
        first = outbox.next()
        assert first is not None
        await store.write(outbox.finished(first))
    again = Outbox()
    async with open_store(tmp_path / "edge.db") as (_, database):
        again.load([*database.query(outbox_rows.LOAD), (99, "bad", "bad", "no json")])  # type: ignore[list-item]
    assert [entry.message.msg_id for entry in iter(again.next, None)] == ["b"]
    assert again.put("status/b", "b", report("newer")), "what the disk holds must go"
