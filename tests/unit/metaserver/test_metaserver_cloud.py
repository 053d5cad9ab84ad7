"""The cloud's side: each write once and in time, and one watch a kind that tells everybody what is theirs."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.client.client import WatchEvent
from edgesite.cloud.dynamiccontroller.feed import Feed
from edgesite.cloud.dynamiccontroller.requests import Requests
from edgesite.cloud.dynamiccontroller.watches import Watches
from edgesite.edge.metaserver.cloudlink import CloudLink, LinkLost, WatchStream
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import PODS
from edgesite.wire.metaserver import LEFT, SEEN_OR_NEW, WINDOW, ApiRequest, Events, WatchRef, WatchRequest

pytestmark = pytest.mark.anyio
LOG = logging.getLogger("test")


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await anyio.lowlevel.checkpoint()


class Api:
    """Counts what reaches it; answers when it is let."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.gate: anyio.Event | None = None

    transport = property(lambda self: self)

    def named(self, component: str) -> Api:
        return self

    async def request(self, method: str, target: str, headers: Any, body: bytes = b"") -> Any:
        self.seen.append((method, target, dict(headers)))
        self.bodies.append(body)
        if self.gate is not None:
            await self.gate.wait()
        return 200, {"content-type": "application/json", "server": "x"}, b'{"n":%d}' % len(self.seen)


def requests(api: Api, clock: Clock, *, require_token: bool = False, impersonate: bool = False) -> Requests:
    return Requests(
        api, api, clock, "e1", require_token=require_token, impersonate_nodes=impersonate, log=LOG,  # type: ignore[arg-type]
    )  # fmt: skip


def write(id_: str, until_ms: int = 110_000, epoch: str = "e1", **headers: str) -> ApiRequest:
    return ApiRequest(id_, "POST", "/api/v1/pods", headers, b"{}", (epoch, until_ms))


async def test_a_write_is_carried_out_once_however_often_it_is_asked_for() -> None:
    api, clock = Api(), Clock()
    it = requests(api, clock)
    api.gate = anyio.Event()
    answers: list[bytes] = []

    async def ask() -> None:
        answers.append((await it.answer("edge-1", write("1"))).body)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        api.gate.set()
    assert answers == [b'{"n":1}'] * 3
    assert (await it.answer("edge-1", write("1"))).body == b'{"n":1}', "also later, after a lost link"
    assert (await it.answer("edge-2", write("1"))).body == b'{"n":2}', "another node's is another one"


async def test_outcomes_are_bounded_in_bytes_and_none_is_carried_out_twice() -> None:
    class Large(Api):
        async def request(self, method: str, target: str, headers: Any, body: bytes = b"") -> Any:
            await super().request(method, target, headers, body)
            return 201, {"content-type": "application/json"}, bytes(60_000)

    api, clock = Large(), Clock()
    it = requests(api, clock)
    for n in range(300):
        assert len((await it.answer("edge-1", write(str(n)))).body) == 60_000
    kept = sum(len(one.answer.body) for one in it._writes.values() if one.answer is not None)
    assert 7 << 20 < kept < 9 << 20
    assert len((await it.answer("edge-1", write("299"))).body) == 60_000
    old = await it.answer("edge-1", write("0"))
    assert (old.status, json.loads(old.body)["status"], len(api.seen)) == (201, "Success", 300)
    clock.now += 121
    await it.answer("edge-1", write("new", until_ms=300_000))
    assert it._whole_bytes == sum(it._whole.values()) < 61_000


async def test_a_write_that_comes_too_late_is_not_begun() -> None:
    api, clock = Api(), Clock()
    it = requests(api, clock)
    assert (await it.answer("edge-1", write("1", until_ms=100_000))).status == 504
    assert (await it.answer("edge-1", write("2", epoch="another run"))).status == 504
    assert api.seen == []
    assert (await it.answer("edge-1", write("3"))).clock == ("e1", 100_000)


async def test_what_it_may_not_pass_on_is_left_out_or_refused() -> None:
    api = Api()
    it = requests(api, Clock())
    await it.answer("edge-1", write("1", **{"impersonate-user": "admin", "x-remote-user": "admin", "accept": "a/b"}))
    assert api.seen[0][2].keys() == {"accept", "content-type"}
    for method, target in (
        ("GET", "/api/v1/pods?watch=true"),
        ("GET", "/api/v1/pods?w%61tch=true"),
        ("GET", "/api/v1/watch/pods"),
        ("GET", "/api/v1/namespaces/a/pods/b/log?follow=true"),
        ("POST", "/api/v1/namespaces/a/pods/b/exec"),
        ("GET", "/api/v1/nodes/n/proxy/metrics"),
        ("BREW", "/api/v1/pods"),
    ):  # each would stream, connect, or is unknown
        assert (await it.answer("edge-1", ApiRequest("x", method, target, {}))).status in (400, 405)
    large = ApiRequest("x", "POST", "/api/v1/pods", {}, b"x" * (4 << 20))
    assert (await it.answer("edge-1", large)).status == 413
    assert len(api.seen) == 1
    node = requests(api, Clock(), impersonate=True)
    await node.answer("edge-1", ApiRequest("x", "GET", "/api/v1/pods", {}))
    assert api.seen[-1][2]["impersonate-user"] == "system:node:edge-1"
    await node.answer("edge-1", ApiRequest("x", "GET", "/api/v1/pods", {"authorization": "Bearer t"}))
    assert "impersonate-user" not in api.seen[-1][2]


