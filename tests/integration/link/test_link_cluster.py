"""The cloud role on an API server that is not its own: by kubeconfig, several instances at once, nodes that move between them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from link_site import Site, SiteMaker, create_account, node_object, pod_object
from test_link_tls import certificate, dial, read_token

from edgesite.cli.main import main
from edgesite.client import Client
from edgesite.cloud import crds
from edgesite.cloud.cloudhub.authority import Authority, AuthorityKeeper
from edgesite.context import Section
from edgesite.kube.resources import OBJECT_SYNCS, PODS, SECRETS
from edgesite.net.pki import RealPki
from edgesite.net.websocket import WebSocket
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio


async def test_an_edge_of_ours_moves_between_two_instances(make_site: SiteMaker) -> None:
    async with (
        make_site(single_process=False) as site,
        site.cluster() as client,
        site.instance("one") as (one, _),
        site.instance("two") as (two, _),
    ):
        site.token = await read_token(client)
        await create_account(client)
        async with site.edge(servers=f"127.0.0.1:{one}") as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
            for name in ("stays", "goes"):
                await client.create(PODS, pod_object(name))
            await until(lambda: edge.saw("insert", "default/pod/goes") and edge.saw("insert", "default/pod/stays"))
        await client.delete(PODS, "goes", "default", grace_period_s=0)
        async with site.edge(servers=f"127.0.0.1:{two}") as edge:
            await until(lambda: edge.saw("delete", "default/pod/goes"))
            assert [pod["metadata"]["name"] for pod in await edge.meta.list("pod")] == ["stays"]
            assert not edge.saw("insert", "default/pod/stays") + edge.saw("update", "default/pod/stays")


class GoEdge:
    """Acknowledges whatever comes; ``seen`` are operations and resources."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.seen: list[str] = []

    async def run(self) -> None:
        import json

        ping = {"source": "websocket", "group": "resource", "operation": "keepalive", "resource": "node"}
        await self.socket.send(
            json.dumps({"header": {"msg_id": "k", "timestamp": 0}, "route": ping, "content": "ping"})
        )
        async for frame in self.socket:
            message: dict[str, Any] = json.loads(frame.data)
            self.seen.append(f"{message['route']['operation']} {message['route']['resource']}")
            header = {"msg_id": f"a{len(self.seen)}", "parent_msg_id": message["header"]["msg_id"], "timestamp": 0}
            route = {**message["route"], "operation": "response"}
            await self.socket.send(json.dumps({"header": header, "route": route, "content": "OK"}))


async def test_an_edge_of_kubeedge_moves_between_two_instances(make_site: SiteMaker) -> None:
    """It does not tell what it holds: the second instance learns from the records of the first."""
    async with (
        make_site(single_process=False) as site,
        site.cluster() as client,
        site.instance("two") as (two, _),
        site.instance("one") as (one, _),
    ):
        await create_account(client)
        pair = await certificate(site, client, "system:node:edge-1", "system:nodes")
        first = await _connected(site, pair, one)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.run)
            await client.create(PODS, pod_object("goes"))
            await until(lambda: "insert default/pod/goes" in first.seen)
            await _recorded(client)
            first.socket.abort()
            tasks.cancel_scope.cancel()
        await client.delete(PODS, "goes", "default", grace_period_s=0)
        second = await _connected(site, pair, two)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second.run)
            await until(lambda: "delete default/pod/goes" in second.seen)
            tasks.cancel_scope.cancel()


async def _connected(site: Site, pair: Any, port: int) -> GoEdge:
    site.hub_port = port
    return GoEdge(await dial(site, pair, {"node_id": "edge-1"}))


async def _recorded(client: Client) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not (await client.list(OBJECT_SYNCS, "default"))["items"]:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def test_instances_that_start_at_once_share_one_ca_and_a_certificate_for_all(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cluster() as client:
        found: dict[str, Authority] = {}

        async def start(address: str) -> None:
            config = Section({"advertiseAddress": [address], "dnsNames": []})
            clock, threads = site.world.clock, site.world.threads
            keeper = AuthorityKeeper(client, config, RealPki(clock), threads, clock, is_shared=True)
            found[address] = await keeper.load()

        addresses = [f"192.0.2.{number}" for number in range(1, 5)]
        async with anyio.create_task_group() as tasks:
            for one in addresses:
                tasks.start_soon(start, one)
        assert len({one.ca.certificate for one in found.values()}) == 1
        names = (await client.get(SECRETS, "cloudcoresecret", "kubeedge"))["metadata"]["annotations"]
        assert set(addresses) <= set(names["edgesite.kubeedge.io/names"].split(","))
        for one in addresses:  # after a restart the certificate of all serves each
            await start(one)
        assert len({one.server.certificate for one in found.values()}) == 1


def test_definitions_of_the_custom_resources() -> None:
    found = {one["metadata"]["name"]: one["spec"] for one in crds.definitions()}
    sync = found["objectsyncs.reliablesyncs.kubeedge.io"]
    assert (sync["scope"], sync["names"]["kind"]) == ("Namespaced", "ObjectSync")
    assert sync["versions"][0]["subresources"] == {"status": {}}
    assert found["clusterobjectsyncs.reliablesyncs.kubeedge.io"]["scope"] == "Cluster"


def test_options_that_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "config")
    for arguments, reason in (
        (["--install-crds"], "--install-crds goes with"),
        (["--kubeconfig", file, "--in-cluster"], "exclude each other"),
        (["--kubeconfig", file, "--api-address", "127.0.0.1:1"], "for an API of our own"),
    ):
        assert main(["cloud", *arguments]) == 2
        assert reason in capsys.readouterr().err


def test_an_installation_that_fails_says_why(tmp_path: Path) -> None:
    program, none = Path(sys.executable).parent / "edgesite", tmp_path / "none"
    command = [program, "cloud", "--data-dir", tmp_path, "--kubeconfig", none, "--install-crds"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 1
    assert "cannot be installed" in done.stderr
    url = ["--set", "modules.admission.url=http://192.0.2.1"]
    done = subprocess.run([*command, *url], capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert "modules.admission.url" in done.stderr
