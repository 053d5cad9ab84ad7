"""API server over TLS: GET against a bare handler, durable creates, LIST against the same bytes, one write to many watchers.

    python benchmarks/apiserver.py [--requests 8000] [--objects 5000] [--watchers 1000] [--dir DIR]

The server runs in this process and only its CPU time is counted; clients run in processes of their own. Prints the figures of this
run and their ratios. DIR should be on the disk that is to be measured (default: the current folder).
"""

from __future__ import annotations

import argparse
import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from edgesite.apiserver.assembly import Assembly, assemble, serve_kinds
from edgesite.apiserver.authn import User
from edgesite.apiserver.bootstrap import bootstrap
from edgesite.apiserver.selection import indexer
from edgesite.apiserver.transport import InProcessTransport
from edgesite.apiserver.views import Views
from edgesite.kube import json, schema
from edgesite.net.http import Handler, HttpServer, Response
from edgesite.net.pki import CLIENT, RealPki
from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads, loop_factory
from edgesite.net.tls import server_context, tune_allocator
from edgesite.store import Store

CMS = "/api/v1/namespaces/default/configmaps"
HEADERS = b"cache-control: no-cache, private\r\ncontent-type: application/json\r\n"
USER = User("bench", ("system:masters", "system:authenticated"))
#: A client: connections of one process that send requests one after the other, or read a watch until enough events came.
CLIENT_PROGRAM = """
import asyncio, ssl, sys
mode, port, ca, cert, path, connections, count = sys.argv[1:8]
tls = ssl.create_default_context(cafile=ca); tls.load_cert_chain(cert)
head = "Host: localhost\\r\\nAccept: application/json\\r\\nUser-Agent: bench/1\\r\\n"

async def body(reader):
    lines = (await reader.readuntil(b"\\r\\n\\r\\n")).decode().lower()
    assert " 200 " in lines or " 201 " in lines, lines
    await reader.readexactly(int(lines.split("content-length: ")[1].split("\\r\\n")[0]))

async def one(number):
    reader, writer = await asyncio.open_connection("localhost", int(port), ssl=tls, limit=1 << 26)
    for turn in range(int(count)):
        if mode == "get":
            writer.write(f"GET {path} HTTP/1.1\\r\\n{head}\\r\\n".encode())
        elif mode == "create":
            data = ('{"metadata":{"name":"b%s-%s-%s"},"data":{"k":"%s"}}' % (connections, number, turn, "x" * 1800)).encode()
            writer.write(f"POST {path} HTTP/1.1\\r\\n{head}Content-Type: application/json\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n".encode() + data)
        await body(reader)
    writer.close()

async def watch():
    reader, writer = await asyncio.open_connection("localhost", int(port), ssl=tls)
    writer.write(f"GET {path} HTTP/1.1\\r\\n{head}\\r\\n".encode())
    seen = 0
    while seen < int(count):
        seen += (await reader.read(1 << 16)).count(b'"MODIFIED"')
    writer.close()

async def main():
    await asyncio.gather(*(watch() if mode == "watch" else one(n) for n in range(int(connections))))

asyncio.run(main())
"""


@dataclass
class Bench:
    made: Assembly
    folder: Path
    transport: InProcessTransport
    tls: ssl.SSLContext

    async def client(self, port: int, mode: str, path: str, connections: int, count: int) -> tuple[float, float]:
        """Run a client; return CPU and wall seconds that passed here meanwhile."""
        ca, cert = self.folder / "ca.crt", self.folder / "client.pem"
        arguments = [mode, str(port), str(ca), str(cert), path, str(connections), str(count)]
        cpu, wall = time.process_time(), time.perf_counter()
        await anyio.run_process([sys.executable, "-c", CLIENT_PROGRAM, *arguments], stderr=subprocess.STDOUT)
        return time.process_time() - cpu, time.perf_counter() - wall

    async def post(self, path: str, body: bytes) -> bytes:
        status, _, answer = await self.transport.request("POST", path, {"content-type": "application/json"}, body)
        assert status == 201, answer
        return answer


@asynccontextmanager
async def bench_at(folder: Path) -> AsyncIterator[Bench]:
    clock, threads = RealClock(), RealThreads()
    schemas = schema.load()
    kinds = serve_kinds(schemas)
    async with RealPki(clock).session() as pki:
        ca = await pki.make_ca("bench")
        server = await pki.issue(ca, "localhost", dns_names=["localhost"], ips=["127.0.0.1"])
        client = await pki.issue(ca, "bench", organizations=["system:masters"], usages=CLIENT)
    (folder / "ca.crt").write_bytes(ca.certificate)
    (folder / "client.pem").write_bytes(client.certificate + client.key)
    tls = server_context(server.certificate, server.key, client_ca=ca.certificate)
    store = await Store.open(folder / "state.db", clock=clock, threads=threads, disk=RealDisk(), index=indexer(kinds))
    async with store:
        made = assemble(store, kinds, schemas, clock=clock, random=random.Random(1), threads=threads, version="bench")
        await bootstrap(made.registry, service_ip="10.96.0.1", address="127.0.0.1", port=6443)
        yield Bench(made, folder, InProcessTransport(made.server, USER), tls)


