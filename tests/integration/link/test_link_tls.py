"""The link over TLS and WebSocket on loopback: joining, identity, certificates, and what a KubeEdge edge would send."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from link_site import Site, SiteMaker, create_account, free_ports, node_object, pod_object

from edgesite.client import Client
from edgesite.context import Section
from edgesite.edge.edgehub.certificates import Certificates
from edgesite.kube.resources import OBJECT_SYNCS, PODS, SECRETS
from edgesite.net import pem, websocket
from edgesite.net.client import HttpClient, UpgradeRefused
from edgesite.net.pki import KeyPair, RealPki
from edgesite.net.real import RealClock
from edgesite.net.tls import client_context
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio

NODE_PATH = "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events"


async def read_token(client: Client) -> str:
    secret = await client.get(SECRETS, "tokensecret", "kubeedge")
    return base64.b64decode(secret["data"]["tokendata"]).decode()


def pki_files(site: Site, node: str) -> tuple[Path, Path, Path]:
    folder = site.folder / node / "pki"
    return folder / "ca.crt", folder / "node.crt", folder / "node.key"


async def test_an_edge_joins_by_token_and_runs_a_pod(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = await read_token(client)
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
            await create_account(client)
            await client.create(PODS, pod_object("web-0"))
            await until(lambda: edge.saw("insert", "default/pod/web-0"))
        _, certificate, key = pki_files(site, "edge-1")
        assert pem.facts(certificate.read_bytes()).subject == (("O", "system:nodes"), ("CN", "system:node:edge-1"))
        assert key.stat().st_mode & 0o777 == 0o600
        site.token = ""  # needed for the first join only
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
            assert [one["metadata"]["name"] for one in await edge.meta.list("pod")] == ["web-0"]


async def test_another_clouds_token_does_not_join(make_site: SiteMaker, caplog: pytest.LogCaptureFixture) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        token = await read_token(client)
        wrong_hash = ".".join(["0" * 64, *token.split(".")[1:]])
        wrong_signature = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
        reasons = {
            "": "no join token",
            "no.token": "no join token",
            wrong_hash: "not the one that the token names",
            wrong_signature: "refused the token",
        }
        for site.token, reason in reasons.items():
            caplog.clear()
            async with site.edge() as edge:
                await until(lambda reason=reason: reason in caplog.text)  # type: ignore[misc]
                assert not edge.meta.connected
            assert not pki_files(site, "edge-1")[1].exists()


async def ask(site: Site, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
    tls = client_context(verify=False)
    async with HttpClient(site.world.net, f"127.0.0.1:{site.bootstrap_port}", tls=tls) as client:
        answer = await client.request(method, path, headers, body)
        return answer.status, answer.body


async def test_status_codes_of_the_bootstrap_server(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        token = await read_token(client)
        jwt = token.split(".", 1)[1]
        status, ca = await ask(site, "GET", "/ca.crt", {})
        assert (status, pem.fingerprint(ca)) == (200, token.split(".")[0])
        refused = b"Invalid authorization token"
        assert await ask(site, "GET", "/edge.crt", {}) == (401, refused)
        for bad in ("Basic x", "Bearer", f"Bearer {token}", f"Bearer {jwt[:-3]}", f"bearer {jwt}"):
            assert await ask(site, "GET", "/edge.crt", {"Authorization": bad}) == (400, refused)
        good = {"Authorization": f"Bearer {jwt}", "NodeName": "edge-1"}
        assert await ask(site, "GET", "/edge.crt", good, b"no request") == (200, b"")
        assert await ask(site, "GET", "/edge.crt", good) == (200, b"")
        assert await ask(site, "POST", "/ca.crt", {}) == (405, b"405: Method Not Allowed")
        assert await ask(site, "GET", "/other", {}) == (404, b"404: Page Not Found")
        pki = RealPki(RealClock())
        admin = await pki.make_csr("admin", organizations=["system:masters"])
        assert await ask(site, "GET", "/edge.crt", good, pem.to_der(admin.request)) == (200, b"")
        for name in ("cloud.example.com", "127.0.0.1", "system:node:", "system:node:Edge 1"):
            server = await pki.make_csr(name, organizations=["system:nodes"])
            assert await ask(site, "GET", "/edge.crt", good, pem.to_der(server.request)) == (200, b""), name
        go_edge = await pki.make_csr("kubeedge.io", organizations=["kubeEdge"])
        status, signed = await ask(site, "GET", "/edge.crt", good, pem.to_der(go_edge.request))
        assert (status, pem.facts(signed).common_name) == (200, "kubeedge.io")
        usages = {**good, "ExtKeyUsages": "[1,2]"}
        status, signed = await ask(site, "GET", "/edge.crt", usages, pem.to_der(go_edge.request))
        assert status == 200
        assert signed


async def certificate(site: Site, client: Client, common_name: str, organization: str, *, node: str = "") -> KeyPair:
    """Join by token; ``node`` is what the header says."""
    jwt = (await read_token(client)).split(".", 1)[1]
    request = await RealPki(RealClock()).make_csr(common_name, organizations=[organization])
    headers = {"Authorization": f"Bearer {jwt}", **({"NodeName": node} if node else {})}
    _, signed = await ask(site, "GET", "/edge.crt", headers, pem.to_der(request.request))
    return KeyPair(pem.from_der(signed), request.key)


async def dial(site: Site, pair: KeyPair | None, headers: dict[str, str]) -> websocket.WebSocket:
    identity = {"certificate": pair.certificate, "key": pair.key} if pair else {}
    tls = client_context(verify=False, **identity)
    with anyio.fail_after(DEADLINE_S):
        return await websocket.connect(site.world.net, f"127.0.0.1:{site.hub_port}", NODE_PATH, headers, tls=tls)


async def test_a_connection_is_bound_to_the_node_of_its_certificate(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        pair = await certificate(site, client, "system:node:edge-1", "system:nodes")
        for node, code in (("edge-2", 403), ("", 400), ("Not A Node", 400)):
            with pytest.raises(UpgradeRefused) as refused:
                await dial(site, pair, {"node_id": node})
            assert refused.value.answer.status == code
        with pytest.raises((OSError, websocket.SocketClosed)):
            await (await dial(site, None, {"node_id": "edge-1"})).recv()


async def receive(socket: websocket.WebSocket) -> dict[str, Any]:
    with anyio.fail_after(DEADLINE_S):
        message: dict[str, Any] = json.loads((await socket.recv()).data)
    return message


async def test_what_an_edge_of_kubeedge_1_12_says_and_hears(make_site: SiteMaker) -> None:
    """Messages with the members, order and content of the Go program's edge, modelled on recorded sessions."""
    async with make_site(single_process=False) as site, site.cloud() as client:
        await create_account(client)
        pair = await certificate(site, client, "kubeedge.io", "kubeEdge", node="edge-1")
        socket = await dial(site, pair, {"Node_id": "edge-1", "Project_id": "p", "Connectionuse": "msg"})

        async def say(msg_id: str, operation: str, path: str, content: Any, parent: str = "", **route: str) -> None:
            header: dict[str, Any] = {"msg_id": msg_id, "timestamp": 1795151208775}
            if parent:
                header["parent_msg_id"] = parent
            source = {"source": "edged", "group": "meta", **route}
            message = {"header": header, "route": {**source, "operation": operation, "resource": path}}
            await socket.send(json.dumps({**message, "content": content}) + "\n")

        await say("k1", "keepalive", "node", "ping", source="websocket", group="resource")
        await say("q1", "query", "kube-node-lease/lease/edge-1", None)
        answer = await receive(socket)
        assert answer["header"]["parent_msg_id"] == "q1"
        assert answer["route"] == {
            "source": "edgecontroller",
            "group": "resource",
            "operation": "response",
            "resource": "kube-node-lease/lease/edge-1",
        }
        assert answer["content"]["Object"] is None
        assert answer["content"]["Err"]["ErrStatus"]["reason"] == "NotFound"

        await say("n1", "insert", "default/node/edge-1", {"metadata": {"name": "x", "creationTimestamp": None}})
        answer = await receive(socket)
        assert (answer["content"]["Err"], answer["content"]["Object"]["metadata"]["name"]) == (None, "edge-1")
        assert "resourceversion" not in answer["header"]
        await say("q2", "query", "default/node/edge-1", None)
        answer = await receive(socket)
        assert answer["content"]["kind"] == "Node"
        assert answer["header"]["resourceversion"] == answer["content"]["metadata"]["resourceVersion"]
        await say("p1", "patch", "default/nodepatch/edge-1", '{"status":{"capacity":{"cpu":"1"}}}')
        answer = await receive(socket)
        assert answer["content"]["Object"]["status"]["capacity"] == {"cpu": "1"}

        for name in ("web-0", "web-1"):
            await client.create(PODS, pod_object(name))
        first = await receive(socket)
        assert (first["route"]["operation"], first["route"]["resource"]) == ("insert", "default/pod/web-0")
        assert first["content"]["kind"] == "Pod"
        with anyio.fail_after(DEADLINE_S):  # recorded before the acknowledgement: the edge may have it
            syncs: list[dict[str, Any]] = []
            while not syncs or "status" not in syncs[0]:
                syncs = (await client.list(OBJECT_SYNCS, "default"))["items"]
                await anyio.sleep(0.01)
        assert syncs[0]["status"] == {"objectResourceVersion": "0"}
        await say("q3", "query", "default/secret/none", None)  # a failing query gets no answer: it would be stored
        route = {"source": "edgecontroller", "group": "resource"}
        await say("a1", "response", "default/pod/web-0", "OK", parent=first["header"]["msg_id"], **route)
        second = await receive(socket)
        assert second["route"]["resource"] == "default/pod/web-1"
        uid = first["content"]["metadata"]["uid"]
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        await say("d1", "delete", "default/pod/web-0", options)
        answer = await receive(socket)
        assert (answer["header"]["parent_msg_id"], answer["content"]) == ("d1", "OK")
        await say("", "", "", None)
        await socket.close()


