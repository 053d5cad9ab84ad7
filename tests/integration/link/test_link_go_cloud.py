"""Our edge on a cloud that says what KubeEdge v1.12.7's CloudHub says, modelled on recorded sessions (join, pods, reconnect)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from link_site import Edge, Site, SiteMaker, node_object

from edgesite.kube.errors import ApiError
from edgesite.net.http import HttpServer, Request
from edgesite.net.websocket import WebSocket, accept
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio


class GoCloud:
    """One connection at a time; ``heard`` are the frames of the edge, but for its keepalives and acknowledgements."""

    def __init__(self) -> None:
        self.socket: WebSocket | None = None
        self.requests: list[Request] = []
        self.keepalives: list[dict[str, Any]] = []
        self.acks: list[str] = []
        self.heard: list[dict[str, Any]] = []
        self._count = 0

    def handle(self, request: Request) -> None:
        self.requests.append(request)
        self.socket = accept(request)
        self.socket.on_message = lambda frame: self._take(json.loads(frame.data))

    def _take(self, message: dict[str, Any]) -> None:
        operation = message["route"]["operation"]
        if operation == "keepalive":
            self.keepalives.append(message)
        elif operation == "response":
            assert message["content"] == "OK"
            self.acks.append(message["header"]["parent_msg_id"])
        else:
            self.heard.append(message)

    def say(self, operation: str, resource: str, content: Any, *, parent: str = "", version: str = "") -> str:
        self._count += 1
        header: dict[str, Any] = {"msg_id": f"cloud-{self._count}", "timestamp": 1795151368495}
        if parent:
            header["parent_msg_id"] = parent
        if version:
            header["resourceversion"] = version
        route = {"source": "edgecontroller", "group": "resource", "operation": operation, "resource": resource}
        assert self.socket is not None
        text = json.dumps({"header": header, "route": route, "content": content}) + "\n"
        self.socket.send_nowait(text)
        return header["msg_id"]

    async def asked(self, operation: str, resource: str) -> dict[str, Any]:
        """Wait for a request and take it."""

        def find() -> dict[str, Any] | None:
            for one in self.heard:
                if (one["route"]["operation"], one["route"]["resource"]) == (operation, resource):
                    return one
            return None

        found: dict[str, Any] = await until(find)
        self.heard.remove(found)
        return found


@asynccontextmanager
async def linked(make_site: SiteMaker) -> AsyncIterator[tuple[Site, GoCloud, Edge]]:
    async with make_site() as site:
        cloud = GoCloud()
        async with HttpServer(cloud.handle) as server:
            await server.listen(site.world.net, "mem:cloudhub")
            async with site.edge() as edge:
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()
                yield site, cloud, edge


def pod(name: str, version: int, uid: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": "edge-1"}, "status": {}}


async def test_the_handshake_is_kubeedges(make_site: SiteMaker) -> None:
    async with linked(make_site) as (_, cloud, _edge):
        [request] = cloud.requests
        assert request.path == "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events"
        names = ("node_id", "project_id", "connectionuse")
        expected = ["edge-1", "e632aba927ea4ac2b575ec1603d56f10", "msg"]
        assert [request.headers[name] for name in names] == expected
        [first] = await until(lambda: cloud.keepalives)
        assert first["route"] == {
            "source": "websocket",
            "group": "resource",
            "operation": "keepalive",
            "resource": "node",
        }
        assert [one for one in cloud.heard if one["route"]["operation"] == "holdings"] == []


async def test_joining_as_recorded(make_site: SiteMaker) -> None:
    async with linked(make_site) as (_, cloud, edge):
        status = {"metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404}
        results: dict[str, Any] = {}

        async def join() -> None:
            with pytest.raises(ApiError) as missing:
                await edge.meta.query_remote("lease", "kube-node-lease", "edge-1")
            results["lease"] = missing.value.reason
            results["node"] = await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
            results["patched"] = await edge.meta.patch("node", "", "edge-1", {"status": {"phase": "x"}})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join)
            asked = await cloud.asked("query", "kube-node-lease/lease/edge-1")
            assert (asked["route"]["source"], asked["route"]["group"], asked["content"]) == ("edged", "meta", None)
            content = {"Object": None, "Err": {"ErrStatus": status}}
            cloud.say("response", asked["route"]["resource"], content, parent=asked["header"]["msg_id"])
            asked = await cloud.asked("insert", "default/node/edge-1")
            node = {"metadata": {"name": "edge-1", "uid": "810d8d64", "resourceVersion": "311"}}
            cloud.say(
                "response", "default/node/edge-1", {"Object": node, "Err": None}, parent=asked["header"]["msg_id"]
            )
            asked = await cloud.asked("patch", "default/nodepatch/edge-1")
            assert asked["content"] == '{"status":{"phase":"x"}}'
            patched = {**node, "status": {"phase": "x"}}
            answer = {"Object": patched, "Err": None}
            cloud.say("response", "default/nodepatch/edge-1", answer, parent=asked["header"]["msg_id"], version="313")
        assert results["lease"] == "NotFound"
        assert results["node"]["metadata"]["uid"] == "810d8d64"
        assert results["patched"]["status"] == {"phase": "x"}


async def test_pods_as_recorded(make_site: SiteMaker) -> None:
    async with linked(make_site) as (_, cloud, edge):
        insert = cloud.say("insert", "default/pod/web-0", pod("web-0", 400, "15c43159"), version="400")
        await until(lambda: insert in cloud.acks)
        assert len(edge.saw("insert", "default/pod/web-0")) == 1
        update = cloud.say("update", "default/pod/web-0", pod("web-0", 408, "15c43159"), version="408")
        again = cloud.say("update", "default/pod/web-0", pod("web-0", 400, "15c43159"), version="400")
        await until(lambda: {update, again} <= set(cloud.acks))
        assert len(edge.saw("update", "default/pod/web-0")) == 1, "older state is acknowledged and goes no further"
        await edge.meta.report_status("pod", "default", "web-0", {"metadata": {"uid": "15c43159"}, "status": {}})
        asked = await cloud.asked("patch", "default/podpatch/web-0")
        answer = {"Object": pod("web-0", 410, "15c43159"), "Err": None}
        cloud.say("response", "default/podpatch/web-0", answer, parent=asked["header"]["msg_id"], version="410")
        await edge.meta.confirm_deleted("default", "web-0", "15c43159")
        asked = await cloud.asked("delete", "default/pod/web-0")
        assert asked["content"] == {"gracePeriodSeconds": 0, "preconditions": {"uid": "15c43159"}}
        cloud.say("response", "default/pod/web-0", "OK", parent=asked["header"]["msg_id"])
        end = cloud.say("delete", "default/pod/web-0", pod("web-0", 412, "15c43159"), version="412")
        await until(lambda: end in cloud.acks)
        assert await edge.meta.get("pod", "default", "web-0") is None


async def test_reconnecting_as_recorded(make_site: SiteMaker) -> None:
    """After a cut KubeEdge sends updates of all sorts, and deletes with no more than name and uid."""
    async with linked(make_site) as (_, cloud, edge):
        for name in ("keep", "gone", "gone2"):
            cloud.say("insert", f"default/pod/{name}", pod(name, 400, f"uid-{name}"), version="400")
        await until(lambda: len(cloud.acks) == 3)
        assert cloud.socket is not None
        cloud.socket.abort()
        await until(lambda: len(cloud.requests) == 2 and edge.meta.connected)
        ending = pod("gone", 430, "uid-gone")
        ending["metadata"]["deletionTimestamp"] = "2026-11-20T05:09:32Z"
        cloud.say("update", "default/pod/gone", ending, version="430")
        short = {"metadata": {"name": "gone2", "namespace": "default", "uid": "uid-gone2"}}
        cloud.say("delete", "default/pod/gone2", short)
        cloud.say("update", "default/pod/fresh", pod("fresh", 426, "uid-fresh"), version="426")
        cloud.say("update", "default/pod/keep", pod("keep", 429, "uid-keep"), version="429")
        cloud.say("delete", "default/pod/never", {"metadata": {**short["metadata"], "uid": "x", "name": "never"}})
        await until(lambda: len(cloud.acks) == 8)
        names = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in await edge.meta.list("pod")}
        assert names == {"gone": "430", "keep": "429", "fresh": "426"}


async def test_a_request_under_way_when_the_link_breaks_fails_at_once(make_site: SiteMaker) -> None:
    async with linked(make_site) as (_, cloud, edge):
        failed: list[ApiError] = []

        async def ask() -> None:
            try:
                await edge.meta.query_remote("secret", "default", "s", timeout_s=DEADLINE_S)
            except ApiError as exc:
                failed.append(exc)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await cloud.asked("query", "default/secret/s")
            assert cloud.socket is not None
            cloud.socket.abort()
        assert [one.code for one in failed] == [503]
        await until(lambda: len(cloud.requests) == 2)
        assert [one for one in cloud.heard if one["route"]["operation"] == "query"] == [], "nor is it carried out later"


async def test_messages_for_nobody_here_do_no_harm(make_site: SiteMaker) -> None:
    async with linked(make_site) as (_, cloud, edge):
        assert cloud.socket is not None
        for text in ("no json", "{}", '{"header":{"msg_id":"x","timestamp":0},"route":{"group":"user","source":"y"}}'):
            cloud.socket.send_nowait(text)
        cloud.say("update", "default/pod/bad", "no object", version="1")
        cloud.socket.send_nowait(
            '{"header":{"msg_id":"deep","timestamp":0},"route":{"group":"resource","operation":"update",'
            '"resource":"default/pod/deep"},"content":{"a":' + "[" * 900 + "]" * 900 + "}}"
        )
        cloud.say("start", "default/pod/bad", {}, version="1")
        last = cloud.say("update", "default/pod/good", pod("good", 5, "uid"), version="5")
        await until(lambda: last in cloud.acks)
        assert [one["metadata"]["name"] for one in await edge.meta.list("pod")] == ["good"]


async def test_what_only_a_cloud_of_v1_23_sends(make_site: SiteMaker) -> None:
    """Nodes are pushed, and access rules of service accounts; both are stored and acknowledged like anything else."""
    async with linked(make_site) as (_, cloud, edge):
        node = {**node_object("edge-1"), "metadata": {"name": "edge-1", "uid": "uid-node", "resourceVersion": "7"}}
        pushed = cloud.say("update", "null/node/edge-1", node, version="7")
        access = {"metadata": {"name": "default", "namespace": "default", "uid": "uid-sa", "resourceVersion": "8"}}
        rules = cloud.say("insert", "default/serviceaccountaccess/default", access, version="8")
        strange = cloud.say(
            "update", "default/gadget/g", {"metadata": {"name": "g", "uid": "u", "resourceVersion": "9"}}
        )
        await until(lambda: {pushed, rules, strange} <= set(cloud.acks))
        unreadable = cloud.say("update", "default/pod/p", {"metadata": {"name": "another"}}, version="9")
        await until(lambda: unreadable in cloud.acks)  # or it would be repeated for ever, before all others
        assert await edge.meta.list("pod") == []
