"""The cloud-edge link: CloudHub with hollow edge nodes over TLS on loopback, and the whole cloud role under ``edgesite edgemark``.

    python -m benchmarks.hub [--quick]

The first part is the hub alone in this process, its nodes in another: deliveries with acknowledgements, CPU of this process. The
second is edgemark's own figures: API, store and controllers included, in a process of its own; all share the machine's cores.
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import logging
import random
import resource
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.lowlevel
from prometheus_client import CollectorRegistry

from benchmarks import rig
from benchmarks.apart import Apart
from edgesite.cloud.cloudhub.hub import Hub
from edgesite.cloud.cloudhub.metrics import HubMetrics
from edgesite.cloud.synccontroller.records import Records
from edgesite.net.http import HttpServer
from edgesite.net.pki import KeyPair, RealPki
from edgesite.net.real import RealClock, RealNet, loop_factory
from edgesite.net.tls import server_context, tune_allocator
from edgesite.runtime.bus import LocalBus
from edgesite.wire import frames
from edgesite.wire.message import Message, MessageMaker
from edgesite.wire.node_session import SessionLimits

NODES: Final = 1000
PODS_EACH: Final = 50
_EDGES: Final = """
import json, random, sys, anyio
from edgesite.cli.edgemark.fleet import Fleet
from edgesite.net.pki import KeyPair
from edgesite.net.real import RealClock, RealNet, loop_factory
given = json.loads(sys.stdin.readline())
async def main():
    async with anyio.create_task_group() as tasks:
        names = [f"hollow-{at:05d}" for at in range(given["nodes"])]
        fleet = Fleet(RealNet(), RealClock(), random.Random(), tasks, given["address"], names)
        await fleet.certify(KeyPair(given["certificate"].encode(), given["key"].encode()), lambda at: None)
        await fleet.connect()
