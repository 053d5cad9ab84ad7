"""Peers that misbehave, vanish, flood or do not read; modules that crash."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from link_site import Site, SiteMaker, create_account, node_object, pod_object

from edgesite.cloud.cloudhub.records import ConnectedNodes
from edgesite.kube.resources import NODES, PODS
from edgesite.net import websocket
from edgesite.net.client import UpgradeRefused
from edgesite.testing.waiting import DEADLINE_S, until
from edgesite.wire.message import Message

pytestmark = pytest.mark.anyio
PING = {"source": "websocket", "group": "resource", "operation": "keepalive", "resource": "node"}


class Peer:
    """A hand-driven edge as KubeEdge's: it greets with "ping"."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self.socket = socket
        self.count = 0

    async def say(self, route: dict[str, str], content: Any = None, parent: str = "") -> str:
        self.count += 1
        header = {"msg_id": f"m{self.count}", "parent_msg_id": parent, "timestamp": 0}
        await self.socket.send(json.dumps({"header": header, "route": route, "content": content}))
        return f"m{self.count}"

    async def ask(self, operation: str, resource: str, content: Any = None) -> str:
        route = {"source": "edged", "group": "meta", "operation": operation, "resource": resource}
        return await self.say(route, content)

    async def hear(self) -> Message:
        with anyio.fail_after(DEADLINE_S):
            return Message.from_json((await self.socket.recv()).data)

    async def acknowledge(self, message: Message) -> None:
        route = {
            "source": message.source,
            "group": message.group,
            "operation": "response",
            "resource": message.resource,
        }
        await self.say(route, "OK", parent=message.msg_id)


@asynccontextmanager
async def peer(site: Site, node: str = "edge-1") -> AsyncIterator[Peer]:
    with anyio.fail_after(DEADLINE_S):
        socket = await websocket.connect(site.world.net, "mem:cloudhub", "/p/n/events", {"node_id": node})
    try:
        one = Peer(socket)
        await one.say(PING, "ping")
        yield one
    finally:
        socket.abort()


def connected(site: Site) -> list[str]:
    assert site.cloud_host is not None
    return site.cloud_host.services.get(ConnectedNodes).nodes()  # type: ignore[type-abstract]


async def test_what_is_no_message_is_left_out_and_the_session_goes_on(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(), peer(site) as edge:
        for bad in ("", "{", "[]", '{"header":{"msg_id":5}}', "\x00", '{"route":{"operation":"holdings"}}'):
            await edge.socket.send(bad)
        await edge.socket.send(b"\xff\xfe")
        for route in ({"operation": "config"}, {"group": "no", "operation": "what", "resource": "a/b/c/d/e"}, {}):
            await edge.say(route)
        assert (await edge.hear()).content == "ack", "of the transport, and answered by it"
        asked = await edge.ask("query", "kube-node-lease/lease/edge-1")
        assert (await edge.hear()).parent_msg_id == asked


async def test_bad_requests_are_answered_not_raised(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(), peer(site) as edge:
        await edge.ask("insert", "default/node/edge-1", {"metadata": {}})
        assert (await edge.hear()).content["Err"] is None
        for content in ("no json", None, 5, "[1]", {"status": 7}):
            asked = await edge.ask("patch", "default/nodepatch/edge-1", content)
            answer = await edge.hear()
            assert answer.parent_msg_id == asked
            assert answer.content["Err"]["ErrStatus"]["code"] in (400, 422)
        for content in (None, "x", [], {"metadata": {"name": "other"}}):
            asked = await edge.ask("update", "kube-node-lease/lease/edge-1", content)
            assert (await edge.hear()).content["Err"]["ErrStatus"]["code"] == 400


async def test_a_second_connection_of_a_node_takes_over(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, peer(site) as first:
        await until(lambda: connected(site) == ["edge-1"])
        async with peer(site) as second:
            with pytest.raises(websocket.SocketClosed):
                await first.hear()
            await until(lambda: connected(site) == ["edge-1"])
            await create_account(client)
            await client.create(PODS, pod_object("web-0"))
            assert (await second.hear()).resource == "default/pod/web-0"


async def test_the_end_of_a_node_ends_its_session(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        await client.create(NODES, node_object("edge-1"))
        async with peer(site) as edge:
            await until(lambda: connected(site) == ["edge-1"])
            await client.delete(NODES, "edge-1")
            with pytest.raises(websocket.SocketClosed):
                await edge.hear()
        assert connected(site) == []


async def test_too_many_nodes_are_refused(make_site: SiteMaker) -> None:
    async with make_site() as site:
        site.values["cloud"]["modules"]["cloudHub"]["nodeLimit"] = 1
        async with site.cloud(), peer(site, "edge-1"), peer(site, "edge-1"):
            with pytest.raises(UpgradeRefused) as refused:
                async with peer(site, "edge-2"):
                    pass
            assert refused.value.answer.status == 503


async def test_a_flood_is_answered_in_full_and_does_not_starve_others(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud(), peer(site, "edge-1") as flood, peer(site, "edge-2") as quiet:

        async def pour() -> None:
            for _ in range(2000):
                await flood.ask("query", "kube-node-lease/lease/edge-1")

        answers = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pour)
            asked = await quiet.ask("query", "kube-node-lease/lease/edge-2")
            assert (await quiet.hear()).parent_msg_id == asked
            while answers < 2000:
                await flood.hear()
                answers += 1


async def test_a_peer_that_does_not_read_costs_little_and_gets_the_newest_state(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, peer(site) as edge:
        await create_account(client)
        await until(lambda: connected(site) == ["edge-1"])
        edge.socket.pause()
        await client.create(PODS, pod_object("web-0"))
        for at in range(20):
            note = {"metadata": {"annotations": {"at": str(at), "ballast": "x" * 100_000}}}
            newest = await client.patch(PODS, "web-0", note, "default")
        edge.socket.resume()
        heard = []
        while not heard or heard[-1] != newest["metadata"]["resourceVersion"]:
            message = await edge.hear()
            heard.append(message.resource_version)
            await edge.acknowledge(message)
        assert len(heard) <= 4, "what lay between is not sent"


async def test_a_hub_that_crashes_comes_back_and_edges_with_it(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, site.edge() as edge:
        with anyio.fail_after(DEADLINE_S):
            await edge.meta.wait_connected()
        await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
        await create_account(client)
        assert site.cloud_host is not None
        [hub] = [one for one in site.cloud_host.running if one.module.name == "cloudhub"]
        site.cloud_host.bus._by_module["cloudhub"].close()  # what the module reads from ends: it crashes
        await until(lambda: hub.crashes == 1)
        await client.create(PODS, pod_object("web-0"))
        await until(lambda: edge.saw("update", "default/pod/web-0") or edge.saw("insert", "default/pod/web-0"))
