"""The link over QUIC on loopback: joining, who is refused and why, loss of either end, other addresses, fallback to WebSocket."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from link_site import Site, SiteMaker, config_map, create_account, node_object, pod_object
from test_link_tls import certificate, pki_files, read_token

from edgesite.client import Client
from edgesite.cloud.cloudhub.records import ConnectedNodes
from edgesite.kube.resources import CONFIG_MAPS, NODES, PODS
from edgesite.net import websocket
from edgesite.net.quic import client as quic_client
from edgesite.net.quic import core
from edgesite.net.quic.core import Credentials
from edgesite.net.quic.framing import Hello
from edgesite.net.quic.socket import QuicClosed
from edgesite.net.real import RealNet
from edgesite.net.tls import client_context
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@asynccontextmanager
async def quic_site(make_site: SiteMaker, *, websocket: bool = False) -> AsyncIterator[Site]:
    """A site whose edges use QUIC, or both."""
    async with make_site(single_process=False) as site:
        port = free_udp_port()
        hub, edge_hub = (
            site.values[role]["modules"][name] for role, name in (("cloud", "cloudHub"), ("edge", "edgeHub"))
        )
        hub["quic"] |= {"enable": True, "address": "127.0.0.1", "port": port}
        edge_hub["quic"] |= {"enable": True, "server": f"127.0.0.1:{port}"}
        edge_hub["websocket"] |= {"enable": websocket}
        yield site


def quic_address(site: Site) -> str:
    return str(site.values["edge"]["modules"]["edgeHub"]["quic"]["server"])


async def dial(site: Site, credentials: Credentials, node: str, **hello: Any) -> quic_client.ClientSocket:
    with anyio.fail_after(DEADLINE_S):
        return await quic_client.connect(
            RealNet(), quic_address(site), Hello(node, **hello), credentials, max_message_bytes=1 << 20
        )


async def credentials_of(site: Site, client: Client, node: str) -> Credentials:
    pair = await certificate(site, client, f"system:node:{node}", "system:nodes", node=node)
    return Credentials(pair.certificate, pair.key, await ca_of(site))


async def ca_of(site: Site) -> bytes:
    async with site.edge("reader") as edge:
        with anyio.fail_after(DEADLINE_S):
            await edge.meta.wait_connected()
    return pki_files(site, "reader")[0].read_bytes()


async def test_an_edge_joins_and_runs_a_pod_and_both_ends_may_restart(make_site: SiteMaker) -> None:
    async with quic_site(make_site) as site:
        async with site.cloud() as client:
            site.token = await read_token(client)
            async with site.edge() as edge:
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()
                await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
                await create_account(client)
                await client.create(PODS, pod_object("web-0"))
                await until(lambda: edge.saw("insert", "default/pod/web-0"))
            assert site.cloud_host is not None
            connected = site.cloud_host.services.get(ConnectedNodes)  # type: ignore[type-abstract]
            await until(lambda: connected.nodes() == [])  # the goodbye has told
        async with site.edge() as edge:
            assert [one["metadata"]["name"] for one in await edge.meta.list("pod")] == ["web-0"]
            async with site.cloud() as client:
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()
                big = "x" * 500_000  # through many packets, both windows and the bulk lane
                await client.create(CONFIG_MAPS, config_map("big", text=big))
                await client.create(PODS, pod_object("web-1", volumes=[{"name": "v", "configMap": {"name": "big"}}]))
                await until(lambda: edge.saw("insert", "default/pod/web-1"))
                [message] = edge.saw("update", "default/configmap/big")
                assert message.object()["data"]["text"] == big


async def test_who_is_refused_and_told_why(make_site: SiteMaker) -> None:
    async with quic_site(make_site) as site, site.cloud() as client:
        site.token = await read_token(client)
        own = await credentials_of(site, client, "edge-7")
        with pytest.raises(quic_client.Refused, match="another node's") as refused:
            await dial(site, own, "edge-8")
        assert refused.value.answer.status == 403
        with pytest.raises(quic_client.Refused, match="version 1 of the link is spoken here"):
            await dial(site, own, "edge-7", version=2)
        with pytest.raises(quic_client.Refused, match="must name a node"):
            await dial(site, own, "Edge 7")
        stranger = await site_of_another_ca()
        with pytest.raises(QuicClosed, match="certificate"):
            await dial(site, replace(stranger, ca=own.ca), "edge-7")
        with pytest.raises(QuicClosed, match="certificate"):  # the client's turn to refuse
            await dial(site, replace(own, ca=stranger.ca), "edge-7")
        link = await dial(site, own, "edge-7")
        assert link.closed is None
        link.abort()


async def test_a_renewed_certificate_is_shown_to_who_comes_next(make_site: SiteMaker) -> None:
    async with quic_site(make_site) as site, site.cloud() as client:
        site.token = await read_token(client)
        own = await credentials_of(site, client, "edge-7")
        first = await dial(site, own, "edge-7")
        before = first.connection.peer_certificate
        assert b"hub.example" not in before
        assert site.cloud_host is not None
        values = copy.deepcopy(site.cloud_host.settings.plain())
        values["modules"]["cloudHub"]["dnsNames"] = ["hub.example"]
        site.cloud_host.reload(values)
        node = await credentials_of(site, client, "edge-8")
        with anyio.fail_after(DEADLINE_S):
            while True:
                second = await dial(site, node, "edge-8")
                if b"hub.example" in second.connection.peer_certificate:
                    break
                await second.close()
        assert first.closed is None, "who is connected stays so"
        assert first.connection.peer_certificate == before
        for one in (first, second):
            one.abort()


async def test_a_key_that_is_not_the_certificates_serves_nobody() -> None:
    one, other = await site_of_another_ca(), await site_of_another_ca()
    with pytest.raises(ValueError, match="key"):
        core.configuration(replace(one, key=other.key), server_name=None, idle_s=60.0)


async def site_of_another_ca() -> Credentials:
    from edgesite.net.pki import RealPki
    from edgesite.net.real import RealClock

    async with RealPki(RealClock()).session() as pki:
        ca = await pki.make_ca("another", days=1, serial=1)
        request = await pki.make_csr("system:node:edge-7", organizations=["system:nodes"])
        signed = await pki.sign_csr(ca, request.request)
    return Credentials(signed, request.key, ca.certificate)


async def test_without_a_certificate_nobody_gets_in(make_site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with quic_site(make_site) as site, site.cloud() as client:
        site.token = await read_token(client)
        own = await credentials_of(site, client, "edge-7")
        made = core.configuration

        def nameless(credentials: Credentials, **options: Any) -> Any:
            configuration = made(credentials, **options)
            configuration.certificate = configuration.private_key = None
            return configuration

        monkeypatch.setattr(quic_client, "configuration", nameless)
        with pytest.raises(QuicClosed, match="no certificate"):
            await dial(site, own, "edge-7")


async def test_a_cloud_that_is_full_says_when_to_ask_again(make_site: SiteMaker) -> None:
    async with quic_site(make_site, websocket=True) as site:
        site.values["cloud"]["modules"]["cloudHub"]["nodeLimit"] = 1
        async with site.cloud() as client:
            site.token = await read_token(client)
            own = await credentials_of(site, client, "edge-7")
            async with site.edge() as edge:
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()
                with pytest.raises(quic_client.Refused, match="1 nodes are connected") as refused:
                    await dial(site, own, "edge-7")
                assert (refused.value.answer.status, refused.value.answer.retry_after_s) == (503, 30.0)
                tls = client_context(ca=own.ca, certificate=own.certificate, key=own.key)
                with pytest.raises(websocket.UpgradeRefused) as over_websocket:
                    await websocket.connect(
                        RealNet(), f"127.0.0.1:{site.hub_port}", "/p/edge-7/events", {"node_id": "edge-7"}, tls=tls
                    )
                answer = over_websocket.value.answer
                assert (answer.status, answer.headers.get("retry-after")) == (503, "30")


async def test_another_protocol_is_refused(make_site: SiteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with quic_site(make_site) as site, site.cloud() as client:
        site.token = await read_token(client)
        own = await credentials_of(site, client, "edge-7")
        made = core.configuration

        def other(credentials: Credentials, **options: Any) -> Any:
            configuration = made(credentials, **options)
            configuration.alpn_protocols = ["edgesite-link/2"]
            return configuration

        monkeypatch.setattr(quic_client, "configuration", other)
        with pytest.raises(QuicClosed, match="another version of the link"):
            await dial(site, own, "edge-7")


async def test_a_deleted_node_does_not_come_back(make_site: SiteMaker) -> None:
    async with quic_site(make_site) as site, site.cloud() as client:
        site.token = await read_token(client)
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
            await until(lambda: edge.meta.connected)
            await client.delete(NODES, "edge-1")
            await until(lambda: not edge.meta.connected)
        ca, node, key = (path.read_bytes() for path in pki_files(site, "edge-1"))
        with pytest.raises(quic_client.Refused, match="the node was deleted") as refused:
            await dial(site, Credentials(node, key, ca), "edge-1")
        assert refused.value.answer.status == 403


class Wire(RealNet):
    """Hands out UDP sockets that can be cut off, as by a firewall: datagrams vanish without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked = False

    async def datagrams(self, factory: Any, *, local: str = "", remote: str = "") -> Any:
        transport, protocol = await super().datagrams(factory, local=local, remote=remote)
        received = protocol.datagrams_received
        protocol.datagrams_received = lambda batch, addr: None if self.blocked else received(batch, addr)
        return transport, protocol


