"""pods/log and nodes/proxy over a connector that stands for the link to a node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from apiserver_site import ADMIN, Site, site_at

from edgesite.kube import errors
from edgesite.net import websocket
from edgesite.net.http import HttpServer
from edgesite.net.real import RealNet

pytestmark = pytest.mark.anyio
PODS = "/api/v1/namespaces/default/pods"


class Stream:
    """An answer of a node."""

    def __init__(self, status: int, chunks: list[bytes], *, breaks: bool = False, endless: bool = False) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"Content-Type": "text/plain", "X-Inner": "1"}
        self.closed = False
        self._chunks = chunks
        self._breaks = breaks
        self._endless = endless

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._breaks:
            raise ConnectionResetError
        if self._endless:
            await anyio.sleep_forever()

    async def close(self) -> None:
        self.closed = True


class Connector:
    """Answers with what the test has put there."""

    def __init__(self) -> None:
        self.stream: Any = Stream(200, [b"one\n", b"two\n"])
        self.asked: list[tuple[str, str, str]] = []

    async def open(
        self,
        node: str,
        method: str,
        target: str,
        headers: Mapping[str, Sequence[str]] | None = None,
        body: bytes = b"",
    ) -> Any:
        self.asked.append((node, method, target))
        if isinstance(self.stream, Exception):
            raise self.stream
        return self.stream


@pytest.fixture
def connector() -> Connector:
    return Connector()


@pytest.fixture
async def site(tmp_path: Path, connector: Connector) -> AsyncIterator[Site]:
    async with site_at(tmp_path, connector=lambda: connector, tokens={"letmein": ADMIN}) as made:
        containers = [{"name": "web", "image": "x"}]
        await made.post(PODS, {"metadata": {"name": "a"}, "spec": {"containers": containers, "nodeName": "n1"}})
        two = [*containers, {"name": "side", "image": "x"}]
        init = [{"name": "init", "image": "x"}]
        spec = {"containers": two, "initContainers": init, "nodeName": "n1"}
        await made.post(PODS, {"metadata": {"name": "b"}, "spec": spec})
        await made.post(PODS, {"metadata": {"name": "c"}, "spec": {"containers": containers}})
        yield made


async def test_log(site: Site, connector: Connector) -> None:
    answer = await site.get(f"{PODS}/a/log?follow=true&tailLines=5&timestamps=true&sinceSeconds=3&previous=false")
    assert (answer.status, answer.body) == (200, b"one\ntwo\n")
    assert answer.headers["content-type"] == "text/plain"
    target = "/containerLogs/default/a/web?follow=true&timestamps=true&sinceSeconds=3&tailLines=5"
    assert connector.asked == [("n1", "GET", target)]
    assert connector.stream.closed


async def test_container_has_to_be_clear(site: Site, connector: Connector) -> None:
    for target, message in {
        f"{PODS}/b/log": "a container name must be specified for pod b, choose one of: [web side] "
        "or one of the init containers: [init]",
        f"{PODS}/b/log?container=no": "container no is not valid for pod b",
    }.items():
        answer = await site.get(target)
        assert (answer.status, answer.obj["message"]) == (400, message)
    assert (await site.get(f"{PODS}/b/log?container=init")).status == 200
    assert (await site.get(f"{PODS}/no/log")).obj["message"] == 'pods "no" not found'
    assert (await site.get(f"{PODS}/c/log")).status == 204


@pytest.mark.parametrize(
    ("query", "code"),
    [("tailLines=-1", 422), ("limitBytes=0", 422), ("sinceSeconds=0", 422), ("tailLines=x", 400), ("sinceTime=x", 400)],
)
async def test_bad_options(site: Site, query: str, code: int) -> None:
    assert (await site.get(f"{PODS}/a/log?{query}")).status == code


async def test_refusals_of_the_node_are_handed_on(site: Site, connector: Connector) -> None:
    waiting = 'container "web" in pod "a" is waiting to start: ContainerCreating'
    connector.stream = Stream(400, [waiting.encode()])
    answer = await site.get(f"{PODS}/a/log")
    assert (answer.status, answer.obj["reason"], answer.obj["message"]) == (400, "BadRequest", waiting)
    assert connector.stream.closed
    connector.stream = Stream(500, [b"boom"])
    assert (await site.get(f"{PODS}/a/log")).obj["message"] == "Internal error occurred: boom"
    connector.stream = Stream(404, [b""])
    assert (await site.get(f"{PODS}/a/log")).status == 404
    connector.stream = errors.unavailable("node n1 is not connected")
    assert (await site.get(f"{PODS}/a/log")).status == 503
    connector.stream = ConnectionRefusedError("no")
    assert (await site.get(f"{PODS}/a/log")).status == 500


async def test_broken_road_cuts_the_stream(site: Site, connector: Connector) -> None:
    connector.stream = Stream(200, [b"one\n"], breaks=True)
    with pytest.raises(ConnectionResetError):
        await site.get(f"{PODS}/a/log")
    assert connector.stream.closed


async def test_reader_that_leaves_ends_the_node_s_stream(site: Site, connector: Connector) -> None:
    connector.stream = Stream(200, [b"one\n"], endless=True)
    async with site.transport.stream("GET", f"{PODS}/a/log?follow=true", {}) as stream:
        assert await anext(aiter(stream)) == b"one\n"
    assert connector.stream.closed


async def test_node_proxy(site: Site, connector: Connector) -> None:
    await site.post("/api/v1/nodes", {"metadata": {"name": "n1"}})
    connector.stream = Stream(200, [b"ok"])
    answer = await site.get("/api/v1/nodes/n1/proxy/healthz?verbose=1")
    assert (answer.status, answer.body) == (200, b"ok")
    assert connector.asked == [("n1", "GET", "/healthz?verbose=1")]
    assert "x-inner" not in answer.headers
    await site.get("/api/v1/nodes/n1/proxy/run/a%20b%0d%0aX-More:%20y%2Fz%3Fq?cmd=c%20d")
    assert connector.asked[-1][2] == "/run/a%20b%0D%0AX-More:%20y/z%3Fq?cmd=c%20d", "nothing becomes a line of its own"
    assert (await site.get("/api/v1/nodes/no/proxy/healthz")).status == 404
    assert (await site.post("/api/v1/nodes/n1/proxy/run", {})).status == 200
    assert connector.asked[2:] == [("n1", "POST", "/run")]


async def test_without_a_road(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        spec = {"containers": [{"name": "web", "image": "x"}], "nodeName": "n1"}
        await site.post(PODS, {"metadata": {"name": "a"}, "spec": spec})
        answer = await site.get(f"{PODS}/a/log")
        assert (answer.status, answer.obj["reason"]) == (500, "InternalError")


@pytest.fixture
async def address(site: Site) -> AsyncIterator[str]:
    """The same API on a socket."""
    async with HttpServer(site.made.server.handle) as server:
        yield (await server.listen(RealNet(), "127.0.0.1:0")).address


async def dial(address: str, target: str, *subprotocols: str) -> websocket.WebSocket:
    headers = {"Authorization": "Bearer letmein"}
    with anyio.fail_after(60):
        return await websocket.connect(RealNet(), address, target, headers, subprotocols=subprotocols)


@pytest.mark.parametrize(
    ("subprotocol", "expected"),
    [
        ("binary.k8s.io", [(b"one\n", False), (b"two\n", False)]),
        ("base64.binary.k8s.io", [(b"b25lCg==", True), (b"dHdvCg==", True)]),
    ],
)
async def test_log_over_a_websocket(
    address: str, connector: Connector, subprotocol: str, expected: list[tuple[bytes, bool]]
) -> None:
    socket = await dial(address, f"{PODS}/a/log", subprotocol)
    with anyio.fail_after(60):
        assert [tuple(message) async for message in socket] == expected
    assert socket.closed is not None
    assert socket.closed.code == 1000
    assert socket.subprotocol == subprotocol


async def test_a_websocket_client_that_leaves_ends_the_log(address: str, connector: Connector) -> None:
    connector.stream = Stream(200, [b"one\n"], endless=True)
    socket = await dial(address, f"{PODS}/a/log?follow=true", "binary.k8s.io")
    with anyio.fail_after(60):
        assert (await socket.recv()).data == b"one\n"
        await socket.close()
        while not connector.stream.closed:  # noqa: ASYNC110
            await anyio.sleep(0.001)


async def test_a_road_that_breaks_is_no_end_of_a_websockets_log(address: str, connector: Connector) -> None:
    connector.stream = Stream(200, [b"one\n"], breaks=True)
    socket = await dial(address, f"{PODS}/a/log", "binary.k8s.io")
    with anyio.fail_after(60):
        assert [message.data async for message in socket] == [b"one\n"]
    assert socket.closed is not None
    assert socket.closed.code == 1006
