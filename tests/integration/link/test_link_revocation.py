"""A node that was deleted or barred cannot come back with its old certificate; one that joins anew can."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import anyio
import pytest
from link_site import Site, SiteMaker, node_object
from test_link_tls import ask, certificate, dial, read_token

from edgesite.client import Client
from edgesite.cloud.cloudhub import jointoken
from edgesite.cloud.cloudhub.identities import BARRED
from edgesite.kube.resources import CONFIG_MAPS, NODES, SECRETS
from edgesite.net import pem
from edgesite.net.client import HttpClient, UpgradeRefused
from edgesite.net.pki import KeyPair, RealPki
from edgesite.net.real import RealClock
from edgesite.net.tls import client_context
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio

NAMED = ("system:node:edge-1", "system:nodes")
LEGACY = ("kubeedge.io", "kubeEdge")


async def refused(site: Site, pair: KeyPair, node: str = "edge-1") -> str:
    """Why the hub refuses the certificate; "" if it takes it."""
    try:
        socket = await dial(site, pair, {"node_id": node})
    except UpgradeRefused as exc:
        return exc.answer.body.decode() if exc.answer.status == 403 else f"status {exc.answer.status}"
    socket.abort()
    return ""


async def renewed(site: Site, pair: KeyPair, common_name: str, organization: str) -> tuple[int, bytes]:
    tls = client_context(verify=False, certificate=pair.certificate, key=pair.key)
    request = await RealPki(RealClock()).make_csr(common_name, organizations=[organization])
    async with HttpClient(site.world.net, f"127.0.0.1:{site.bootstrap_port}", tls=tls) as https:
        answer = await https.request("GET", "/edge.crt", {"NodeName": "edge-1"}, pem.to_der(request.request))
    return answer.status, answer.body


async def remembered(client: Client, key: str, part: str) -> None:
    """Wait until the identity is on disk."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            maps = (await client.list(CONFIG_MAPS, "kubeedge"))["items"]
            if any(part in (one.get("data") or {}).get(key, "") for one in maps):
                return
            await anyio.sleep(0.02)


@pytest.mark.parametrize("identity", [NAMED, LEGACY])
async def test_a_deleted_node_needs_a_new_certificate(make_site: SiteMaker, identity: tuple[str, str]) -> None:
    async with make_site(single_process=False) as site:
        async with site.cloud() as client:
            old = await certificate(site, client, *identity, node="edge-1")
            await client.create(NODES, node_object("edge-1"))
            with anyio.fail_after(DEADLINE_S):
                socket = await dial(site, old, {"node_id": "edge-1"})
            await client.delete(NODES, "edge-1")
            with anyio.fail_after(DEADLINE_S):
                while socket.closed is None:  # noqa: ASYNC110 - the cloud ends the session
                    await anyio.sleep(0.01)
            await remembered(client, "edge-1", "barred")
            assert "was deleted" in await refused(site, old)
            assert (await renewed(site, old, *identity))[0] == 401
            new = await certificate(site, client, *identity, node="edge-1")
            assert await refused(site, new) == ""
            assert "was deleted" in await refused(site, old)
            status, body = await renewed(site, new, *identity)
            assert (status, bool(body)) == (200, True)
        async with site.cloud():  # it is remembered over a restart
            assert "was deleted" in await refused(site, old)
            assert await refused(site, new) == ""


