"""Port 10003: what a cluster's API server sends to kubelets reaches nodes of KubeEdge through their tunnels, for who may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from go_tunnel import LOG, GoTunnel, go_tunnel
from link_site import Site, SiteMaker, create_account, free_ports, node_object, pod_object
from test_link_tls import certificate

from edgesite.client import Client
from edgesite.cloud.cloudstream.module import CloudStream
from edgesite.kube.resources import CONFIG_MAPS, NODES, PODS
from edgesite.net import tls
from edgesite.net.bytestream import ByteStream
from edgesite.net.client import HttpClient
from edgesite.net.pki import BOTH, KeyPair, RealPki
from edgesite.net.real import RealClock
from edgesite.testing.waiting import DEADLINE_S

pytestmark = pytest.mark.anyio

ADMIN = ("kube-apiserver-kubelet-client", "system:masters")


@dataclass
class Stand:
    """A cluster, an instance of the cloud role on it, and who calls it."""

    site: Site
    client: Client
    port: int
    callers: dict[str, KeyPair]
    tunnels: dict[str, GoTunnel] = field(default_factory=dict)

    async def ask(
        self, target: str, *, who: str = "admin", host: str = "127.0.0.1", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        async with self.caller(who, host) as client:
            answer = await client.request("GET", target, headers or {})
            return answer.status, answer.body

    @asynccontextmanager
    async def caller(self, who: str, host: str = "127.0.0.1") -> AsyncIterator[HttpClient]:
        pair = self.callers.get(who)
        identity = {"certificate": pair.certificate, "key": pair.key} if pair else {}
        context = tls.client_context(verify=False, **identity)
        at = f"127.0.0.1:{self.port}"
        async with HttpClient(self.site.world.net, at, tls=context, server_hostname=host) as client:
            with anyio.fail_after(DEADLINE_S):
                yield client


async def callers_of(folder: Path) -> tuple[dict[str, KeyPair], str]:
    """Clients of a cluster's CA, and of another's; the CA as a file."""
    async with RealPki(RealClock()).session() as pki:
        ca, other = await pki.make_ca("kubernetes"), await pki.make_ca("kubernetes")
        found = {
            "admin": await pki.issue(ca, ADMIN[0], organizations=[ADMIN[1]], usages=BOTH),
            "user": await pki.issue(ca, "jane", organizations=["dev"], usages=BOTH),
            "stranger": await pki.issue(other, *ADMIN[:1], organizations=[ADMIN[1]], usages=BOTH),
        }
    file = folder / "streamCA.crt"
    file.write_bytes(ca.certificate)
    return found, str(file)


def node_at(name: str, *addresses: str) -> dict[str, Any]:
    node = node_object(name)
    told = [{"type": "Hostname", "address": name}, *({"type": "InternalIP", "address": one} for one in addresses)]
    node["status"] |= {"addresses": told, "daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}}}
    return node


@asynccontextmanager
async def stand(make_site: SiteMaker, folder: Path, *nodes: tuple[str, str]) -> AsyncIterator[Stand]:
    callers, ca = await callers_of(folder)
    tunnel_port, stream_port = free_ports(2)
    streams = {"cloudStream": {"tunnelPort": tunnel_port, "streamPort": stream_port, "tlsStreamCAFile": ca}}
    streams["cloudHub"] = {"advertiseAddress": ["192.0.2.10"]}
    async with (
        make_site(single_process=False) as site,
        site.cluster() as client,
        site.instance("one", CloudStream, settings=streams),
        anyio.create_task_group() as tasks,
    ):
        made = Stand(site, client, stream_port, callers)
        await create_account(client)

        async def dial(node: str, ip: str, *, task_status: anyio.abc.TaskStatus[GoTunnel]) -> None:
            pair = await certificate(site, client, "kubeedge.io", "kubeEdge", node=node)
            async with go_tunnel(site, node, pair, tunnel_port, ip=ip) as tunnel:
                task_status.started(tunnel)
                await anyio.sleep_forever()

        for node, ip in nodes:
            await client.create(NODES, node_at(node, ip))
            await client.create(PODS, pod_object(f"web-{node}", node))
            with anyio.fail_after(DEADLINE_S):
                made.tunnels[node] = await tasks.start(dial, node, ip)
        with anyio.fail_after(DEADLINE_S):
            while True:
                try:
                    await made.ask("/healthz")
                    break
                except ConnectionRefusedError:
                    await anyio.sleep(0.02)
        yield made
        tasks.cancel_scope.cancel()


async def test_an_api_server_reaches_pods_and_nodes(make_site: SiteMaker, tmp_path: Path) -> None:
    nodes = (("go-1", "192.0.2.21"), ("go-2", "192.0.2.22"), ("go-3", "192.0.2.22"))
    async with stand(make_site, tmp_path, *nodes) as at:
        for node in ("go-1", "go-2"):
            assert await at.ask(f"/containerLogs/default/web-{node}/app?tailLines=2") == (200, LOG)
            assert at.tunnels[node].kubelet.requests == [
                f"GET /containerLogs/default/web-{node}/app?tailLines=2 HTTP/1.1"
            ]
        await at.client.create(PODS, pod_object("web", "go-1"))
        assert await at.ask("/containerLogs/default/web/gone") == (404, b"gone"), "the node's own words, which Go hides"
        assert (await at.ask("/containerLogs/default/none/app"))[0] == 404
        assert await at.ask("/stats/summary", host="192.0.2.21") == (200, b"go-1")
        assert await at.ask("/metrics", host="go-3") == (200, b"go-3")
        told = {"X-Forwarded-Uri": "/api/v1/nodes/go-2/proxy/metrics"}
        assert await at.ask("/metrics", headers=told) == (200, b"go-2")
        status, why = await at.ask("/stats/summary", host="192.0.2.22")
        assert (status, b"several nodes (go-2, go-3)" in why) == (500, True)
        assert (await at.ask("/stats/summary", host="192.0.2.99"))[0] == 404


async def test_upgrades_pass_raw_both_ways(make_site: SiteMaker, tmp_path: Path) -> None:
    async with stand(make_site, tmp_path, ("go-1", "192.0.2.21")) as at, at.caller("admin") as client:
        headers = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
        assert (await at.ask("/exec/default/web-go-1/app?command=ls"))[0] == 400, "an exec is an upgrade"
        for what in ("exec", "attach", "portForward"):
            target = f"/{what}/default/web-go-1" + ("" if what == "portForward" else "/app?command=cat&input=1")
            _, stream, _ = await client.connect_upgrade(target, headers, ByteStream, method="POST")
            assert await _until(stream, b"\n") == f"POST {target.partition('?')[0]}\n".encode()
            noise = bytes(range(256)) * 300
            await stream.send(noise + b"bye")
            assert await _until(stream, b"bye") == noise + b"bye"
            stream.abort()
        types = [kinds for kinds in at.tunnels["go-1"].frames.values() if 3 in kinds]
        assert all(kinds[0] == 1 for kinds in types), "opened as exec, which the oldest edge knows"


async def _until(connection: ByteStream, end: bytes) -> bytes:
    data = b""
    with anyio.fail_after(DEADLINE_S):
        while not data.endswith(end):
            data += await connection.receive()
    return data


async def test_a_follower_that_leaves_ends_its_stream_at_the_node(make_site: SiteMaker, tmp_path: Path) -> None:
    async with stand(make_site, tmp_path, ("go-1", "192.0.2.21")) as at:
        async with (
            at.caller("admin") as client,
            client.stream("GET", "/containerLogs/default/web-go-1/app?follow=true") as log,
        ):
            assert await log.read() == LOG
        frames = at.tunnels["go-1"].frames
        with anyio.fail_after(DEADLINE_S):
            while not any(kinds[-1] == 4 for kinds in frames.values()):  # noqa: ASYNC110 - the far end's affair
                await anyio.sleep(0.01)
        assert [kinds for kinds in frames.values() if 4 in kinds] == [[1, 4]], "told once; v1.23.1 repeats it in a loop"


async def test_who_may_not_is_refused(make_site: SiteMaker, tmp_path: Path) -> None:
    """KubeEdge verifies nobody here."""
    async with stand(make_site, tmp_path, ("go-1", "192.0.2.21")) as at:
        target = "/containerLogs/default/web-go-1/app"
        assert (await at.ask(target, who="nobody"))[0] == 401
        assert (await at.ask("/containerLogs/default/none/app", who="nobody"))[0] == 401
        for header in ("Bearer forged", "Basic eDp5"):
            assert (await at.ask(target, who="nobody", headers={"Authorization": header}))[0] == 401
        status, why = await at.ask(target, who="user")
        assert (status, b"nodes/proxy" in why) == (403, True)
        assert (await at.ask("/metrics", who="user", host="go-1"))[0] == 403
        with pytest.raises(OSError):  # noqa: PT011 - TLS 1.3 tells late, and in several ways
            await at.ask(target, who="stranger")
        assert at.tunnels["go-1"].kubelet.requests == []


async def test_nodes_tell_the_tunnel_port_of_their_instance(make_site: SiteMaker, tmp_path: Path) -> None:
    async with stand(make_site, tmp_path, ("go-1", "192.0.2.21")) as at:
        with anyio.fail_after(DEADLINE_S):
            while True:
                status = (await at.client.get(NODES, "go-1"))["status"]
                if status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 10351:
                    break
                await anyio.sleep(0.01)
        record = (await at.client.get(CONFIG_MAPS, "tunnelport", "kubeedge"))["metadata"]["annotations"]
        expected = '{"ipTunnelPort":{"192.0.2.10":10351},"port":{"10351":true}}'
        assert record == {"tunnelportrecord.kubeedge.io": expected}
