"""Streams into host processes through the kubelet API: every version of the protocols, bad clients, and whoever leaves first."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import signal
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest
from process_site import Site, process_runtime, site_of

from edgesite.edge.edged.runtime import RuntimeFault
from edgesite.edge.edged.server.streaming import Streaming
from edgesite.edge.edged.streams import StreamAddress, StreamOptions
from edgesite.kube.errors import ApiError, internal
from edgesite.net import spdy, websocket
from edgesite.net.client import UpgradeRefused
from edgesite.net.errors import ClosedByPeer
from edgesite.net.http import HttpServer, Request, Response
from edgesite.net.real import RealClock, RealNet
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
API = "mem:kubelet"
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"


class Source:
    """Finds containers by their id."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], options: StreamOptions
    ) -> StreamAddress:
        try:
            return await self._site.runtime.exec(container, command, options)
        except RuntimeFault as exc:
            raise internal(str(exc)) from exc

    async def attach(self, namespace: str, pod: str, container: str, options: StreamOptions) -> StreamAddress:
        return await self._site.runtime.attach(container, options)

    async def port_forward(self, namespace: str, pod: str, ports: Sequence[int]) -> StreamAddress:
        return await self._site.runtime.port_forward(self._site.sandbox_id, ports)


class Kubelet:
    """The streaming part of a kubelet API, with one container."""

    def __init__(self, site: Site, net: RealNet, container: str) -> None:
        self.site, self.net, self.container = site, net, container

    def target(self, *command: str, attach: str = "", **options: Any) -> str:
        query = [(name, "1") for name, wanted in options.items() if wanted]
        if attach:
            return f"/attach/default/web/{attach}?{urlencode(query)}"
        return f"/exec/default/web/{self.container}?{urlencode([*query, *(('command', one) for one in command)])}"

    async def socket(self, target: str, *protocols: str) -> websocket.WebSocket:
        return await websocket.connect(self.net, API, target, subprotocols=protocols)

    async def run(self, protocol: str, *command: str, stdin: Sequence[bytes] = ()) -> tuple[bytes, bytes, bytes]:
        """Run a command over WebSocket; what came on stdout, stderr and error."""
        options = {"input": bool(stdin), "output": True, "error": True}
        socket = await self.socket(self.target(*command, **options), *([protocol] if protocol else []))
        assert socket.subprotocol == protocol
        for one in stdin:
            await socket.send(one)
        return await drain(socket)


async def drain(socket: websocket.WebSocket) -> tuple[bytes, bytes, bytes]:
    """All that comes on channels 1 to 3, to a proper end."""
    out = {1: b"", 2: b"", 3: b""}
    async for message in socket:
        if message.text:
            out[message.data[0] - ord("0")] += base64.b64decode(message.data[1:])
        else:
            out[message.data[0]] += message.data[1:]
    assert socket.closed is not None
    assert socket.closed.code == 1000
    return out[1], out[2], out[3]


@asynccontextmanager
async def kubelet_in(folder: Path, *, idle_s: float = 600.0, **more: Any) -> AsyncGenerator[Kubelet]:
    net = RealNet()
    async with process_runtime(folder / "process", net) as runtime, site_of(runtime, folder) as site:
        container = await site.begin(more.pop("script", "sleep 1000"), **more)
        streaming = Streaming(lambda: Source(site), net, RealClock(), log(), idle_s)  # type: ignore[arg-type, return-value]

        async def handle(request: Request) -> Response | None:
            serve = streaming.find(request.path.strip("/").split("/"))
            assert serve is not None
            try:
                return await serve(request)
            except ApiError as exc:
                return Response(exc.code, None, exc.message.encode())

        async with HttpServer(handle) as server:
            await server.listen(net, API)
            yield Kubelet(site, net, container)


def log() -> Any:
    import logging

    return logging.getLogger("test")


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncGenerator[Kubelet]:
    async with kubelet_in(tmp_path) as made:
        yield made


