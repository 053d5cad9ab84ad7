"""What the HTTP server, WebSocket and TLS of edgesite/net cost: CPU time a request, memory a connection.

    python -m benchmarks.net [--requests N] [--connections N]

The server runs in a process of its own, and its CPU time alone is counted. "bare" is a protocol on httptools that parses the
request and writes the same bytes, with no handler: what is left to be had.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import resource
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import httptools

from edgesite.net import tls, websocket
from edgesite.net.http import Frame, HttpServer, Request, Response
from edgesite.net.pki import KeyPair, RealPki
from edgesite.net.real import RealClock, RealNet, loop_factory

BODY = b'{"kind":"ConfigMap","data":{"text":"' + b"x" * 2000 + b'"}}'
TYPE = b"content-type: application/json\r\n"
GET = (
    b"GET /api/v1/namespaces/default/configmaps/one HTTP/1.1\r\nHost: 127.0.0.1:6443\r\n"
    b"User-Agent: kubectl/v1.32.4\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
)
CLIENTS = 16


@dataclass(frozen=True)
class Plan:
    kind: str  #: what the server serves: bare, plain, task, watch, websocket
    certificate: KeyPair | None
    ca: bytes
    count: int  #: requests in all, or connections


class Bare(asyncio.Protocol):
    """Parses, and writes the same bytes."""

    answer = b"HTTP/1.1 200 OK\r\n" + TYPE + b"content-length: %d\r\n\r\n" % len(BODY) + BODY

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        pass

    def on_header(self, name: bytes, value: bytes) -> None:
        pass

    def on_message_complete(self) -> None:
        self.transport.write(self.answer)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)


class Asker(asyncio.Protocol):
    """Sends a request when the answer to the one before is there."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(GET)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b'"}}'):
            self.left -= 1
            if self.left:
                self.transport.write(GET)
            else:
                self.done.set_result(None)


def resident_kb() -> float:
    gc.collect()
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


async def serve(plan: Plan, pipe: Connection) -> None:
    """Serve until told to stop; report CPU seconds and memory between the two marks."""
    tls.tune_allocator()
    kept: list[Any] = []

    async def later(request: Request) -> Response:
        return Response(200, TYPE, BODY)

    def handle(request: Request) -> Any:
        if plan.kind == "watch":
            kept.append(request.open_stream(200, TYPE))
            return None
        if plan.kind == "websocket":
            socket = websocket.accept(request)
            socket.deliver_to(lambda message: socket.send_nowait(message.data, text=message.text))
            kept.append(socket)
            return None
        return later(request) if plan.kind == "task" else Response(200, TYPE, BODY)

    context = tls.server_context(plan.certificate.certificate, plan.certificate.key) if plan.certificate else None
    loop, net = asyncio.get_running_loop(), RealNet()
    async with HttpServer(handle, clock=RealClock()) as server:
        factory: Callable[[], asyncio.BaseProtocol] = Bare if plan.kind == "bare" else server.protocol_factory
        listener = await net.listen(factory, "127.0.0.1:0", tls=context)
        pipe.send(listener.address)
        memory, cpu = resident_kb(), time.process_time()
        while (mark := await loop.run_in_executor(None, pipe.recv)) != "stop":
            if mark == "deliver":
                for _ in range(20):
                    frame = Frame(BODY)
                    for writer in kept:
                        writer.write_nowait(frame)
                    await asyncio.sleep(0.05)
            pipe.send((time.process_time() - cpu, resident_kb() - memory))
            cpu = time.process_time()
        await listener.close()


async def ask(plan: Plan, address: str, pipe: Connection) -> str:
    """Put the load on; return the line to print."""
    net = RealNet()
    context: ssl.SSLContext | None = tls.client_context(ca=plan.ca) if plan.certificate else None
    loop = asyncio.get_running_loop()

    async def mark(name: str) -> tuple[float, float]:
        pipe.send(name)
        measured: tuple[float, float] = await loop.run_in_executor(None, pipe.recv)
        return measured

    if plan.kind == "watch":
        for _ in range(plan.count):
            _, asker = await net.connect(lambda: Asker(10**9), address, tls=context)
            asker.data_received = lambda data: None  # type: ignore[method-assign]
        await asyncio.sleep(0.3)
        _, memory = await mark("connected")
        cpu, _ = await mark("deliver")
        return f"{memory / plan.count:8.1f} KB a connection {cpu / plan.count / 20 * 1e6:8.1f} us a delivery of 2 KB"
    if plan.kind == "websocket":
        sockets = [await websocket.connect(net, address, "/", tls=context) for _ in range(plan.count)]
        _, memory = await mark("connected")
        for _ in range(20):
            for socket in sockets:
                await socket.send(b"x" * 300, text=True)
            for socket in sockets:
                await socket.recv()
        cpu, _ = await mark("echoed")
        return f"{memory / plan.count:8.1f} KB a connection {cpu / plan.count / 20 * 1e6:8.1f} us an echo of 300 bytes"
    askers = [await net.connect(lambda: Asker(plan.count // CLIENTS), address, tls=context) for _ in range(CLIENTS)]
    await asyncio.gather(*(asker.done for _, asker in askers))
    cpu, _ = await mark("asked")
    return f"{cpu / plan.count * 1e6:8.1f} us of CPU a GET of 2 KB"


def run(plan: Plan) -> str:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(
        target=lambda: asyncio.Runner(loop_factory=loop_factory()).run(serve(plan, there)), daemon=True
    )
    process.start()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(ask(plan, here.recv(), here))
    finally:
        here.send("stop")
        process.join(5)
        process.kill()


async def certificates() -> tuple[KeyPair, bytes]:
    async with RealPki(RealClock()).session() as pki:
        ca = await pki.make_ca("benchmark")
        return await pki.issue(ca, "benchmark", ips=["127.0.0.1"]), ca.certificate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=32_000)
    parser.add_argument("--connections", type=int, default=1000)
    arguments = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, arguments.connections * 2 + 100), most))
    pair, ca = asyncio.run(certificates())
    for secure in (False, True):
        for kind in ("bare", "plain", "task", "watch", "websocket"):
            count = arguments.connections if kind in ("watch", "websocket") else arguments.requests
            plan = Plan(kind, pair if secure else None, ca, count)
            print(f"{'TLS' if secure else 'TCP'} {kind:10}{run(plan)}", flush=True)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