async def test_websocket_where_udp_is_blocked_and_quic_when_it_is_not(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgesite.edge.edgehub import dialling

    monkeypatch.setattr(dialling, "_QUIC_PATIENCE_S", 0.5)
    monkeypatch.setattr(dialling, "_QUIC_AGAIN_S", 0.5)
    async with quic_site(make_site, websocket=True) as site:
        wire = Wire()
        wire.blocked = True
        site.world = replace(site.world, net=wire)
        async with site.cloud() as client:
            site.token = await read_token(client)
            async with site.edge() as edge:
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()
                assert "WebSocket is used meanwhile" in caplog.text
                wire.blocked = False
                await until(lambda: "QUIC reaches the cloud again" in caplog.text)
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()
                await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
                await create_account(client)
                await client.create(PODS, pod_object("web-0"))
                await until(lambda: edge.saw("insert", "default/pod/web-0"))


async def test_kubeedges_draft_is_told_to_the_log(make_site: SiteMaker, caplog: pytest.LogCaptureFixture) -> None:
    async with quic_site(make_site) as site, site.cloud():
        host, port = quic_address(site).split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as go:
            for _ in range(3):
                go.sendto(b"\x0d" + os.urandom(8) + b"Q043" + bytes(1200), (host, int(port)))
                go.sendto(b"\xff" + b"Q044" + b"\x50" + os.urandom(8) + bytes(1200), (host, int(port)))
            await until(lambda: "speaks QUIC's draft Q043" in caplog.text)
        assert caplog.text.count("speaks QUIC's draft") == 1