@pytest.mark.parametrize("protocol", [V5, V4])
async def test_newer_versions_tell_the_end_as_a_status(kubelet: Kubelet, protocol: str) -> None:
    out, err, status = await kubelet.run(protocol, "sh", "-c", "echo out; echo err >&2")
    assert (out, err, json.loads(status)["status"]) == (b"out\n", b"err\n", "Success")
    _, _, status = await kubelet.run(protocol, "sh", "-c", "exit 9")
    told = json.loads(status)
    assert (told["reason"], told["details"]["causes"]) == ("NonZeroExitCode", [{"reason": "ExitCode", "message": "9"}])
    _, _, status = await kubelet.run(protocol, "/no/such/program")
    assert "/no/such/program" in json.loads(status)["message"]


@pytest.mark.parametrize("protocol", ["channel.k8s.io", "base64.channel.k8s.io", ""])
async def test_older_versions_tell_the_end_in_words(kubelet: Kubelet, protocol: str) -> None:
    assert await kubelet.run(protocol, "echo", "hello") == (b"hello\n", b"", b"")
    _, _, said = await kubelet.run(protocol, "sh", "-c", "exit 9")
    assert b"non-zero exit code" in said


async def test_stdin_in_base64(kubelet: Kubelet) -> None:
    stdin = [b"0" + base64.b64encode(b"one\n"), b"0!", b"0" + base64.b64encode(b"two\n")]
    out, _, _ = await kubelet.run("v4.base64.channel.k8s.io", "head", "-n", "2", stdin=stdin)
    assert out == b"one\ntwo\n"


async def test_stdin_ends_with_version_5(kubelet: Kubelet) -> None:
    out, _, _ = await kubelet.run(V5, "wc", "-c", stdin=[b"\0abc", b"\0", b"", b"\7what", b"\xff", b"\xff\0"])
    assert out.strip() == b"3"


async def test_a_slow_reader_holds_the_command_up_and_loses_nothing(kubelet: Kubelet) -> None:
    target = kubelet.target(
        "sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x; echo over >&2", output=True, error=True
    )
    socket = await kubelet.socket(target, V5)
    socket.pause()
    await anyio.wait_all_tasks_blocked()
    socket.resume()
    out, err, _ = await drain(socket)
    assert (len(out), set(out), err) == (30_000_000, {ord("x")}, b"over\n")


async def test_spdy_both_ways(kubelet: Kubelet) -> None:
    data = random.Random(1).randbytes(5 << 20)
    connection = await spdy.connect(kubelet.net, API, kubelet.target("sha256sum", input=True, output=True), V4)
    error = await connection.open({"streamType": "error"})
    stdin = await connection.open({"streamType": "stdin"})
    stdout = await connection.open({"streamType": "stdout"})
    for at in range(0, len(data), 100_000):
        await stdin.send(data[at : at + 100_000])
    stdin.end()
    out = b""
    while piece := await stdout.receive():
        out += piece
    assert out.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert json.loads(await error.receive())["status"] == "Success"
    connection.close()
    await connection.wait_ended()


async def test_a_terminal(kubelet: Kubelet) -> None:
    target = kubelet.target("sh", "-c", "read x; stty size; exit 4", input=True, output=True, tty=True)
    socket = await kubelet.socket(target, V5)
    await socket.send(b'\4{"Width":44,"Height":11}\n')
    await socket.send(b"\4junk}")
    await socket.send(b"\0go\r")
    out, err, status = await drain(socket)
    assert b"11 44" in out
    assert (err, json.loads(status)["details"]["causes"][0]["message"]) == (b"", "4")


async def test_refusals(kubelet: Kubelet) -> None:
    async def refused(target: str, *protocols: str) -> int:
        with pytest.raises(UpgradeRefused) as caught:
            await kubelet.socket(target, *protocols)
        return caught.value.answer.status

    assert await refused(kubelet.target("true"), V5) == 400  # no stream
    assert await refused(kubelet.target(output=True), V5) == 400  # no command
    assert await refused(kubelet.target("true", output=True), "v9.channel.k8s.io") == 403
    assert await refused(f"/exec/default/web/{'0' * 64}?output=1&command=true", V5) == 500
    assert await refused("/portForward/default/web?port=0", V4) == 400
    assert await refused("/portForward/default/web", V4) == 400
    with pytest.raises(UpgradeRefused):
        await spdy.connect(kubelet.net, API, kubelet.target("true", output=True), "v1.nonsense")