@asynccontextmanager
async def serving(bench: Bench, handler: Handler) -> AsyncIterator[int]:
    async with HttpServer(handler, clock=RealClock()) as server:
        listener = await server.listen(RealNet(), "localhost:0", tls=bench.tls)
        yield int(listener.address.rpartition(":")[2])


async def reads(bench: Bench, port: int, requests: int) -> None:
    made = await bench.post(CMS, json.dumps({"metadata": {"name": "one"}, "data": {"k": "x" * 1800}}))
    async with serving(bench, lambda request: Response(200, HEADERS, made)) as bare:
        best: dict[str, float] = {}
        for _ in range(3):
            for name, at in (("api", port), ("bare", bare)):
                cpu, _ = await bench.client(at, "get", f"{CMS}/one", 8, requests // 8)
                best[name] = min(best.get(name, 1e9), cpu / requests)
    share = best["bare"] / best["api"]
    print(
        f"GET of {len(made)} B: {best['api'] * 1e6:.1f} µs CPU; bare handler {best['bare'] * 1e6:.1f} µs; ratio {share:.2f} (want 0.60)"
    )


async def creates(bench: Bench, port: int, requests: int) -> None:
    rates: dict[int, float] = {}
    for connections in (1, 32):
        count = requests // (8 if connections == 1 else 32) // 2
        cpu, wall = await bench.client(port, "create", CMS, connections, count)
        rates[connections] = connections * count / wall
        cost = cpu / connections / count
        print(
            f"durable creates from {connections} connections: {rates[connections]:.0f}/s, {cost * 1e6:.0f} µs CPU each"
        )
    print(f"32 connections against 1: {rates[32] / rates[1]:.1f} × (want 5; a client of one core is part of it)")


async def lists(bench: Bench, port: int, objects: int) -> None:
    await bench.post("/api/v1/namespaces", b'{"metadata":{"name":"many"}}')
    many = CMS.replace("default", "many")
    async with anyio.create_task_group() as tasks:
        for number in range(objects):
            body = json.dumps({"metadata": {"name": f"c{number}"}, "data": {"k": "x" * 1800}})
            tasks.start_soon(bench.post, many, body)
    whole = (await bench.transport.request("GET", many, {}))[2]
    async with serving(bench, lambda request: Response(200, HEADERS, whole)) as bare:
        api = min([(await bench.client(port, "get", many, 1, 5))[0] / 5 for _ in range(3)])
        same = min([(await bench.client(bare, "get", many, 1, 5))[0] / 5 for _ in range(3)])
    print(
        f"LIST of {objects} ({len(whole) >> 20} MiB): {api * 1e3:.1f} ms CPU; the same bytes {same * 1e3:.1f} ms; ratio {api / same:.2f} (want ≤ 3)"
    )


async def fan_out(bench: Bench, port: int, watchers: int) -> None:
    events, made = 20, bench.made
    encoded = 0
    made.watches.views = Views(RealClock())  # its own, so that answers to the writes are not counted
    plain = made.watches.views.object

    def counted(*arguments: object) -> bytes:
        nonlocal encoded
        encoded += 1
        return plain(*arguments)  # type: ignore[arg-type]

    made.watches.views.object = counted  # type: ignore[method-assign]
    spent = [0.0, 0.0]

    async def read() -> None:
        path = f"{CMS}?watch=true&resourceVersion={made.registry.store.revision}"
        await bench.client(port, "watch", path, watchers, events)
        spent[1] = time.process_time()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        while len(made.watches) < watchers:  # noqa: ASYNC110 - the server does not announce its watchers
            await anyio.sleep(0.05)
        spent[0] = time.process_time()
        for number in range(events):
            body = json.dumps({"data": {"n": str(number)}})
            await bench.transport.request("PATCH", f"{CMS}/one", {"content-type": "application/merge-patch+json"}, body)
    cost = (spent[1] - spent[0]) / watchers / events
    print(f"{events} writes to {watchers} watchers: {encoded} encodings; {cost * 1e6:.1f} µs CPU a delivery over TLS")


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        async with bench_at(Path(folder)) as bench, serving(bench, bench.made.server.handle) as port:
            await reads(bench, port, options.requests)
            await creates(bench, port, options.requests)
            await lists(bench, port, options.objects)
            await fan_out(bench, port, options.watchers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--dir", default=".")
    tune_allocator()
    anyio.run(main, parser.parse_args(), backend_options={"loop_factory": loop_factory()})
