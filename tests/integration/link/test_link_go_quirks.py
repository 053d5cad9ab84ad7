"""What only the Go programs do: repeated headers, small frames, key files under a wrong label, a certificate with an empty name,
refusals in different words."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import anyio
import pytest
from go_cloud import VERSIONS as CLOUDS
from go_cloud import GoCloud
from go_cloud import Version as CloudVersion
from go_edge import VERSIONS, GoEdge
from link_site import Site, SiteMaker, create_account, node_object, pod_object
from test_link_tls import NODE_PATH, certificate, read_token

from edgesite.kube.resources import NODES, PODS, SECRETS
from edgesite.net import pem, tls
from edgesite.net.bytestream import ByteStream
from edgesite.net.client import HttpClient
from edgesite.net.pki import KeyPair, RealPki
from edgesite.net.real import RealClock
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio

CHUNK = 4082  #: payload of each frame but the last, as gorilla's 4 KiB buffer makes them


def frames(text: bytes) -> bytes:
    """One masked text message in frames of 4 KiB."""
    out = b""
    for at in range(0, len(text), CHUNK):
        piece = text[at : at + CHUNK]
        first, last = at == 0, at + CHUNK >= len(text)
        head = bytes([(0x80 if last else 0) | (1 if first else 0)])
        length = bytes([0x80 | len(piece)]) if len(piece) < 126 else b"\xfe" + len(piece).to_bytes(2, "big")
        out += head + length + b"\x00\x00\x00\x00" + piece
    return out


def message(operation: str, path: str, content: object, number: int) -> bytes:
    header = {"msg_id": f"00000000-0000-4000-8000-{number:012d}", "timestamp": 1795151208775}
    route = {"source": "edged", "group": "meta", "operation": operation, "resource": path}
    return json.dumps({"header": header, "route": route, "content": content}).encode() + b"\n"


async def upgraded(site: Site, pair: KeyPair, times: int) -> ByteStream:
    context = tls.client_context(verify=False, certificate=pair.certificate, key=pair.key)
    lines = [b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: n7jmbiaCh/kauZ5gCS7UIQ=="]
    lines += [b"Connectionuse: msg"] * times + [b"Node_id: edge-1", b"Project_id: p"]
    async with HttpClient(site.world.net, f"127.0.0.1:{site.hub_port}", tls=context) as client:
        _, stream, _ = await client.connect_upgrade(NODE_PATH, b"".join(one + b"\r\n" for one in lines), ByteStream)
    return stream


@pytest.mark.parametrize("times", [0, 1, 4])
async def test_repeated_and_missing_header_lines_and_messages_in_small_frames(make_site: SiteMaker, times: int) -> None:
    """v1.12.7 repeats a line once more for each dial that failed; without it a Go cloud upgrades and never reads."""
    async with make_site(single_process=False) as site, site.cloud() as client:
        pair = await certificate(site, client, "kubeedge.io", "kubeEdge", node="edge-1")
        stream = await upgraded(site, pair, times)
        images = [
            {"names": [f"registry.example.com/team/image-{at}:v1"], "sizeBytes": at}
            for at in range(20_000 if times == 1 else 100)
        ]
        node = node_object("edge-1")
        node["status"]["images"] = images
        sent = message("insert", "default/node/edge-1", node, 1)
        assert times != 1 or len(sent) > 1 << 20
        await stream.send(frames(message("keepalive", "node", "ping", 2)) + frames(sent))
        heard = b""
        with anyio.fail_after(DEADLINE_S):
            while b'"Err":null' not in heard:
                heard += await stream.receive()
        assert (await client.get(NODES, "edge-1"))["metadata"]["name"] == "edge-1"
        stream.abort()


async def test_key_files_of_kubeedge_say_private_key_and_hold_sec_1(make_site: SiteMaker, tmp_path: Path) -> None:
    """A cloud is moved from KubeEdge with its files: their label is one that only Go reads."""
    async with make_site(single_process=False) as site:
        hub = site.values["cloud"]["modules"]["cloudHub"]
        names = {name: tmp_path / name for name in ("tlsCAFile", "tlsCAKeyFile", "tlsCertFile", "tlsPrivateKeyFile")}
        async with RealPki(RealClock()).session() as pki:
            ca = await pki.make_ca("KubeEdge", serial=1024)
            server = await pki.issue(
                ca, "KubeEdge", organizations=["KubeEdge"], dns_names=["localhost"], ips=["127.0.0.1"]
            )
        for (certificate_, key), pair in zip(
            (("tlsCAFile", "tlsCAKeyFile"), ("tlsCertFile", "tlsPrivateKeyFile")), (ca, server), strict=True
        ):
            names[certificate_].write_bytes(pair.certificate)
            names[key].write_bytes(pem.from_der(pem.to_der(pair.key), "PRIVATE KEY"))
        hub |= {name: str(path) for name, path in names.items()}
        async with site.cloud() as client:
            data = (await client.get(SECRETS, "casecret", "kubeedge"))["data"]
            assert base64.b64decode(data["cakeydata"]) == pem.to_der(ca.key)
            edge = GoEdge(site, "go-1", VERSIONS["v1.12.7"])
            await edge.join(await read_token(client))
            async with edge.linked():
                await edge.register()


@pytest.mark.parametrize("version", CLOUDS.values(), ids=CLOUDS)
async def test_our_edge_says_why_a_cloud_of_kubeedge_does_not_take_it(
    make_site: SiteMaker, version: CloudVersion, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_site(single_process=False) as site, GoCloud(site, version).serving() as cloud:
        good = cloud.token
        for site.token, reason in (
            (good[:-4] + "AAAA", "refused the token or certificate: Invalid authorization token"),
            ("0" * 64 + good[64:], "not the one that the token names"),
        ):
            caplog.clear()
            async with site.edge() as edge:
                await until(lambda reason=reason: reason in caplog.text)  # type: ignore[misc]
                assert not edge.meta.connected
        site.token = good
        async with site.edge() as edge:
            with anyio.fail_after(DEADLINE_S):
                await edge.meta.wait_connected()
        assert cloud.handshakes


async def test_a_server_certificate_with_an_empty_name_is_taken(make_site: SiteMaker) -> None:
    """KubeEdge's default for dnsNames is one empty name, which then stands in the certificate."""
    async with make_site(single_process=False) as site:
        cloud = GoCloud(site, CLOUDS["v1.12.7"], dns_names=("",))
        async with cloud.serving():
            site.token = cloud.token
            async with site.edge() as edge:
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()


async def test_large_objects_reach_a_go_edge_whole(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        await create_account(client)
        edge = GoEdge(site, "go-1", VERSIONS["v1.12.7"])
        await edge.join(await read_token(client))
        async with edge.linked():
            await edge.register()
            pod = pod_object("large", "go-1")
            noise = base64.b64encode(os.urandom(150_000)).decode()
            pod["metadata"]["annotations"] = {"note": noise}
            await client.create(PODS, pod)
            assert (await edge.has_pod("default/pod/large"))["metadata"]["annotations"]["note"] == noise