async def test_certificates_and_token_survive_a_restart_of_the_cloud(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site:
        found = []
        for _ in range(2):
            async with site.cloud() as client:
                ca = await client.get(SECRETS, "casecret", "kubeedge")
                server = await client.get(SECRETS, "cloudcoresecret", "kubeedge")
                found.append((ca["data"], server["data"]))
        assert found[0] == found[1]


def certificates_of(site: Site, node: str) -> Certificates:
    world = site.world
    config = Section(site.edge_values(node)["modules"]["edgeHub"])
    return Certificates(node, config, world.net, world.threads, world.clock, RealPki(world.clock), world.random)


async def test_a_certificate_is_renewed_by_the_present_one(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = await read_token(client)
        certificates = certificates_of(site, "edge-1")
        await certificates.ensure()
        _, certificate, key = pki_files(site, "edge-1")
        first, first_key = pem.facts(certificate.read_bytes()), key.read_bytes()
        life = first.not_after - first.not_before
        due = await certificates.renewal_at()
        assert first.not_before + 0.7 * life <= due <= first.not_before + 0.9 * life
        site.token = ""
        await certificates_of(site, "edge-1").renew()
        second = pem.facts(certificate.read_bytes())
        assert second.serial != first.serial
        assert second.common_name == "system:node:edge-1"
        assert key.read_bytes() != first_key
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()


async def test_a_certificate_cannot_be_renewed_into_another_nodes(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        pair = await certificate(site, client, "system:node:edge-1", "system:nodes")
        tls = client_context(verify=False, certificate=pair.certificate, key=pair.key)
        request = await RealPki(RealClock()).make_csr("system:node:edge-2", organizations=["system:nodes"])
        async with HttpClient(site.world.net, f"127.0.0.1:{site.bootstrap_port}", tls=tls) as https:
            answer = await https.request("GET", "/edge.crt", {"NodeName": "edge-1"}, pem.to_der(request.request))
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("left", ["key", "both", "certificate"])
async def test_a_replacement_that_a_crash_cut_short_leaves_a_pair_that_fits(make_site: SiteMaker, left: str) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = await read_token(client)
        await certificates_of(site, "edge-1").ensure()
        _, certificate, key = pki_files(site, "edge-1")
        old = (certificate.read_bytes(), key.read_bytes())
        await certificates_of(site, "edge-1").renew()
        new = (certificate.read_bytes(), key.read_bytes())
        if left != "certificate":  # the crash came before the key was in place
            certificate.write_bytes(old[0])
            key.write_bytes(old[1])
            key.with_name(key.name + ".new").write_bytes(new[1])
        if left != "key":
            certificate.with_name(certificate.name + ".new").write_bytes(new[0])
        if left == "certificate":
            certificate.write_bytes(old[0])
        certificates = certificates_of(site, "edge-1")
        await certificates.ensure()
        certificates.context()  # raises if the pair does not fit
        assert (certificate.read_bytes(), key.read_bytes()) == (new if left == "certificate" else old)
        assert not list(certificate.parent.glob("*.new"))


async def test_several_addresses_are_tried_in_turn(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        site.token = await read_token(client)
        dead = free_ports(2)
        values = site.edge_values("edge-1")["modules"]["edgeHub"]
        servers = ",".join([*(f"127.0.0.1:{port}" for port in dead), values["websocket"]["server"]])
        bootstraps = ",".join([f"https://127.0.0.1:{dead[0]}", values["httpServer"]])
        async with site.edge(servers=servers, bootstraps=bootstraps) as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