async def test_a_client_that_leaves_hangs_up_the_terminal(kubelet: Kubelet, tmp_path: Path) -> None:
    script = f"trap 'echo > {tmp_path}/hung' HUP; echo ready; while :; do sleep 0.05; done"
    socket = await kubelet.socket(kubelet.target("sh", "-c", script, input=True, output=True, tty=True), V5)
    while b"ready" not in (await socket.recv()).data:
        pass
    socket.abort()

    async def hung() -> bool:
        return (tmp_path / "hung").exists()

    await until(hung)


async def test_nothing_for_long_ends_a_stream(tmp_path: Path) -> None:
    async with kubelet_in(tmp_path, idle_s=0.2) as kubelet:
        socket = await kubelet.socket(kubelet.target("sleep", "1000", output=True), V5)
        with anyio.fail_after(60):
            async for message in socket:
                assert message.data == b"\1"
        connection = await spdy.connect(kubelet.net, API, kubelet.target("sleep", "1000", output=True), V4)
        with anyio.fail_after(60):
            await connection.wait_ended()


async def test_a_supervisor_that_dies_is_told(kubelet: Kubelet, tmp_path: Path) -> None:
    socket = await kubelet.socket(kubelet.target("sleep", "1000", output=True), V5)
    await socket.recv()
    (pid,) = supervisors(tmp_path)
    os.kill(pid, signal.SIGKILL)
    with anyio.fail_after(60):
        _, _, status = await drain(socket)
    assert json.loads(status)["reason"] == "InternalError"

    async def another() -> bool:
        return (await kubelet.run(V5, "echo", "again"))[0] == b"again\n"

    await until(another)


def supervisors(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"supervisor.py" in command and f"{folder}/".encode() in command:
                found.append(int(entry.name))
    return found


async def test_attaching(tmp_path: Path) -> None:
    script = "while read x; do echo got $x; done; echo bye >&2; exit 5"
    async with kubelet_in(tmp_path, script=script, stdin=True, stdin_once=True) as kubelet:
        watching = await kubelet.socket(kubelet.target(attach=kubelet.container, output=True, error=True), V5)
        await watching.recv()
        talking = await kubelet.socket(
            kubelet.target(attach=kubelet.container, input=True, output=True, error=True), V5
        )
        await talking.send(b"\0one\n")
        for socket in (watching, talking):
            while (await socket.recv()).data != b"\1got one\n":
                pass
        await talking.send(b"\xff\0")
        for socket in (watching, talking):
            _, err, status = await drain(socket)
            assert (err, json.loads(status)["status"]) == (b"bye\n", "Success")


async def test_attaching_to_a_terminal(tmp_path: Path) -> None:
    async with kubelet_in(tmp_path, script="read x; stty size; sleep 1000", stdin=True, tty=True) as kubelet:
        target = kubelet.target(attach=kubelet.container, input=True, output=True, tty=True)
        socket = await kubelet.socket(target, V5)
        await socket.send(b'\4{"Width":40,"Height":20}')
        await socket.send(b"\0x\r")
        seen = b""
        with anyio.fail_after(60):
            while b"20 40" not in seen:
                seen += (await socket.recv()).data[1:]
        await socket.close()
        status = await kubelet.site.runtime.container_status(kubelet.container)
        assert "20 40" in kubelet.site.output(status)  # the log has it too


async def test_ports_over_websocket(kubelet: Kubelet) -> None:
    async def echo(stream: Any) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        socket = await kubelet.socket(f"/portForward/default/web?port={port}&port=1", V4)
        heads = [(await socket.recv()).data for _ in range(4)]
        assert heads == [struct.pack("<BH", channel, port if channel < 2 else 1) for channel in range(4)]
        refused = (await socket.recv()).data
        assert refused[0] == 3
        assert b"port 1" in refused
        await socket.send(b"\0hello")
        assert (await socket.recv()).data == b"\0hello"
        await socket.close()
        tasks.cancel_scope.cancel()
    await listener.aclose()


async def test_streams_that_go_unused(kubelet: Kubelet) -> None:
    where = await kubelet.site.runtime.exec(kubelet.container, ("true",), StreamOptions(stdout=True))
    first = await spdy.connect(kubelet.net, where.address, where.target, V4)
    with pytest.raises(UpgradeRefused):  # a token is good once
        await spdy.connect(kubelet.net, where.address, where.target, V4)
    first.abort()
    await first.wait_ended()
    with pytest.raises(ClosedByPeer):
        await first.open({"streamType": "error"})
