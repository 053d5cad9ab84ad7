"""QUIC beside WebSocket on TLS, as transports of the link: joins, idle connections, bytes.

    python -m benchmarks.quic [--connections 300]

The server is this process, its clients another; both on loopback with mutual TLS 1.3. CPU and memory are the server's.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from edgesite.net import websocket
from edgesite.net.http import HttpServer, Request
from edgesite.net.messagesocket import MessageSocket
from edgesite.net.pki import SERVER, RealPki
from edgesite.net.quic.core import Credentials, configuration
from edgesite.net.quic.framing import Answer, Hello
from edgesite.net.quic.server import QuicLimits, QuicPeer, QuicServer
from edgesite.net.quic.socket import QuicSocket
from edgesite.net.real import RealNet, loop_factory
from edgesite.net.tls import server_context, tune_allocator

FRAME: Final = os.urandom(32 * 1024)
FRAMES: Final = 1500
_CLIENTS: Final = """
import json, sys, anyio
from edgesite.net import websocket
from edgesite.net.quic import client
from edgesite.net.quic.core import Credentials
from edgesite.net.quic.framing import Hello
from edgesite.net.real import RealNet, loop_factory
from edgesite.net.tls import client_context
given = json.loads(sys.stdin.readline())
own = Credentials(*(given[name].encode() for name in ("certificate", "key", "ca")))
async def dial():
    if given["transport"] == "quic":
        return await client.connect(RealNet(), given["address"], Hello("n"), own, max_message_bytes=1 << 20)
    tls = client_context(ca=own.ca, certificate=own.certificate, key=own.key)
    return await websocket.connect(RealNet(), given["address"], "/", tls=tls)
async def read(socket):
    async for _ in socket:
        pass
async def main():
    async with anyio.create_task_group() as tasks:
        for _ in range(given["connections"]):
            tasks.start_soon(read, await dial())
anyio.run(main, backend_options={"loop_factory": loop_factory()})
"""


class Keys:
    def __init__(self, server: Credentials, node: Credentials) -> None:
        self.server, self.node = server, node


async def make_keys() -> Keys:
    from edgesite.net.real import RealClock

    async with RealPki(RealClock()).session() as pki:
        ca = await pki.make_ca("bench", days=1, serial=1)
        server = await pki.issue(ca, "cloud", ips=["127.0.0.1"], usages=SERVER, days=1)
        request = await pki.make_csr("system:node:n", organizations=["system:nodes"])
        node = await pki.sign_csr(ca, request.request, days=1)
    cloud = Credentials(server.certificate, server.key, ca.certificate)
    return Keys(cloud, Credentials(node, request.key, ca.certificate))


@asynccontextmanager
async def quic_server(keys: Keys, take: Callable[[MessageSocket], None]) -> AsyncIterator[str]:
    def greet(socket: QuicSocket, hello: Hello, peer: QuicPeer) -> Answer | None:
        take(socket)
        return None

    made = configuration(keys.server, server_name=None, idle_s=300.0)
    limits = QuicLimits(connections=100_000)
    transport, server = await RealNet().datagrams(
        lambda: QuicServer(
            made, greet, limits=limits, reset_key=b"k", random_bytes=os.urandom, log=logging.getLogger("bench")
        ),
        local="127.0.0.1:0",
    )
    try:
        yield f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    finally:
        server.close()


@asynccontextmanager
async def websocket_server(keys: Keys, take: Callable[[MessageSocket], None]) -> AsyncIterator[str]:
    def handle(request: Request) -> None:
        take(websocket.accept(request))

    own = keys.server
    tls = server_context(own.certificate, own.key, client_ca=own.ca, require_client=True)
    async with HttpServer(handle) as server:
        listener = await server.listen(RealNet(), "127.0.0.1:0", tls=tls)
        yield listener.address


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(transport: str, keys: Keys, connections: int) -> dict[str, float]:
    """Figures of the server: CPU of a join, memory of a connection, bytes to one client."""
    sockets: list[MessageSocket] = []
    serve = quic_server if transport == "quic" else websocket_server
    async with serve(keys, sockets.append) as address:
        with clients(transport, address, keys, 10):
            await reach(sockets, 10)  # what is needed once
        await anyio.sleep(0.3)
        sockets.clear()
        memory, cpu, began = rss_bytes(), cpu_s(), time.perf_counter()
        with clients(transport, address, keys, connections):
            await reach(sockets, connections)
            joined = {"join_cpu_ms": (cpu_s() - cpu) / connections * 1e3}
            joined["join_ms"] = (time.perf_counter() - began) / connections * 1e3
            await anyio.sleep(1.0)
            memory = rss_bytes() - memory
            socket = sockets[0]
            cpu, began = cpu_s(), time.perf_counter()
            await send_all(socket)
            size = FRAMES * len(FRAME) / 1e6
            return joined | {
                "memory_kb": memory / connections / 1e3,
                "mb_per_cpu_s": size / (cpu_s() - cpu),
                "mb_per_s": size / (time.perf_counter() - began),
            }


async def send_all(socket: MessageSocket) -> None:
    """As the link does: until the peer is behind, then when it is not. Waiting costs nothing that would count."""
    drained = anyio.Event()
    lane = socket.lanes - 1

    def on_drain() -> None:
        drained.set()

    socket.on_drain = on_drain
    for _ in range(FRAMES):
        socket.send_nowait(FRAME, lane=lane)
        while socket.is_behind(lane):
            drained = anyio.Event()
            await drained.wait()
    while socket.buffered_bytes:  # noqa: ASYNC110
        await anyio.sleep(0.05)


class clients:
    """The other process."""

    def __init__(self, transport: str, address: str, keys: Keys, connections: int) -> None:
        self._given: dict[str, Any] = {"transport": transport, "address": address, "connections": connections}
        self._given |= {name: getattr(keys.node, name).decode() for name in ("certificate", "key", "ca")}

    def __enter__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", _CLIENTS], stdin=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._given) + "\n")
        self._process.stdin.flush()

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait(10)
        if self._process.stdin is not None:
            self._process.stdin.close()


async def reach(sockets: list[MessageSocket], count: int) -> None:
    with anyio.fail_after(120):
        while len(sockets) < count:  # noqa: ASYNC110
            await anyio.sleep(0.005)


async def run(connections: int) -> None:
    keys = await make_keys()
    found = {name: await measure(name, keys, connections) for name in ("websocket", "quic")}
    print(f"{'the server, for each connection':<44}{'websocket':>12}{'quic':>12}{'ratio':>8}")
    for name, what in (
        ("join_cpu_ms", "join: CPU, ms"),
        ("join_ms", "join: time of one after the other, ms"),
        ("memory_kb", "idle: memory, kB"),
        ("mb_per_cpu_s", "bulk: MB per CPU second"),
        ("mb_per_s", "bulk: MB/s"),
    ):
        one, other = found["websocket"][name], found["quic"][name]
        print(f"{what:<44}{one:>12.2f}{other:>12.2f}{other / one:>8.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=300)
    tune_allocator()
    anyio.run(run, parser.parse_args().connections, backend_options={"loop_factory": loop_factory()})
