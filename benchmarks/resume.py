"""What it takes to resume edges that were away for an hour: bytes and seconds, against the changes and against the whole state.

    python -m benchmarks.resume [--nodes 100] [--pods 30] [--away 45]

What an hour takes away is taken away in less: the nodes stay away until they count as unreachable; more is written than the
history of pods holds, so that no watch from before can go on; and the cloud role is killed with SIGKILL and starts again, so that
it has no session, no cache and no version of an object left that a delta could be made from. What it knows of the edges then
is what it wrote down. Hollow nodes keep what they hold, as an edge does on its disk.
"""

from __future__ import annotations

import argparse
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import anyio

from benchmarks import rig
from edgesite.cli.edgemark.cloudprocess import CloudProcess, cloud_process
from edgesite.cli.edgemark.fleet import Fleet, read_ca
from edgesite.cli.edgemark.pods import NAMESPACE, Pods
from edgesite.client.client import Client
from edgesite.client.http import HttpTransport
from edgesite.client.kubeconfig import load
from edgesite.kube.resources import NODES, PODS
from edgesite.net.real import RealClock, RealNet, loop_factory

_STEP_S: Final = 240.0
_RECORDED_S: Final = 12.0  #: until what the nodes hold is written down
_OVERRUN: Final = 1600  #: writes; the store keeps 1,024 events of a kind in memory and 512 replaced versions on disk


class Resumed(NamedTuple):
    seconds: float
    down: float  #: bytes per node, TCP payload with the TLS handshake
    up: float
    objects: int


class Site:
    """A cloud role in a process of its own and hollow nodes in this one."""

    def __init__(self, cloud: CloudProcess, net: RealNet, clock: RealClock, names: list[str], pods: int) -> None:
        self.cloud, self.net, self.clock, self.names, self.pods = cloud, net, clock, names, pods
        self.count = len(names) * pods

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        transport = HttpTransport(self.net, self.clock, load(self.cloud.kubeconfig))
        try:
            yield Client(transport).named("benchmark")
        finally:
            await transport.close()

    @asynccontextmanager
    async def fleet(self) -> AsyncIterator[Fleet]:
        """Nodes that hold nothing, connected until they are cut."""
        async with anyio.create_task_group() as tasks:
            address = f"127.0.0.1:{self.cloud.hub_port}"
            fleet = Fleet(self.net, self.clock, random.Random(), tasks, address, self.names)
            async with self.client() as client:
                await fleet.certify(await read_ca(client), lambda at: None)
            yield fleet
            fleet.reconnect = False
            tasks.cancel_scope.cancel()

    async def make_pods(self) -> None:
        async with self.client() as client:
            pods = Pods(client, self.clock, {})
            await pods.prepare()
            await pods.create(self.names, self.pods)

    async def away(self, fleet: Fleet, changes: int, seconds: float, value: str) -> None:
        """Cut the nodes off, change ``changes`` pods of each, and let go what an hour would."""
        await anyio.sleep(_RECORDED_S)
        fleet.reconnect = False
        fleet.cut_all()
        await until(lambda: fleet.counters.ready == 0)
        async with self.client() as client:
            if seconds:
                await self._until_unreachable(client, seconds)
            pods = Pods(client, self.clock, {})
            await pods.annotate(value, [f"{name}-{at}" for name in self.names for at in range(changes)])
            await _overrun(client)
        self.cloud.kill()
        self.cloud.start()
        await self.cloud.up(self.clock)

    async def _until_unreachable(self, client: Client, seconds: float) -> None:
        await anyio.sleep(seconds)
        with anyio.fail_after(_STEP_S):
            while True:
                nodes = (await client.list(NODES))["items"]
                if all(_ready(node) == "Unknown" for node in nodes if node["metadata"]["name"] in self.names):
                    return
                await anyio.sleep(1)

    async def resume(self, fleet: Fleet, expected: int) -> Resumed:
        """Bring all nodes back and wait for what they have missed."""
        applied, received = fleet.counters.applied, fleet.counters.received
        began = self.clock.monotonic()
        fleet.reconnect = True
        await fleet.connect()
        await until(lambda: fleet.counters.ready == len(self.names) and fleet.counters.applied - applied >= expected)
        seconds = self.clock.monotonic() - began
        await anyio.sleep(2)  # what comes too much shall count
        passed, nodes = fleet.traffic(), len(self.names)
        return Resumed(seconds, passed.down / nodes, passed.up / nodes, fleet.counters.received - received)


async def until(condition: object) -> None:
    assert callable(condition)
    with anyio.fail_after(_STEP_S):
        while not condition():  # noqa: ASYNC110 - a benchmark looks from outside
            await anyio.sleep(0.01)


async def _overrun(client: Client) -> None:
    """Write more pods than the history holds; none of them is on a node of ours."""
    metadata = {"name": "busy", "namespace": NAMESPACE}
    spec = {"containers": [{"name": "app", "image": "hollow/app:1"}], "nodeSelector": {"no": "such"}}
    await client.create(PODS, {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec})
    for at in range(_OVERRUN):
        await client.patch(PODS, "busy", {"metadata": {"annotations": {"at": str(at)}}}, NAMESPACE)
    await client.delete(PODS, "busy", NAMESPACE)


def _ready(node: dict[str, object]) -> object:
    conditions = (node.get("status") or {}).get("conditions") or ()  # type: ignore[attr-defined]
    return next((one["status"] for one in conditions if one["type"] == "Ready"), None)


async def _measure(nodes: int, pods: int, away_s: float) -> None:
    clock, net = RealClock(), RealNet()
    names = [f"hollow-{at:05d}" for at in range(nodes)]
    found: dict[int, Resumed] = {}
    async with cloud_process(clock, nodes) as cloud:
        site = Site(cloud, net, clock, names, pods)
        async with site.fleet() as fleet:
            await fleet.connect()
            await until(lambda: fleet.counters.ready == nodes)
            await site.make_pods()
            await until(lambda: len(fleet.counters.started_at) >= site.count)
            for changes in (0, 3, pods):
                await site.away(fleet, changes, away_s if changes == 3 else 0.0, f"round-{changes}")
                found[changes] = await site.resume(fleet, changes * nodes)
                _tell(f"{nodes} nodes × {pods} pods, {changes} changes each", found[changes])
        async with site.fleet() as fresh:
            whole = await site.resume(fresh, site.count)
            _tell(f"{nodes} nodes × {pods} pods that hold nothing: the whole state", whole)
    least = found[0].down
    rig.line(
        "bytes for 3 changes against those for all pods",
        f"{(found[3].down - least) / (found[pods].down - least):.3f}",
        f"{3 / pods:.3f}",
    )
    rig.line(
        "bytes for 3 changes against the whole state",
        f"{(found[3].down - least) / (whole.down - least):.3f}",
        f"{3 / pods:.3f}",
    )
    rig.line("   the same with handshakes and greetings", f"{found[3].down / whole.down:.3f}")


def _tell(what: str, found: Resumed) -> None:
    rig.line(what, f"{found.seconds:.2f} s")
    rig.line("   bytes down and up per node, with the TLS handshake", f"{found.down:,.0f}, {found.up:,.0f}")
    rig.line("   objects sent", f"{found.objects:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pods", type=int, default=30)
    parser.add_argument("--away", type=float, default=45.0, help="seconds for which the nodes stay away (45)")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 20_000)), hard))
    anyio.run(_measure, options.nodes, options.pods, options.away, backend_options={"loop_factory": loop_factory()})


if __name__ == "__main__":
    main()
