"""From `NodeConnector` to a container's log file and back: both ends as modules, in one process and over TLS."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from edgesite.cloud.cloudhub.records import ConnectedNodes
from edgesite.cloud.cloudstream.module import CloudStream
from edgesite.context import Context, NodeConnector, Section
from edgesite.edge.edged.server.module import KubeletApiServer
from edgesite.edge.edged.server.source import CommandResult, ContainerLog, LogSource
from edgesite.edge.edgestream.module import EdgeStream
from edgesite.kube import json
from edgesite.kube.errors import ApiError, bad_request
from edgesite.net import pem, tls, websocket
from edgesite.net.client import HttpClient
from edgesite.net.errors import ClosedByPeer
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock, RealDisk, RealNet
from edgesite.net.threads import RealThreads
from edgesite.runtime.role import RoleHost, World
from edgesite.wire import tunnel as wire
from edgesite.wire.tunnel import Connect, FrameType

pytestmark = pytest.mark.anyio
STAMP = b"2026-11-20T05:28:16.000000000Z stdout F "


class Edged:
    """Gives the logs of one pod, from files."""

    name = "edged"
    roles = frozenset({"edge"})
    needs: frozenset[str] = frozenset()
    section = ""

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: Context) -> None:
        self._dir = ctx.data_dir
        ctx.services.provide(LogSource, self)  # type: ignore[type-abstract]
        ctx.ready()
        await anyio.sleep_forever()

    async def container_log(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> ContainerLog:
        if pod != "web":
            raise ApiError(404, "NotFound", f'pod "{pod}" does not exist')
        if previous:
            raise bad_request(f'previous terminated container "{container}" in pod "{pod}" not found')
        return ContainerLog(self._dir / f"{container}.log", lambda: not (self._dir / "ended").exists())

    def pods(self) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "web"}}]

    def running_pods(self) -> list[dict[str, Any]]:
        return []

    async def run_command(self, command: Sequence[str]) -> CommandResult:
        return CommandResult(0 if command[0] == "true" else 3, " ".join(command).encode())


class Hub:
    """What cloudstream waits for."""

    name = "cloudhub"
    roles = frozenset({"cloud"})
    needs: frozenset[str] = frozenset()
    section = ""

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: Context) -> None:
        ctx.ready()
        await anyio.sleep_forever()


class EdgedWithCommands(Edged):
    async def run(self, *args: Any) -> Any:  # type: ignore[override]
        """A module's run takes the context, the source's takes a container and a command."""
        return await (super().run(args[0]) if len(args) == 1 else self.run_command(args[3]))


def world(net: RealNet, threads: RealThreads, *, single: bool) -> World:
    hooks: Any = SimpleNamespace()
    return World(RealClock(), random.Random(1), net, threads, RealDisk(), hooks, {"single_process": single})


@asynccontextmanager
async def running(host: RoleHost) -> AsyncIterator[RoleHost]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        with anyio.fail_after(60):
            await host.ready.wait()
        yield host
        tasks.cancel_scope.cancel()


def cloud_host(
    net: RealNet, threads: RealThreads, folder: Path, *, single: bool, port: int = 0, **stream: Any
) -> RoleHost:
    settings = Section({"modules": {"cloudStream": {"enable": True, "tunnelPort": port, **stream}}})
    return RoleHost(
        "cloud", [Hub, CloudStream], settings, world(net, threads, single=single), data_dir=folder / "cloud"
    )


def edge_host(
    net: RealNet, threads: RealThreads, folder: Path, node: str, *, single: bool, port: int = 0, **stream: Any
) -> RoleHost:
    kubelet = {"address": "127.0.0.1", "readOnlyPort": port}
    edged = {"enable": True, "tailoredKubeletConfig": kubelet}
    settings = Section({"modules": {"edgeStream": {"enable": True, **stream}, "edged": edged}})
    modules = [EdgedWithCommands, KubeletApiServer, EdgeStream]
    return RoleHost(
        "edge", modules, settings, world(net, threads, single=single), data_dir=folder / node, node_name=node
    )


async def connected(cloud: RoleHost, node: str) -> NodeConnector:
    connector = cloud.services.get(NodeConnector)  # type: ignore[type-abstract]
    with anyio.fail_after(60):
        pause = 0.0
        while node not in connector._tunnels:  # type: ignore[attr-defined]
            await anyio.sleep(pause)
            pause = min(pause + 0.001, 0.02)
    return connector


async def text(connector: NodeConnector, node: str, target: str, method: str = "GET") -> tuple[int, bytes]:
    stream = await connector.open(node, method, target)
    body = b""
    async for piece in stream:
        body += piece
    await stream.close()
    return stream.status, body


@asynccontextmanager
async def site(folder: Path, *nodes: str) -> AsyncIterator[tuple[NodeConnector, RoleHost]]:
    """Both roles in one process."""
    net, threads = RealNet(), RealThreads()
    async with running(cloud_host(net, threads, folder, single=True)) as cloud, anyio.create_task_group() as tasks:
        for node in nodes:
            tasks.start_soon(edge_host(net, threads, folder, node, single=True).run)
        for node in nodes:
            connector = await connected(cloud, node)
        yield connector, cloud
        tasks.cancel_scope.cancel()
    await threads.close()


def log_file(folder: Path, node: str, *lines: bytes, name: str = "app") -> Path:
    path = folder / node / f"{name}.log"
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(STAMP + line + b"\n" for line in lines))
    return path


async def test_logs_reach_the_cloud_with_status_and_type(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", b"one", b"two", b"three")
    async with site(tmp_path, "n1", "n2") as (connector, _):
        stream = await connector.open("n1", "GET", "/containerLogs/default/web/app?tailLines=2")
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/plain")
        assert [piece async for piece in stream] == [b"two\nthree\n"]
        shown = await text(connector, "n1", "/containerLogs/default/web/app?timestamps=true&limitBytes=40")
        assert shown == (200, b"2026-11-20T05:28:16.000000000Z one\n2026-")
        assert await text(connector, "n2", "/containerLogs/default/web/app") == (200, b"")


async def test_a_nodes_refusal_comes_in_its_words(tmp_path: Path) -> None:
    async with site(tmp_path, "n1") as (connector, _):
        assert await text(connector, "n1", "/containerLogs/d/gone/app") == (404, b'pod "gone" does not exist')
        assert await text(connector, "n1", "/containerLogs/d/web/app?previous=true") == (
            400,
            b'previous terminated container "app" in pod "web" not found',
        )
        assert (await text(connector, "n1", "/containerLogs/d/web/app?tailLines=x"))[0] == 400
        assert (await text(connector, "n1", "/nowhere"))[0] == 404
        assert (await text(connector, "n1", "/pods", "DELETE"))[0] == 405
        assert await text(connector, "n1", "/healthz") == (200, b"ok")
        status, body = await text(connector, "n1", "/pods")
        assert (status, json.loads(body)["items"]) == (200, [{"metadata": {"name": "web"}}])
        assert await text(connector, "n1", "/run/d/web/app?cmd=true+x", "POST") == (200, b"true x")
        assert (await text(connector, "n1", "/run/d/web/app?cmd=false", "POST"))[0] == 500
        assert (await text(connector, "n1", "/run/d/web/app?cmd=false"))[0] == 405


async def test_a_node_whose_tunnel_is_about_to_come_is_waited_for(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", b"one")
    net, threads = RealNet(), RealThreads()
    joined = SimpleNamespace(identity=lambda node: "system:node:n1" if node == "n1" else "")
    async with running(cloud_host(net, threads, tmp_path, single=True)) as cloud, anyio.create_task_group() as tasks:
        cloud.services.provide(ConnectedNodes, joined)  # type: ignore[type-abstract, arg-type]
        connector = cloud.services.get(NodeConnector)  # type: ignore[type-abstract]
        with pytest.raises(ApiError, match="cannot be reached"):  # it is not connected: at once
            await connector.open("n2", "GET", "/healthz")
        tasks.start_soon(edge_host(net, threads, tmp_path, "n1", single=True).run)
        with anyio.fail_after(60):
            assert await text(connector, "n1", "/containerLogs/default/web/app") == (200, b"one\n")
        tasks.cancel_scope.cancel()
    await threads.close()


async def test_a_node_without_a_tunnel_is_a_clear_503(tmp_path: Path) -> None:
    async with site(tmp_path, "n1") as (connector, _):
        with pytest.raises(ApiError, match='node "n9" cannot be reached') as caught:
            await connector.open("n9", "GET", "/healthz")
        assert caught.value.code == 503


async def test_follow_passes_lines_as_they_come_and_ends_with_the_container(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", b"first")
    async with site(tmp_path, "n1") as (connector, _):
        stream = await connector.open("n1", "GET", "/containerLogs/default/web/app?follow=true")
        pieces = stream.__aiter__()
        with anyio.fail_after(60):
            assert await pieces.__anext__() == b"first\n"
            log_file(tmp_path, "n1", b"second")
            assert await pieces.__anext__() == b"second\n"
            log_file(tmp_path, "n1", b"last")
            (tmp_path / "n1" / "ended").touch()
            assert await pieces.__anext__() == b"last\n"
            with pytest.raises(StopAsyncIteration):
                await pieces.__anext__()


async def test_a_large_log_is_byte_exact(tmp_path: Path) -> None:
    lines = [f"{number} {'x' * (number % 300)}".encode() for number in range(30_000)]
    log_file(tmp_path, "n1", *lines)
    async with site(tmp_path, "n1") as (connector, _):
        with anyio.fail_after(60):
            assert await text(connector, "n1", "/containerLogs/default/web/app") == (200, b"\n".join(lines) + b"\n")


async def test_a_reader_that_stops_holds_up_its_own_stream_only(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", *[b"y" * 1000] * 20_000, name="big")
    log_file(tmp_path, "n1", b"small")
    async with site(tmp_path, "n1") as (connector, _):
        slow = await connector.open("n1", "GET", "/containerLogs/default/web/big?follow=true")
        with anyio.fail_after(60):
            for _ in range(20):
                assert await text(connector, "n1", "/containerLogs/default/web/app") == (200, b"small\n")
        waiting = slow._connection._buffered + slow._connection.transport._unread_size  # type: ignore[attr-defined]
        assert waiting < 1024 * 1024
        size = 0
        with anyio.fail_after(60):
            async for piece in slow:
                size += len(piece)
                if size == 20_000 * 1001:
                    break
        await slow.close()


async def test_closing_a_stream_ends_it_at_the_node(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", b"one")
    async with site(tmp_path, "n1") as (connector, _):
        streams = [await connector.open("n1", "GET", "/containerLogs/default/web/app?follow=true") for _ in range(5)]
        tunnel = connector._tunnels["n1"]  # type: ignore[attr-defined]
        assert tunnel.streams == 5
        for stream in streams:
            await stream.close()
            await stream.close()
        assert tunnel.streams == 0
        assert await text(connector, "n1", "/healthz") == (200, b"ok")


async def test_streams_end_with_an_error_when_the_tunnel_breaks_and_it_comes_back(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", b"one")
    async with site(tmp_path, "n1") as (connector, cloud):
        stream = await connector.open("n1", "GET", "/containerLogs/default/web/app?follow=true")
        pieces = stream.__aiter__()
        assert await pieces.__anext__() == b"one\n"
        old = connector._tunnels["n1"]  # type: ignore[attr-defined]
        old._socket.abort()
        with anyio.fail_after(60), pytest.raises(ClosedByPeer):
            await pieces.__anext__()
        await connected(cloud, "n1")
        assert connector._tunnels["n1"] is not old  # type: ignore[attr-defined]
        assert await text(connector, "n1", "/healthz") == (200, b"ok")


async def test_a_stopped_edge_leaves_nothing_waiting(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", b"one")
    net, threads = RealNet(), RealThreads()
    async with running(cloud_host(net, threads, tmp_path, single=True)) as cloud:
        for _ in range(2):
            async with running(edge_host(net, threads, tmp_path, "n1", single=True)):
                connector = await connected(cloud, "n1")
                stream = await connector.open("n1", "GET", "/containerLogs/default/web/app?follow=true")
            with anyio.fail_after(60), pytest.raises(ClosedByPeer):
                async for _ in stream:
                    pass
            with pytest.raises(ApiError):
                await connector.open("n1", "GET", "/healthz")
    await threads.close()


async def test_the_loopback_port_serves_programs_and_refuses_web_pages(tmp_path: Path) -> None:
    net, threads = RealNet(), RealThreads()
    probe = await net.listen(anyio.abc.SocketStream, "127.0.0.1:0")  # type: ignore[arg-type]
    port = int(probe.address.rpartition(":")[2])
    await probe.close()
    async with running(edge_host(net, threads, tmp_path, "n1", single=True, port=port)):
        async with HttpClient(net, f"127.0.0.1:{port}") as client:
            with anyio.fail_after(60):
                while True:
                    try:
                        assert (await client.request("GET", "/healthz")).body == b"ok"
                        break
                    except ConnectionRefusedError:
                        await anyio.sleep(0.01)
            assert (await client.request("GET", "/pods", {"Origin": "http://evil"})).status == 403
            for path in (
                "/run/d/web/app?cmd=true",
                "/exec/d/web/app",
                "/%65xec/d/web/app",
                "/attach/d/web/app/",
                "/portForward/d/web",
            ):
                answer = await client.request("POST", path)
                assert (answer.status, answer.body[:22]) == (403, b"this port is read-only"), path
        async with HttpClient(net, f"127.0.0.1:{port}", server_hostname="rebound.example") as client:
            assert (await client.request("GET", "/pods")).status == 403
    await threads.close()


async def certificates(folder: Path, *nodes: str) -> dict[str, dict[str, str]]:
    """Files as configuration names them: of the cloud, and of each node."""
    async with RealPki(RealClock()).session() as pki:
        ca = await pki.make_ca("KubeEdge")
        pairs = {"cloud": await pki.issue(ca, "KubeEdge", dns_names=["localhost"], ips=["127.0.0.1"])}
        for node in nodes:
            csr = await pki.make_csr(node, organizations=["system:nodes"] if node.startswith("system:") else [])
            pairs[node] = type(ca)(await pki.sign_csr(ca, pem.to_der(csr.request)), csr.key)
    (folder / "ca.crt").write_bytes(ca.certificate)
    named = {}
    for name, pair in pairs.items():
        (folder / f"{name}.crt").write_bytes(pair.certificate)
        (folder / f"{name}.key").write_bytes(pair.key)
        named[name] = {
            "tlsTunnelCAFile": str(folder / "ca.crt"),
            "tlsTunnelCertFile": str(folder / f"{name}.crt"),
            "tlsTunnelPrivateKeyFile": str(folder / f"{name}.key"),
        }
    return named


async def test_the_tunnel_goes_to_a_cloud_that_answers(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", b"over tls")
    named = await certificates(tmp_path, "system:node:n1")
    cloud_net, edge_net, threads = RealNet(), RealNet(), RealThreads()
    probes = [await edge_net.listen(anyio.abc.SocketStream, "127.0.0.1:0") for _ in range(2)]  # type: ignore[arg-type]
    for probe in probes:
        await probe.close()
    first, second = (int(one.address.rpartition(":")[2]) for one in probes)
    servers = {"server": f"127.0.0.1:{first}, 127.0.0.1:{second}", **named["system:node:n1"]}
    async with running(edge_host(edge_net, threads, tmp_path, "n1", single=False, **servers)):
        for port in (second, first):
            cloud = cloud_host(cloud_net, threads, tmp_path, single=False, port=port, **named["cloud"])
            async with running(cloud):
                connector = await connected(cloud, "n1")
                assert await text(connector, "n1", "/containerLogs/default/web/app") == (200, b"over tls\n")
    await threads.close()


async def test_over_tls_a_node_is_who_its_certificate_says(tmp_path: Path) -> None:
    log_file(tmp_path, "n1", b"over tls")
    named = await certificates(tmp_path, "system:node:n1", "kubeedge.io")
    cloud_net, edge_net, threads = RealNet(), RealNet(), RealThreads()
    probe = await edge_net.listen(anyio.abc.SocketStream, "127.0.0.1:0")  # type: ignore[arg-type]
    await probe.close()
    port = int(probe.address.rpartition(":")[2])
    files = named["system:node:n1"]
    async with running(cloud_host(cloud_net, threads, tmp_path, single=False, port=port, **named["cloud"])) as cloud:
        edge = edge_host(edge_net, threads, tmp_path, "n1", single=False, server=f"127.0.0.1:{port}", **files)
        async with running(edge):
            connector = await connected(cloud, "n1")
            assert await text(connector, "n1", "/containerLogs/default/web/app") == (200, b"over tls\n")
            for file, node, status in (
                ("system:node:n1", "n2", 403),
                ("kubeedge.io", "n1", 403),
                ("kubeedge.io", "", 403),
                ("kubeedge.io", "old", 101),
            ):
                context = tls.client_context(
                    ca=tmp_path / "ca.crt", certificate=tmp_path / f"{file}.crt", key=tmp_path / f"{file}.key"
                )
                try:
                    socket = await websocket.connect(
                        edge_net, f"127.0.0.1:{port}", wire.CONNECT_PATH, {wire.NODE_HEADER: node}, tls=context
                    )
                    socket.abort()
                    answered = 101
                except websocket.UpgradeRefused as exc:
                    answered = exc.answer.status
                assert answered == status
            bare = tls.client_context(ca=tmp_path / "ca.crt")
            with pytest.raises(OSError):  # noqa: PT011 - TLS 1.3 tells late, and in several ways
                await websocket.connect(
                    edge_net, f"127.0.0.1:{port}", wire.CONNECT_PATH, {wire.NODE_HEADER: "n1"}, tls=bare
                )
    await threads.close()


async def frames_of(socket: websocket.WebSocket, stream: int) -> bytes:
    """Data of a stream until its removal."""
    data = b""
    with anyio.fail_after(60):
        while True:
            frame = wire.decode((await socket.recv()).data)
            assert frame.stream == stream
            if frame.type == FrameType.REMOVE:
                return data
            assert frame.type == FrameType.DATA
            data += frame.data


async def test_our_edge_serves_a_cloud_of_kubeedge(tmp_path: Path) -> None:
    """The cloud's side is played frame by frame, as recorded from cloudcore."""
    log_file(tmp_path, "n1", b"tick", b"tick")
    net, threads = RealNet(), RealThreads()
    sockets: list[websocket.WebSocket] = []
    from edgesite.net.http import HttpServer, Request

    def take(request: Request) -> None:
        assert request.path == "/v1/kubeedge/connect"
        assert request.headers["sessionhostnameoverride"] == "n1"
        sockets.append(websocket.accept(request))

    async with HttpServer(take) as server:
        await server.listen(net, "mem:cloudstream")
        async with running(edge_host(net, threads, tmp_path, "n1", single=True)):
            with anyio.fail_after(60):
                while not sockets:
                    await checkpoint()
            (cloud,) = sockets

            async def ask(number: int, kind: FrameType, connect: Connect) -> None:
                await cloud.send(wire.encode(number, kind, connect.encode(number)), text=True)

            await ask(1, FrameType.LOGS, Connect("/containerLogs/default/web/app?tailLines=1"))
            assert await frames_of(cloud, 1) == b"tick\n"
            await ask(2, FrameType.METRICS, Connect("/pods", headers={"Accept-Encoding": ["gzip"]}))
            assert json.loads(await frames_of(cloud, 2))["kind"] == "PodList"
            await ask(3, FrameType.EXEC, Connect("/healthz", headers={"Connection": ["close"]}))
            assert (await frames_of(cloud, 3)).startswith(b"HTTP/1.1 200 OK\r\n")
            await ask(4, FrameType.LOGS, Connect("/containerLogs/default/web/app?follow=true&tailLines=1"))
            assert wire.decode((await cloud.recv()).data) == (4, FrameType.DATA, b"tick\n")
            for _ in range(50):  # v1.23.1 repeats it until it is answered
                await cloud.send(wire.encode(4, FrameType.REMOVE), text=True)
            assert await frames_of(cloud, 4) == b""
            await cloud.send(wire.encode(5, 9, b"unknown"), text=True)
            await cloud.send(wire.encode(6, FrameType.LOGS, b"not json"), text=True)
            assert await frames_of(cloud, 6) == b""
            await cloud.send(wire.encode(0, FrameType.CLOSE, b"no such node"), text=True)
            with anyio.fail_after(60), pytest.raises(websocket.SocketClosed):
                await cloud.recv()
    await threads.close()