anyio.run(main, backend_options={"loop_factory": loop_factory()})
"""


class Bench:
    """A hub with its nodes connected, and pods to give them."""

    def __init__(self, hub: Hub, metrics: HubMetrics, pair: KeyPair) -> None:
        self.hub, self.pair = hub, pair
        self._metrics = metrics
        self._maker = MessageMaker(time.time, random.getrandbits)
        self._version = 0

    def _acknowledged(self) -> float:
        (metric,) = self._metrics.acknowledged.collect()
        return next(one.value for one in metric.samples if one.name.endswith("_total"))

    def pods(self, each: int) -> list[Message]:
        """A new version of ``each`` pods for every node; which pod it is follows from its place."""
        self._version += 1
        found = []
        for at in range(each):
            for node in self.hub.nodes():
                uid = f"{at:08x}-0000-4000-8000-{node[-5:]:>012}"
                found.append(self._pod(node, f"{node}-{at}", uid))
        return found

    def _pod(self, node: str, name: str, uid: str) -> Message:
        obj = {
            **_POD,
            "metadata": {**_POD["metadata"], "name": name, "uid": uid, "resourceVersion": str(self._version)},
        }
        obj["spec"] = {**_POD["spec"], "nodeName": node}
        path = f"node/{node}/default/pod/{name}"
        return self._maker.make("edgecontroller", "resource", "update", path, obj, resource_version=str(self._version))

    async def deliver(self, messages: Iterable[Message]) -> tuple[float, float]:
        """Send and wait for all acknowledgements; returns seconds and CPU seconds of this process."""
        messages = list(messages)
        wanted = self._acknowledged() + len(messages)
        gc.collect()
        began, cpu = time.perf_counter(), _cpu_s()
        for at, message in enumerate(messages):
            self.hub.send(message)
            if at % 256 == 255:
                await anyio.lowlevel.checkpoint()
        while self._acknowledged() < wanted:  # noqa: ASYNC110
            await anyio.sleep(0.002)
        return time.perf_counter() - began, _cpu_s() - cpu


_POD: Final[dict[str, Any]] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"namespace": "default", "creationTimestamp": "2026-11-20T05:09:32Z", "labels": {"app": "web"}},
    "spec": {
        "containers": [
            {
                "name": "app",
                "image": "registry.example.org/web:1.2.3",
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                "env": [{"name": f"SETTING_{at}", "value": f"value number {at}"} for at in range(12)],
                "terminationMessagePath": "/dev/termination-log",
                "imagePullPolicy": "IfNotPresent",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "schedulerName": "default-scheduler",
        "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
    },
    "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.1.2.3"},
}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@asynccontextmanager
async def bench(nodes: int) -> AsyncIterator[Bench]:
    clock, net, pki = RealClock(), RealNet(), RealPki(RealClock())
    ca = await pki.make_ca("benchmark")
    pair = await pki.issue(ca, "localhost", dns_names=["localhost"], ips=["127.0.0.1"])
    tls = server_context(pair.certificate, pair.key, client_ca=ca.certificate, require_client=True)
    log = logging.getLogger("benchmark")
    log.setLevel(logging.ERROR)
    async with anyio.create_task_group() as tasks:
        records, metrics = Records(), HubMetrics(CollectorRegistry())
        hub = Hub(
            LocalBus(),
            clock,
            random.Random(),
            lambda: records,
            SessionLimits(keepalive_s=300),
            nodes,
            tasks,
            metrics,
            log,
        )
        tasks.start_soon(hub.run)
        async with HttpServer(hub.handle, log=log) as server:
            listener = await server.listen(net, "127.0.0.1:0", tls=tls)
            given = {
                "nodes": nodes,
                "address": listener.address,
                "certificate": ca.certificate.decode(),
                "key": ca.key.decode(),
            }
            edges = await anyio.open_process([sys.executable, "-c", _EDGES], stdout=subprocess.DEVNULL)
            assert edges.stdin is not None
            await edges.stdin.send(json.dumps(given).encode() + b"\n")
            try:
                with anyio.fail_after(120):
                    while len(hub.nodes()) < nodes:  # noqa: ASYNC110 - a benchmark looks from outside
                        await anyio.sleep(0.05)
                await anyio.sleep(0.5)
                yield Bench(hub, metrics, pair)
            finally:
                edges.kill()
                tasks.cancel_scope.cancel()


async def _hub_alone(quick: bool) -> None:
    for nodes, target in ((100, "< 0.2 s"), (NODES, "< 1.5 s")):
        async with bench(nodes) as made:
            took, _ = await made.deliver(made.pods(1))
            rig.line(f"first delivery of {nodes} pods to {nodes} nodes, acknowledged", f"{took:.3f} s", target)
            rounds = [await made.deliver(made.pods(1)) for _ in range(5)]
            took, cpu = min(rounds)
            rig.line(
                f"a later change of these {nodes}", f"{nodes / took:,.0f}/s", "≥ 16,000/s" if nodes == NODES else ""
            )
            if nodes < NODES or quick:
                continue
            count = nodes * PODS_EACH
            took, cpu = await made.deliver(made.pods(PODS_EACH))
            rig.line(f"{count} new pods to {nodes} nodes, acknowledged", f"{count / took:,.0f}/s")
            rig.line("   per core of the hub", f"{count / cpu:,.0f}/s")
            _parts(made, cpu / count)


def _parts(made: Bench, whole_s: float) -> None:
    """What a delivery spends in encoding and in TLS: the same work in loops of their own."""
    messages = made.pods(2)
    began = time.process_time()
    rows = [frames.encode_row(one, at) for at, one in enumerate(messages, 1)]
    packed = [frames.encode(1, 0, (), 0, rows[at : at + 20], deflate=True) for at in range(0, len(rows), 20)]
    encoding_s = (time.process_time() - began) / len(messages)
    tls_s = _tls_s(made.pair, packed) / len(messages)
    rig.line("   of which msgpack and deflate", f"{encoding_s / whole_s:.0%}")
    rig.line("   of which TLS records (sealing)", f"{tls_s / whole_s:.0%}")
    rig.line("   of which our own code, event loop and system calls", f"{1 - (encoding_s + tls_s) / whole_s:.0%}")


def _tls_s(pair: KeyPair, packed: list[bytes]) -> float:
    """CPU seconds to seal these."""
    server = server_context(pair.certificate, pair.key).wrap_bio(
        to_s := ssl.MemoryBIO(), from_s := ssl.MemoryBIO(), True
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = context.wrap_bio(to_c := ssl.MemoryBIO(), from_c := ssl.MemoryBIO(), False)
    done: set[Any] = set()
    while len(done) < 2:
        for end in (client, server):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
            to_s.write(from_c.read())
            to_c.write(from_s.read())
    began = time.process_time()
    for one in packed:
        server.write(one)
        from_s.read()
    return time.process_time() - began


def _edgemark(*options: str) -> dict[str, Any]:
    asked = subprocess.run(
        [str(rig.PROGRAM), "edgemark", "--json", *options], capture_output=True, text=True, timeout=300, check=False
    )
    if asked.returncode:
        raise rig.BenchmarkFailed(asked.stderr[-2000:])
    figures: dict[str, Any] = json.loads(asked.stdout)
    return figures


def _whole_role(quick: bool) -> None:
    found = _edgemark("--nodes", "1000", "--pods-per-node", "1", "--idle", "20", "--reconnect")
    rig.line("idle: CPU of the cloud a minute and 1,000 nodes", f"{found['idle_cpu']:.2f} s", "≤ 5 s")
    rig.line("idle: uplink of a node (TCP payload)", f"{found['idle_kbit_up']:.2f} kbit/s", "< 0.25 kbit/s")
    rig.line("memory of the cloud per TLS node, at 1,000", f"{found['rss_per_idle_node'] / 1000:.1f} KB", "≤ 40 KB")
    rig.line("1,000 nodes back after a cut", f"{found['reconnect_s']:.1f} s")
    rig.line(
        "   failed handshakes, late leases", f"{found['failed_handshakes']:.0f}, {found['late_leases']:.0f}", "0, 0"
    )
    rig.line("1,000 pods made, delivered, run and reported", f"{found['pods_s']:.2f} s")
    rig.line("   start-up of a pod, p50 and p99", f"{found['e2e']['p50']:.2f}, {found['e2e']['p99']:.2f} s")
    rig.line("   CPU of the cloud per pod, API and store included", f"{found['pods_cpu_ms']:.1f} ms")
    if quick:
        return
    found = _edgemark("--nodes", "100", "--pods-per-node", "30", "--idle", "0", "--updates", "1", "--away", "3")
    rig.line("100 nodes × 30 pods resume after 3 changes each", f"{found['resume_s']:.2f} s")
    rig.line("   objects sent", f"{found['resume_objects']:.0f}", "300")
    rig.line("   bytes down per node, TLS handshake included", f"{found['resume_bytes_down']:,.0f}")


def _join() -> None:
    """A new node: from exec to Ready, the cloud running."""
    with rig.folder() as data:
        apart = Apart(data)
        with apart.cloud() as cloud:
            cloud.wait_line("https listens on")
            with rig.Api(data / "cloud-role" / "admin.kubeconfig") as api:
                token = _token(api)
                with apart.edge(token) as edge:
                    ready_s = _until_ready(api, edge.started)
    rig.line("join of a new node, from exec to Ready", f"{ready_s:.2f} s", "< 0.8 s")


def _token(api: rig.Api) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            found = api.call("GET", "/api/v1/namespaces/kubeedge/secrets/tokensecret")
            return base64.b64decode(found["data"]["tokendata"]).decode()
        except rig.BenchmarkFailed:
            time.sleep(0.05)
    raise rig.BenchmarkFailed("no join token")


def _until_ready(api: rig.Api, started: float) -> float:
    with api.watch("/api/v1/nodes") as events:
        for event in events:
            conditions = (event["object"].get("status") or {}).get("conditions") or ()
            if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
                return time.perf_counter() - started
    raise rig.BenchmarkFailed("the node is not Ready")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the longest runs")
    quick = parser.parse_args().quick
    tune_allocator()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    anyio.run(_hub_alone, quick, backend_options={"loop_factory": loop_factory()})
    _join()
    _whole_role(quick)


if __name__ == "__main__":
    main()
