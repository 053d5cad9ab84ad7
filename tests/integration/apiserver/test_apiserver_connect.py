"""exec, attach and portforward of pods: what is refused, what nodes are asked, what admission plugins may say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from apiserver_site import ADMIN, Site, site_at

from edgesite.hookspecs import AdmissionRequest
from edgesite.kube import errors
from edgesite.kube.resources import Resource
from edgesite.net.bytestream import ByteStream
from edgesite.net.client import HttpClient
from edgesite.net.http import HttpServer
from edgesite.net.real import RealNet

pytestmark = pytest.mark.anyio
PODS = "/api/v1/namespaces/default/pods"
UPGRADE = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x_stream_protocol_version": "v4.channel.k8s.io"}


class Stream:
    """A node's answer: a refusal, or an upgrade whose bytes come back as they are."""

    def __init__(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {"Content-Type": "text/plain"}
        self._body = body
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    async def close(self) -> None:
        self.closed = True

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        transport = Echo(protocol)
        protocol.connection_made(transport)
        return transport


class Echo(asyncio.Transport):
    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._protocol.data_received(bytes(data))

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def resume_reading(self) -> None:
        """Nothing is ever paused."""


class Connector:
    def __init__(self) -> None:
        self.stream: Any = Stream(500, b"container not found")
        self.asked: list[tuple[str, str, str, Mapping[str, Sequence[str]]]] = []

    async def open(
        self,
        node: str,
        method: str,
        target: str,
        headers: Mapping[str, Sequence[str]] | None = None,
        body: bytes = b"",
    ) -> Any:
        self.asked.append((node, method, target, headers or {}))
        return self.stream


class NoSecrets:
    """Lets nobody run ``env``."""

    name = "nosecrets"
    mutating = False

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return operation == "CONNECT"

    def admit(self, request: AdmissionRequest) -> None:
        assert request.object is not None
        if "env" in request.object.get("command", ()):
            raise errors.forbidden("pods", request.name, "env shows secrets")


@pytest.fixture
def connector() -> Connector:
    return Connector()


@pytest.fixture
async def site(tmp_path: Path, connector: Connector) -> AsyncIterator[Site]:
    tokens = {"letmein": ADMIN}
    async with site_at(tmp_path, connector=lambda: connector, plugins=[NoSecrets()], tokens=tokens) as made:
        containers = [{"name": "web", "image": "x"}]
        await made.post(PODS, {"metadata": {"name": "a"}, "spec": {"containers": containers, "nodeName": "n1"}})
        two = [*containers, {"name": "side", "image": "x"}]
        await made.post(PODS, {"metadata": {"name": "b"}, "spec": {"containers": two, "nodeName": "n1"}})
        await made.post(PODS, {"metadata": {"name": "c"}, "spec": {"containers": containers}})
        yield made


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("gone/exec?command=x&stdout=1", 404, "not found"),
        ("c/exec?command=x&stdout=1", 400, "does not have a host assigned"),
        ("a/exec?stdout=1", 400, "at least 1 command"),
        ("a/exec?command=x", 400, "at least one of stdin, stdout, stderr"),
        ("a/exec?command=x&stdout=1&container=no", 400, "container no is not valid for pod a"),
        ("b/exec?command=x&stdout=1", 400, "a container name must be specified"),
        ("a/exec?command=env&stdout=1", 403, "env shows secrets"),
        ("a/portforward?ports=0", 400, "port numbers"),
        ("a/portforward?ports=http", 400, "port numbers"),
        ("a/exec?command=x&stdout=1", 500, "container not found"),
    ],
)
async def test_refusals(site: Site, connector: Connector, target: str, code: int, said: str) -> None:
    for method in ("GET", "POST"):
        answer = await site.call(method, f"{PODS}/{target}", **UPGRADE)
        assert (answer.status, said in answer.body.decode()) == (code, True), answer.body


async def test_only_upgrades_are_served(site: Site, connector: Connector) -> None:
    for target in ("exec?command=x&stdout=1", "attach", "portforward?ports=80"):
        answer = await site.call("POST", f"{PODS}/a/{target}")
        assert (answer.status, answer.obj["message"]) == (400, "Upgrade request required")
    assert connector.asked == []
    assert (await site.call("DELETE", f"{PODS}/a/exec")).status == 405


async def test_rights_are_needed(site: Site, connector: Connector) -> None:
    answer = await site.as_user("nobody").call("POST", f"{PODS}/a/exec?command=x&stdout=1", **UPGRADE)
    assert answer.status == 403
    assert 'cannot create resource "pods/exec"' in answer.obj["message"]
    assert connector.asked == []


async def test_nodes_are_asked_in_kubelet_s_terms(site: Site, connector: Connector) -> None:
    await site.call(
        "POST", f"{PODS}/a/exec?command=ls&command=-l%20x&stdin=true&stdout=true&tty=true&stderr=true", **UPGRADE
    )
    await site.call("GET", f"{PODS}/b/attach?container=side", **UPGRADE)
    await site.call("POST", f"{PODS}/a/portforward?ports=80,81&ports=82", **UPGRADE)
    targets = [(node, method, target) for node, method, target, _ in connector.asked]
    assert targets == [
        ("n1", "POST", "/exec/default/a/web?input=1&output=1&tty=1&command=ls&command=-l+x"),
        ("n1", "GET", "/attach/default/b/side?output=1&error=1"),
        ("n1", "POST", "/portForward/default/a?port=80&port=81&port=82"),
    ]
    headers = connector.asked[0][3]
    assert headers["upgrade"] == ["SPDY/3.1"]
    assert headers["x-stream-protocol-version"] == ["v4.channel.k8s.io"]
    assert "connection" not in headers  # the road decides
    assert connector.stream.closed


async def test_bytes_pass_through(site: Site, connector: Connector) -> None:
    said = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io", "Server": "n1"}
    connector.stream = Stream(101, headers=said)
    net = RealNet()
    async with HttpServer(site.made.server.handle) as server, HttpClient(net, "mem:api", token="letmein") as client:
        await server.listen(net, "mem:api")
        sent = {"Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v4.channel.k8s.io"}
        target = f"{PODS}/a/exec?command=x&stdout=1"
        _, stream, answered = await client.connect_upgrade(target, sent, ByteStream, method="POST")
        assert answered.get("x-stream-protocol-version") == "v4.channel.k8s.io"
        assert "server" not in answered
        await stream.send(b"\x80\x03 any bytes")
        assert await stream.receive() == b"\x80\x03 any bytes"
        stream.abort()