async def test_our_cloud_asks_an_edge_of_kubeedge_for_raw_answers(tmp_path: Path) -> None:
    """The edge's side is played frame by frame: no windows, small frames, HTTP as it came from the kubelet API."""
    net, threads = RealNet(), RealThreads()
    async with running(cloud_host(net, threads, tmp_path, single=True)) as cloud:
        edge = await websocket.connect(net, "mem:cloudstream", wire.CONNECT_PATH, {wire.NODE_HEADER: "go"})
        connector = await connected(cloud, "go")
        answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone"

        async def serve() -> None:
            frame = wire.decode((await edge.recv()).data)
            assert frame.type == FrameType.EXEC
            connect = Connect.decode(frame.data)
            assert (connect.method, connect.target) == ("GET", "/containerLogs/a/b/c")
            assert connect.headers["Connection"] == ["close"]
            for at in range(0, len(answer), 7):
                await edge.send(wire.encode(frame.stream, FrameType.DATA, answer[at : at + 7]), text=True)
            await edge.send(wire.encode(frame.stream, FrameType.REMOVE), text=True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            assert await text(connector, "go", "/containerLogs/a/b/c") == (404, b"gone")
        edge.abort()
    await threads.close()


@pytest.mark.parametrize("message", [(b"", True), (b"\x01\x03x", False), (b"\xff" * 12, True)])
async def test_a_peer_that_sends_no_frames_loses_its_tunnel(tmp_path: Path, message: tuple[bytes, bool]) -> None:
    net, threads = RealNet(), RealThreads()
    async with running(cloud_host(net, threads, tmp_path, single=True)) as cloud:
        edge = await websocket.connect(net, "mem:cloudstream", wire.CONNECT_PATH, {wire.NODE_HEADER: "bad"})
        await connected(cloud, "bad")
        await edge.send(message[0], text=message[1])
        with anyio.fail_after(60), pytest.raises(websocket.SocketClosed):
            await edge.recv()
        connector = cloud.services.get(NodeConnector)  # type: ignore[type-abstract]
        with pytest.raises(ApiError):
            await connector.open("bad", "GET", "/healthz")
    await threads.close()
