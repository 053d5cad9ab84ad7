"""The edge's end of a stream tunnel as KubeEdge's edgestream has it, played frame by frame: no windows, frames of 256 bytes, raw
HTTP between the tunnel and a kubelet API, removal told by each side. Modelled on recorded sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import ByteStream, TaskGroup
from link_site import Site

from edgesite.net import tls, websocket
from edgesite.net.pki import KeyPair
from edgesite.testing.waiting import DEADLINE_S
from edgesite.wire import tunnel as wire
from edgesite.wire.tunnel import Connect, FrameType

CHUNK = 256
LOG = b"one\ntwo\n"


class Kubelet:
    """What listens on a Go edge's 10350, told by its answers: close-delimited bodies, an upgrade that echoes."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.requests: list[str] = []

    async def serve(self, stream: ByteStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        line, *headers = head.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        self.requests.append(line)
        method, target, _ = line.split(" ")
        path = target.partition("?")[0]
        if path.startswith(("/exec/", "/attach/", "/portForward/")):
            protocol = next(one.partition(": ")[2] for one in headers if one.lower().startswith("upgrade:"))
            answer = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            await stream.send(answer.encode() + f"{method} {path}\n".encode())
            async for piece in stream:
                await stream.send(piece)
                if piece.endswith(b"bye"):
                    return
        elif path == "/containerLogs/default/web/gone":
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone")
        elif path.startswith("/containerLogs/"):
            await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n")
            await stream.send(b"%x\r\n%b\r\n" % (len(LOG), LOG))
            if "follow=true" not in target:
                await stream.send(b"0\r\n\r\n")
            else:
                await stream.receive()  # until the caller leaves
        else:
            body = self.node.encode()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class GoTunnel:
    """Serves what the cloud opens; ``frames`` are the types of what came, in order, by stream."""

    def __init__(self, socket: websocket.WebSocket, kubelet: Kubelet, tasks: TaskGroup) -> None:
        self.socket = socket
        self.kubelet = kubelet
        self.frames: dict[int, list[int]] = {}
        self._tasks = tasks
        self._ends: dict[int, ByteStream] = {}

    async def run(self) -> None:
        async for message in self.socket:
            assert message.text, "the Go edge ends a tunnel on which anything but text comes"
            frame = wire.decode(message.data)
            self.frames.setdefault(frame.stream, []).append(frame.type)
            if frame.type in (FrameType.LOGS, FrameType.EXEC, FrameType.METRICS):
                connect = Connect.decode(frame.data)
                await self._open(frame.stream, connect)
            elif frame.type == FrameType.DATA:
                assert len(frame.data) <= wire.MESSAGE_BYTES
                if frame.stream in self._ends:
                    await self._ends[frame.stream].send(frame.data)
            elif frame.type == FrameType.REMOVE:
                await self._remove(frame.stream)
            else:
                raise AssertionError(f"a Go edge of v1.12 does not know frame type {frame.type}")

    async def _open(self, number: int, connect: Connect) -> None:
        """The Go edge dials its kubelet and writes the request; then bytes pass."""
        near, far = _pair()
        self._ends[number] = near
        self._tasks.start_soon(self._serve, far)
        self._tasks.start_soon(self._pass, number, near)
        lines = [f"{connect.method} {connect.target} HTTP/1.1", "Host: 127.0.0.1:10350"]
        lines += [f"{name}: {value}" for name, values in connect.headers.items() for value in values]
        await near.send("\r\n".join([*lines, "", ""]).encode())

    async def _serve(self, stream: ByteStream) -> None:
        async with stream:
            try:
                await self.kubelet.serve(stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def _pass(self, number: int, near: ByteStream) -> None:
        try:
            async for piece in near:
                for at in range(0, len(piece), CHUNK):
                    await self._say(number, FrameType.DATA, piece[at : at + CHUNK])
        except anyio.ClosedResourceError:
            return  # removed by the cloud, which has been answered
        await self._remove(number)

    async def _remove(self, number: int) -> None:
        if (end := self._ends.pop(number, None)) is not None:
            await end.aclose()
            await self._say(number, FrameType.REMOVE)

    async def _say(self, number: int, kind: FrameType, data: bytes = b"") -> None:
        await self.socket.send(wire.encode(number, kind, data), text=True)


def _pair() -> tuple[ByteStream, ByteStream]:
    from anyio.streams.stapled import StapledObjectStream

    there, here = anyio.create_memory_object_stream[bytes](64), anyio.create_memory_object_stream[bytes](64)
    return (
        StapledObjectStream(there[0], here[1]),  # type: ignore[return-value]
        StapledObjectStream(here[0], there[1]),  # type: ignore[return-value]
    )


@asynccontextmanager
async def go_tunnel(site: Site, node: str, pair: KeyPair, port: int, *, ip: str = "") -> AsyncIterator[GoTunnel]:
    """Dial the tunnel port as a Go edge does: the server is not verified."""
    context = tls.client_context(verify=False, certificate=pair.certificate, key=pair.key)
    headers = {"SessionHostNameOverride": node, "SessionInternalIP": ip or "192.0.2.1"}
    with anyio.fail_after(DEADLINE_S):
        while True:
            try:
                socket = await websocket.connect(
                    site.world.net, f"127.0.0.1:{port}", "/v1/kubeedge/connect", headers, tls=context
                )
                break
            except ConnectionRefusedError:
                await anyio.sleep(0.02)  # the port opens once there are certificates
    async with anyio.create_task_group() as tasks:
        tunnel = GoTunnel(socket, Kubelet(node), tasks)
        tasks.start_soon(tunnel.run)
        yield tunnel
        tasks.cancel_scope.cancel()
    socket.abort()