async def test_whoever_would_be_asking_is_asked_about_before_a_watch() -> None:
    api = Api()
    review = {"resource": "pods", "version": "v1", "namespace": "a"}
    await requests(api, Clock()).may_watch("edge-1", "", review)
    assert api.seen == [], "the controller itself"
    for it, token in (
        (requests(api, Clock(), impersonate=True), ""),
        (requests(api, Clock(), require_token=True, impersonate=True), ""),
        (requests(api, Clock(), impersonate=True), "Bearer t"),
    ):
        with pytest.raises(ApiError) as refused:
            await it.may_watch("edge-1", token, review, "metadata.name=b,spec.nodeName=edge-1")
        assert refused.value.code == 403
    assert [one[2].get("impersonate-user") for one in api.seen] == ["system:node:edge-1", None, None]
    assert [one[2].get("authorization") for one in api.seen] == [None, None, "Bearer t"]
    attributes = json.loads(api.bodies[0])["spec"]["resourceAttributes"]
    selector = {"rawSelector": "metadata.name=b,spec.nodeName=edge-1"}
    assert attributes == {"verb": "watch", **review, "name": "b", "fieldSelector": selector}


# -- feeds


def pod(name: str, revision: int, label: str = "", namespace: str = "default") -> dict[str, Any]:
    labels = {"labels": {"app": label}} if label else {}
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(revision), **labels}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}


class WatchedApi:
    """An API with a history: watches give what came after their revision."""

    def __init__(self) -> None:
        self.history: list[WatchEvent] = []
        self.begun: list[int] = []
        self._more = anyio.Event()

    def named(self, component: str) -> WatchedApi:
        return self

    def add(self, type_: str, obj: dict[str, Any]) -> None:
        self.history.append(WatchEvent(type_, obj))
        self._more.set()
        self._more = anyio.Event()

    def watch(self, resource: Any, *, resource_version: str, timeout_s: int = 0) -> Any:
        self.begun.append(int(resource_version))
        api = self

        class Opened:
            async def __aenter__(self) -> AsyncIterator[WatchEvent]:
                return self.events()

            async def __aexit__(self, *_: object) -> None: ...

            async def events(self) -> AsyncIterator[WatchEvent]:
                at = 0
                while True:
                    while at < len(api.history):
                        event = api.history[at]
                        at += 1
                        if int(event.object["metadata"]["resourceVersion"]) > int(resource_version):
                            yield event
                    if timeout_s:
                        return
                    await api._more.wait()

        return Opened()


def wanted(since: int, namespace: str = "", labels: str = "", fields: str = "") -> WatchRequest:
    return WatchRequest(WatchRef("l", 1), "", "v1", "pods", namespace, labels, fields, since)


def rows(told: list[Events]) -> list[tuple[str, int]]:
    return [(type_, revision) for one in told for type_, revision, _ in one.events]


async def test_all_share_one_watch_and_each_is_told_what_is_its_own() -> None:
    api = WatchedApi()
    feed = Feed(api, PODS, 10, Clock(), random.Random(1), LOG)  # type: ignore[arg-type]
    told: dict[str, list[Events]] = {name: [] for name in ("all", "other", "labelled", "late", "early")}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        await feed.subscribe(wanted(10), told["all"].append)
        await feed.subscribe(wanted(10, namespace="other"), told["other"].append)
        await feed.subscribe(wanted(10, labels="app=web"), told["labelled"].append)
        api.add("MODIFIED", pod("old", 11, "web"))
        api.add("MODIFIED", pod("old", 12))
        api.add("ADDED", pod("new", 13, "web"))
        api.add("ADDED", pod("away", 14, namespace="other"))
        api.add("MODIFIED", pod("new", 15))
        api.add("DELETED", pod("new", 16))
        await anyio.wait_all_tasks_blocked()
        (await feed.subscribe(wanted(14), told["late"].append)).pump()
        api.history.insert(0, WatchEvent("ADDED", pod("before", 9)))
        (await feed.subscribe(wanted(8), told["early"].append)).pump()
        tasks.cancel_scope.cancel()
    assert rows(told["all"]) == [
        ("MODIFIED", 11),
        ("MODIFIED", 12),
        ("ADDED", 13),
        ("ADDED", 14),
        ("MODIFIED", 15),
        ("DELETED", 16),
    ]
    assert rows(told["other"]) == [("ADDED", 14)]
    assert rows(told["labelled"]) == [(SEEN_OR_NEW, 11), (LEFT, 12), ("ADDED", 13), (LEFT, 15)]
    assert rows(told["late"]) == [("MODIFIED", 15), ("DELETED", 16)]
    assert rows(told["early"])[0] == ("ADDED", 9)
    assert len(rows(told["early"])) == 7
    assert api.begun == [10, 8], "one watch, and one look back"


