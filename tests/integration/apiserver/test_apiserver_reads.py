"""Lists, watches, selectors, paging and forms of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from apiserver_site import Site, site_at

pytestmark = pytest.mark.anyio
CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


async def config_map(site: Site, name: str, namespace: str = "default", **labels: str) -> Any:
    body = {"metadata": {"name": name, "labels": labels}}
    answer = await site.post(f"/api/v1/namespaces/{namespace}/configmaps", body)
    assert answer.status == 201, answer.body
    return answer.obj


async def pod(site: Site, name: str, node: str = "") -> Any:
    body = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}], "nodeName": node}}
    return (await site.post(PODS, body)).obj


def names(answer: Any) -> list[str]:
    return [one["metadata"]["name"] for one in answer.obj["items"]]


def revision(obj: Any) -> str:
    return str(obj["metadata"]["resourceVersion"])


async def test_lists(site: Site) -> None:
    await config_map(site, "b")
    await config_map(site, "a")
    await config_map(site, "c", "kube-system")
    answer = await site.get(CMS)
    assert (answer.obj["kind"], answer.obj["apiVersion"], names(answer)) == ("ConfigMapList", "v1", ["a", "b"])
    assert revision(answer.obj) == str(site.store.revision)
    assert names(await site.get("/api/v1/configmaps")) == ["a", "b", "c"]
    assert names(await site.get("/api/v1/namespaces/none/configmaps")) == []


async def test_label_selectors(site: Site) -> None:
    await config_map(site, "a", tier="x", app="1")
    await config_map(site, "b", tier="y")
    await config_map(site, "c")
    for selector, wanted in {
        "tier=x": ["a"],
        "tier!=x": ["b", "c"],
        "tier": ["a", "b"],
        "!tier": ["c"],
        "tier in (x,y),app": ["a"],
        "tier notin (x)": ["b", "c"],
        "": ["a", "b", "c"],
    }.items():
        answer = await site.call("GET", f"{CMS}?labelSelector={selector.replace(' ', '%20').replace('=', '%3D')}")
        assert names(answer) == wanted, selector
    assert (await site.get(f"{CMS}?labelSelector=a%3D%3D%3Db")).status == 400


async def test_field_selectors(site: Site) -> None:
    await pod(site, "a", "n1")
    await pod(site, "b", "n2")
    assert names(await site.get(f"{PODS}?fieldSelector=spec.nodeName%3Dn1")) == ["a"]
    assert names(await site.get(f"{PODS}?fieldSelector=spec.nodeName!%3Dn1")) == ["b"]
    assert names(await site.get(f"{PODS}?fieldSelector=metadata.name%3Db,status.phase%3DPending")) == ["b"]
    assert names(await site.get(f"{PODS}?fieldSelector=metadata.name%3Db,status.phase%3DRunning")) == []
    assert names(await site.get("/api/v1/pods?fieldSelector=metadata.namespace%3Ddefault")) == ["a", "b"]
    await site.patch(f"{PODS}/a/status", {"status": {"phase": "Running"}})
    assert names(await site.get("/api/v1/pods?fieldSelector=status.phase%3DRunning")) == ["a"]
    refused = await site.get(f"{PODS}?fieldSelector=spec.foo%3D1")
    assert refused.status == 400
    assert refused.obj["message"].endswith("field label not supported: spec.foo")


async def test_pages_are_of_one_revision(site: Site) -> None:
    for name in "abcde":
        await config_map(site, name)
    first = await site.get(f"{CMS}?limit=2")
    assert names(first) == ["a", "b"]
    assert first.obj["metadata"]["remainingItemCount"] == 3
    await config_map(site, "bb")
    await site.delete(f"{CMS}/d")
    token = first.obj["metadata"]["continue"]
    second = await site.get(f"{CMS}?limit=2&continue={token}")
    assert names(second) == ["c", "d"]
    assert revision(second.obj) == revision(first.obj)
    last = await site.get(f"{CMS}?limit=2&continue={second.obj['metadata']['continue']}")
    assert names(last) == ["e"]
    assert "continue" not in last.obj["metadata"]
    assert names(await site.get(CMS)) == ["a", "b", "bb", "c", "e"]


async def test_pages_with_a_selector(site: Site) -> None:
    for number in range(10):
        await config_map(site, f"c{number}", odd=str(number % 2))
    found, token = [], ""
    while True:
        page = await site.get(f"{CMS}?limit=2&labelSelector=odd%3D1&continue={token}")
        found += names(page)
        token = page.obj["metadata"].get("continue")
        if not token:
            break
    assert found == ["c1", "c3", "c5", "c7", "c9"]


async def test_revisions_of_lists(site: Site) -> None:
    first = await config_map(site, "a")
    await config_map(site, "b")
    exact = await site.get(f"{CMS}?resourceVersion={revision(first)}&resourceVersionMatch=Exact")
    assert names(exact) == ["a"]
    assert revision(exact.obj) == revision(first)
    assert names(await site.get(f"{CMS}?resourceVersion={revision(first)}")) == ["a", "b"]
    assert names(await site.get(f"{CMS}?resourceVersion=0")) == ["a", "b"]
    ahead = await site.get(f"{CMS}?resourceVersion=99999")
    assert (ahead.status, ahead.obj["reason"]) == (504, "Timeout")
    assert ahead.obj["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert (await site.get(f"{CMS}?resourceVersion=x")).status == 422
    assert (await site.get(f"{CMS}?resourceVersionMatch=Exact")).status == 422
    await site.store.compact(site.store.revision)
    gone = await site.get(f"{CMS}?resourceVersion={revision(first)}&resourceVersionMatch=Exact")
    assert (gone.status, gone.obj["reason"]) == (410, "Expired")


async def test_old_continue_token_offers_a_way_on(site: Site) -> None:
    for name in "abc":
        await config_map(site, name)
    token = (await site.get(f"{CMS}?limit=1")).obj["metadata"]["continue"]
    await config_map(site, "d")
    await site.store.compact(site.store.revision)
    gone = await site.get(f"{CMS}?limit=1&continue={token}")
    assert (gone.status, gone.obj["reason"]) == (410, "Expired")
    onward = gone.obj["metadata"]["continue"]
    assert names(await site.get(f"{CMS}?limit=5&continue={onward}")) == ["b", "c", "d"]
    assert (await site.get(f"{CMS}?continue=nonsense")).status == 400


async def test_tables(site: Site) -> None:
    await config_map(site, "a")
    table = (await site.get(CMS, accept=TABLE)).obj
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert table["columnDefinitions"][0]["name"] == "Name"
    assert table["rows"][0]["cells"][0] == "a"
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = (await site.get(f"{CMS}/a?includeObject=Object", accept=TABLE)).obj
    assert whole["rows"][0]["object"]["kind"] == "ConfigMap"
    bare = (await site.get(f"{CMS}?includeObject=None", accept=TABLE)).obj
    assert "object" not in bare["rows"][0] or bare["rows"][0]["object"] is None
    old = (await site.get(CMS, accept=TABLE.replace("v=v1", "v=v1beta1"))).obj
    assert old["apiVersion"] == "meta.k8s.io/v1beta1"
    assert (await site.get(f"{CMS}?includeObject=x", accept=TABLE)).status == 400


async def test_metadata_only(site: Site) -> None:
    made = await config_map(site, "a")
    one = (await site.get(f"{CMS}/a", accept=PARTIAL)).obj
    assert one == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": made["metadata"]}
    many = (await site.get(CMS, accept=PARTIAL_LIST)).obj
    assert many["kind"] == "PartialObjectMetadataList"
    assert many["items"] == [one]


async def test_watch_from_a_revision(site: Site) -> None:
    first = await config_map(site, "a")
    async with site.watch(f"{CMS}?watch=true&resourceVersion={revision(first)}") as following:
        await site.patch(f"{CMS}/a", {"data": {"k": "v"}})
        await config_map(site, "elsewhere", "kube-system")
        await site.delete(f"{CMS}/a")
        kind, changed = await following()
        assert (kind, changed["data"]) == ("MODIFIED", {"k": "v"})
        kind, last = await following()
        assert (kind, last["data"]) == ("DELETED", {"k": "v"})
        assert int(revision(last)) > int(revision(changed))


async def test_watch_replays_history(site: Site) -> None:
    first = await config_map(site, "a")
    await site.patch(f"{CMS}/a", {"data": {"k": "v"}})
    await site.delete(f"{CMS}/a")
    async with site.watch(f"{CMS}?watch=true&resourceVersion={revision(first)}") as following:
        assert (await following())[0] == "MODIFIED"
        assert (await following())[0] == "DELETED"


async def test_watch_without_a_revision_begins_with_what_is_there(site: Site) -> None:
    await config_map(site, "a")
    for query in ("", "&resourceVersion=0"):
        async with site.watch(f"{CMS}?watch=1{query}") as following:
            kind, obj = await following()
            assert (kind, obj["metadata"]["name"]) == ("ADDED", "a")


async def test_streaming_list(site: Site) -> None:
    await config_map(site, "a")
    query = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
    async with site.watch(f"{CMS}?{query}") as following:
        assert (await following())[0] == "ADDED"
        kind, mark = await following()
        assert kind == "BOOKMARK"
        assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert revision(mark) == str(site.store.revision)
        await config_map(site, "b")
        assert (await following())[1]["metadata"]["name"] == "b"
    assert (await site.get(f"{CMS}?watch=true&sendInitialEvents=true")).status == 422
    assert (await site.get(f"{CMS}?sendInitialEvents=true")).status == 422


async def test_objects_enter_and_leave_a_selection(site: Site) -> None:
    await config_map(site, "a", tier="x")
    target = f"{CMS}?watch=true&labelSelector=tier%3Dx&resourceVersion={site.store.revision}"
    async with site.watch(target) as following:
        await site.patch(f"{CMS}/a", {"metadata": {"labels": {"tier": "y"}}})
        await site.patch(f"{CMS}/a", {"data": {"k": "v"}})
        back = (await site.patch(f"{CMS}/a", {"metadata": {"labels": {"tier": "x"}}})).obj
        kind, left = await following()
        assert (kind, left["metadata"]["labels"]) == ("DELETED", {"tier": "x"})
        kind, entered = await following()
        assert (kind, entered) == ("ADDED", back)


async def test_watch_of_one_node_s_pods(site: Site) -> None:
    async with site.watch("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn1") as following:
        await pod(site, "a")
        await pod(site, "b", "n1")
        await site.post(f"{PODS}/a/binding", {"target": {"name": "n1"}})
        assert (await following())[1]["metadata"]["name"] == "b"
        kind, bound = await following()
        assert (kind, bound["metadata"]["name"]) == ("ADDED", "a")


async def test_watch_of_a_name(site: Site) -> None:
    for target in (
        f"{CMS}?watch=true&fieldSelector=metadata.name%3Da",
        "/api/v1/watch/namespaces/default/configmaps/a",
    ):
        async with site.watch(f"{target}") as following:
            await config_map(site, "ab")
            await config_map(site, "a")
            assert (await following())[1]["metadata"]["name"] == "a"
        await site.delete(CMS)


async def test_expired_watch_is_told_in_the_stream(site: Site) -> None:
    first = await config_map(site, "a")
    await config_map(site, "b")
    await site.store.compact(site.store.revision)
    async with site.watch(f"{CMS}?watch=true&resourceVersion={revision(first)}") as following:
        kind, status = await following()
        assert kind == "ERROR"
        assert (status["code"], status["reason"]) == (410, "Expired")
        assert status["message"].startswith("too old resource version: ")
        assert await following() is None


async def test_watch_as_table_and_as_metadata(site: Site) -> None:
    await config_map(site, "a")
    async with site.watch(f"{CMS}?watch=true", accept=TABLE) as following:
        kind, table = await following()
        assert (kind, table["kind"], table["rows"][0]["cells"][0]) == ("ADDED", "Table", "a")
    async with site.watch(f"{CMS}?watch=true", accept=PARTIAL) as following:
        assert (await following())[1]["kind"] == "PartialObjectMetadata"


async def test_watches_of_the_same_share_one_encoding(site: Site) -> None:
    async with anyio.create_task_group() as tasks:
        seen: list[Any] = []
        begun = anyio.Event()

        async def watch() -> None:
            async with site.watch(f"{CMS}?watch=true&resourceVersion={site.store.revision}") as following:
                if len(site.made.watches) == 20:
                    begun.set()
                seen.append(await following())

        for _ in range(20):
            tasks.start_soon(watch)
        await begun.wait()
        assert len(site.made.watches._channels) == 1
        made = await config_map(site, "a")
    assert seen == [("ADDED", made)] * 20
    assert len(site.made.watches) == 0
    assert not site.made.watches._channels


async def test_watch_ends_when_its_time_is_up(site: Site) -> None:
    async with site.watch(f"{CMS}?watch=true&timeoutSeconds=1") as following:
        assert await following() is None


async def test_bookmarks_tell_of_progress(site: Site) -> None:
    marked = site.watch(f"{CMS}?watch=true&allowWatchBookmarks=true&resourceVersion=1")
    async with marked as following, site.watch(f"{CMS}?watch=true") as silent:
        made = await config_map(site, "elsewhere", "kube-system")
        site.clock.ahead_s = 120
        site.made.watches._changed.set()
        kind, mark = await following()
        assert (kind, revision(mark)) == ("BOOKMARK", revision(made))
        await config_map(site, "a")
        assert (await silent())[0] == "ADDED"


async def test_watch_goes_on_over_a_restart(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        first = await config_map(site, "a")
        await site.patch(f"{CMS}/a", {"data": {"k": "v"}})
    target = f"{CMS}?watch=true&resourceVersion={revision(first)}"
    async with site_at(tmp_path) as site, site.watch(target) as following:
        kind, obj = await following()
        assert (kind, obj["data"]) == ("MODIFIED", {"k": "v"})


async def test_events_of_both_groups_are_one(site: Site) -> None:
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    body = {
        "metadata": {"name": "e"},
        "regarding": about,
        "reason": "Started",
        "note": "begun",
        "type": "Normal",
        "action": "Start",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/c",
        "reportingInstance": "i",
    }
    new = "/apis/events.k8s.io/v1/namespaces/default/events"
    made = await site.post(new, body)
    assert made.status == 201, made.body
    assert made.obj["note"] == "begun"
    old = (await site.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp")).obj["items"]
    assert [(one["message"], one["involvedObject"]["name"]) for one in old] == [("begun", "p")]
    again = (await site.get(f"{new}?fieldSelector=regarding.name%3Dp")).obj
    assert again["kind"] == "EventList"
    assert again["items"] == [made.obj]
    async with site.watch(f"{new}?watch=true") as following:
        assert (await following())[1]["note"] == "begun"