async def test_a_node_deleted_while_no_hub_looked(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site:
        async with site.cloud() as client:
            node = await client.create(NODES, node_object("edge-1"))
            old = await certificate(site, client, *NAMED)
            assert await refused(site, old) == ""
            await remembered(client, "edge-1", node["metadata"]["uid"])
        hub = site.values["cloud"]["modules"]["cloudHub"]
        hub["enable"] = False
        async with site.cloud() as client:
            await client.delete(NODES, "edge-1")
            await client.create(NODES, node_object("edge-1"))
        hub["enable"] = True
        async with site.cloud():
            assert "was deleted" in await refused(site, old)


async def test_a_barred_node_stays_out_as_long_as_it_is_barred(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        pair = await certificate(site, client, *NAMED)
        await client.create(NODES, node_object("edge-1"))
        with anyio.fail_after(DEADLINE_S):
            socket = await dial(site, pair, {"node_id": "edge-1"})
        await client.patch(NODES, "edge-1", {"metadata": {"annotations": {BARRED: "true"}}})
        with anyio.fail_after(DEADLINE_S):
            while socket.closed is None:  # noqa: ASYNC110 - the cloud ends the session
                await anyio.sleep(0.01)
        assert await refused(site, pair) == "the node is barred"
        await client.patch(NODES, "edge-1", {"metadata": {"annotations": {BARRED: None}}})
        with anyio.fail_after(DEADLINE_S):
            while await refused(site, pair):  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_a_certificate_without_a_name_is_one_nodes_alone(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        issued = await certificate(site, client, *LEGACY, node="edge-1")
        assert await refused(site, issued, "edge-2") == "the certificate is another node's"
        assert await refused(site, issued, "edge-1") == ""
        older = await issued_before_us(client)  # it is whose it first comes as
        assert await refused(site, older, "edge-3") == ""
        assert await refused(site, older, "edge-1") == "the certificate is another node's"
        await client.create(NODES, node_object("edge-1"))
        another = await issued_before_us(client)
        with anyio.fail_after(DEADLINE_S):
            while not await refused(site, another, "edge-1"):  # noqa: ASYNC110 - until the cache has the Node
                await anyio.sleep(0.01)


async def issued_before_us(client: Client) -> KeyPair:
    """A certificate that a cloud of KubeEdge gave, with the CA that is ours now."""
    data = (await client.get(SECRETS, "casecret", "kubeedge"))["data"]
    certificate_, key = (base64.b64decode(data[name]) for name in ("cadata", "cakeydata"))
    ca = KeyPair(pem.from_der(certificate_), pem.from_der(key, "EC PRIVATE KEY"))
    async with RealPki(RealClock()).session() as pki:
        made = await pki.make_csr(LEGACY[0], organizations=[LEGACY[1]])
        return KeyPair(await pki.sign_csr(ca, pem.to_der(made.request)), made.key)


async def test_what_keadm_asks_and_reports(make_site: SiteMaker, caplog: pytest.LogCaptureFixture) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        await client.create(NODES, node_object("edge-1"))
        with anyio.fail_after(DEADLINE_S):
            while (await ask(site, "GET", "/node/edge-1", {}))[0] != 200:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert (await ask(site, "GET", "/node/edge-9", {}))[0] == 404
        assert (await ask(site, "POST", "/node/edge-1", {}))[0] == 405
        report: dict[str, Any] = {"UpgradeID": "u", "NodeName": "edge-1", "Status": "upgrade_success"}
        assert await ask(site, "POST", "/nodeupgrade", {}, json.dumps(report).encode()) == (200, b"ok")
        assert "nobody vouches for" in caplog.text
        assert await ask(site, "POST", "/nodeupgrade", {}, b"no json") == (200, b"ok")
        inbox = site.cloud_host.bus.join("upgrades", "nodeupgradejobcontroller") if site.cloud_host else None
        assert inbox is not None
        pair = await certificate(site, client, *NAMED)
        tls = client_context(verify=False, certificate=pair.certificate, key=pair.key)
        async with HttpClient(site.world.net, f"127.0.0.1:{site.bootstrap_port}", tls=tls) as https:
            await https.request("POST", "/nodeupgrade", {}, json.dumps({**report, "NodeName": "edge-2"}).encode())
            await https.request("POST", "/nodeupgrade", {}, json.dumps(report).encode())
        with anyio.fail_after(DEADLINE_S):
            told = await inbox.receive()
        assert (told.resource, told.content) == ("upgrade/u/node/edge-1", report)
        inbox.close()


async def test_the_join_token_is_needed(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        assert len((await read_token(client)).split(".")) == 4
        assert (await ask(site, "GET", "/edge.crt", {"NodeName": "edge-1"}))[0] == 401


async def test_an_edge_of_ours_comes_back_with_another_token(
    make_site: SiteMaker, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = await read_token(client)
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
            await client.delete(NODES, "edge-1")
            await until(lambda: "refuses this node: the node was deleted" in caplog.text)
            assert not edge.meta.connected
        secret = (await client.get(SECRETS, "casecret", "kubeedge"))["data"]
        ca, key = (base64.b64decode(secret[name]) for name in ("cadata", "cakeydata"))
        site.token = jointoken.make(ca, key, int(time.time()) + 600)
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
        site.token = ""
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