async def test_who_may_see_one_object_is_told_of_no_other() -> None:
    api = WatchedApi()
    feed = Feed(api, PODS, 10, Clock(), random.Random(1), LOG)  # type: ignore[arg-type]
    one: list[Events] = []
    mine: list[Events] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        await feed.subscribe(wanted(10, "default", fields="metadata.name=a"), one.append)
        await feed.subscribe(wanted(10, fields="spec.nodeName=edge-1"), mine.append)
        for revision, (type_, name, node) in enumerate(
            [
                ("MODIFIED", "a", "edge-1"),
                ("MODIFIED", "b", "edge-2"),
                ("DELETED", "c", "edge-2"),
                ("DELETED", "a", "edge-1"),
            ],
            11,
        ):  # of none of them the feed knows what it was before
            api.add(type_, {**pod(name, revision), "spec": {"nodeName": node}})
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert rows(one) == rows(mine) == [(SEEN_OR_NEW, 11), ("DELETED", 14)]


async def test_a_slow_node_is_waited_for_and_one_too_far_behind_told() -> None:
    api = WatchedApi()
    feed = Feed(api, PODS, 0, Clock(), random.Random(1), LOG)  # type: ignore[arg-type]
    told: list[Events] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        subscription = await feed.subscribe(wanted(0), told.append)
        for n in range(WINDOW + 50):
            api.add("ADDED", pod(f"p{n}", n + 1))
            await anyio.wait_all_tasks_blocked()
        assert len(told) == WINDOW, "no further than it goes along"
        subscription.credit(WINDOW)
        assert len(rows(told)) == WINDOW + 50
        assert [one.ref.number for one in told] == list(range(1, len(told) + 1))
        with pytest.raises(ApiError, match="unable to parse"):
            await feed.subscribe(wanted(0, labels="==="), told.append)
        tasks.cancel_scope.cancel()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "web", "db"]), st.booleans()), max_size=12))
def test_selections_agree_with_what_is_there(steps: list[tuple[str, str, bool]]) -> None:
    """Whoever follows a selection from its beginning holds just what it lets through."""

    async def play() -> None:
        api = WatchedApi()
        feed = Feed(api, PODS, 0, Clock(), random.Random(1), LOG)  # type: ignore[arg-type]
        there: dict[str, str] = {}
        held: set[str] = set()

        def tell(events: Events) -> None:
            for type_, _, text in events.events:
                name = json.loads(text)["metadata"]["name"]
                assert (type_ == "ADDED") == (name not in held), type_
                (held.discard if type_ in ("DELETED", LEFT) else held.add)(name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed.run)
            await feed.subscribe(wanted(0, labels="app=web"), tell)
            for revision, (name, label, ends) in enumerate(steps, 1):
                if ends and name in there:
                    api.add("DELETED", pod(name, revision, there.pop(name)))
                else:
                    api.add("MODIFIED" if name in there else "ADDED", pod(name, revision, label))
                    there[name] = label
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert held == {name for name, label in there.items() if label == "web"}

    anyio.run(play)


async def test_a_watch_of_a_former_link_takes_none_of_the_next_away() -> None:
    api = WatchedApi()
    told: list[Events] = []
    async with anyio.create_task_group() as tasks:
        watches = Watches(
            api, Clock(), random.Random(1), tasks, lambda node, events: told.append(events), LOG,  # type: ignore[arg-type]
        )  # fmt: skip
        watches.linked("edge-1", "old")
        watches.linked("edge-1", "l")
        await watches.begin("edge-1", wanted(10))
        with pytest.raises(ApiError, match="no more"):  # its review took longer than the link held
            await watches.begin("edge-1", replace(wanted(10), ref=WatchRef("old", 9)))
        api.add("ADDED", pod("a", 11))
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert rows(told) == [("ADDED", 11)]


async def test_streams_of_a_former_run_of_the_cloud_end() -> None:
    class Ctx:
        clock, random, services = Clock(), random.Random(1), None

    Ctx.clock.time = Ctx.clock.monotonic  # type: ignore[attr-defined]
    Ctx.services = type("Services", (), {"find": lambda self, interface: None})()  # type: ignore[assignment]
    link = CloudLink(Ctx())  # type: ignore[arg-type]
    stream = link._streams[1] = WatchStream(link, WatchRef("l", 1))
    link._learn("first", 5)
    link._learn("first", 6)
    assert link._streams
    link._learn("second", 1)
    with pytest.raises(LinkLost):
        await stream.next()
