"""A fault run of the cloud-edge link in real time: real processes, kill -9, cut, stuck and slow links; in the end both sides are equal.

    python -m benchmarks.linkfaults [--seconds 300] [--edges 2] [--seed N]
    python -m benchmarks.linkfaults --simulated 30m [--seed N]     in simulated time: see `linksim`
    python -m benchmarks.linkfaults --namespaces [--seconds …]     in network namespaces, with books kept: see `linkspaces`
    python -m benchmarks.linkfaults --netem [--seconds …]          the same, where the kernel has netem

The edges reach the cloud through a relay in this process, which cuts connections, lets them hang half-open, or delays them. While
that happens ConfigMaps and the pods that refer to them are made, changed and deleted. At the end the faults stop, and what the API
says of each node is compared with what stands in that edge's database, object by object; the tally is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import rig

_SETTLE_S: Final = 90.0
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_FAULTS: Final = ("kill cloud", "kill edge", "cut", "stick", "slow", "none")


class Relay:
    """Carries bytes from one port to another; ``mood`` says how."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.stuck = False
        self.carried = 0
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, to_writer}
        try:
            await asyncio.gather(self._carry(reader, to_writer), self._carry(to_reader, writer))
        except OSError:
            pass
        finally:
            self._open -= {writer, to_writer}
            writer.transport.abort()
            to_writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            while self.stuck:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            self.carried += len(data)
            writer.write(data)
            await writer.drain()
        writer.transport.abort()


class Site:
    """The processes, each of which may be killed and started again on what it left."""

    def __init__(self, folder: Path, edges: int) -> None:
        self.folder = folder
        self.names = [f"edge-{at}" for at in range(edges)]
        self.ports = {name: rig.free_port() for name in ("api", "hub", "bootstrap", "tunnel")}
        self.relay = Relay(self.ports["hub"])
        self.token = ""
        self.patience = 1.0  #: how much longer than usual things may take here
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [str(rig.PROGRAM), *self._arguments(name)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        log.close()

    def kill(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def _arguments(self, name: str) -> list[str]:
        data = ["--data-dir", str(self.folder / name)]
        ports = ["--bootstrap-port", str(self.ports["bootstrap"]), "--tunnel-port", str(self.ports["tunnel"])]
        if name == "cloud":
            api = ["--api-address", f"127.0.0.1:{self.ports['api']}", "--advertise-address", "127.0.0.1"]
            return ["cloud", *data, *api, "--hub-port", str(self.ports["hub"]), *ports]
        link = ["--cloud", "127.0.0.1", "--hub-port", str(self.relay.port), "--token", self.token, "--node-name", name]
        return ["edge", *data, *link, *ports, "--runtime", "process", *rig.EDGE_PORTS]

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "cloud" / "admin.kubeconfig"

    def held(self, name: str) -> dict[str, tuple[str, str]]:
        """What stands in the database of an edge: key -> uid and version."""
        path = self.folder / name / "edge" / "edgecore.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            rows = database.execute("SELECT key, value FROM meta WHERE type IN ('pod', 'configmap')").fetchall()
        found = {}
        for key, value in rows:
            metadata = json.loads(value)["metadata"]
            found[key] = (metadata["uid"], metadata["resourceVersion"])
        return found


class Load:
    """Makes, changes and deletes through the API; refusals while the cloud is down are part of it."""

    def __init__(self, site: Site, draw: random.Random) -> None:
        self.tally: Counter[str] = Counter()
        self._site = site
        self._random = draw
        self._count = 0
        self._live: list[tuple[str, str]] = []

    def call(self, method: str, path: str, body: object = None) -> Any:
        with rig.Api(self._site.kubeconfig) as api:
            return api.call(method, path, body)

    def step(self) -> None:
        verb = self._random.choice(("make", "change", "change", "change", "delete"))
        try:
            if verb == "make" or not self._live:
                self._make()
            elif verb == "change":
                name, _ = self._random.choice(self._live)
                patch = {"data": {"at": str(time.time())}}
                self._patch(f"/api/v1/namespaces/default/configmaps/{name}", patch)
            else:
                name, _ = self._live.pop(self._random.randrange(len(self._live)))
                self.call("DELETE", f"/api/v1/namespaces/default/pods/{name}", {"gracePeriodSeconds": 0})
                self.call("DELETE", f"/api/v1/namespaces/default/configmaps/{name}")
            self.tally[f"API: {verb}"] += 1
        except (OSError, rig.BenchmarkFailed, ValueError):
            self.tally["API: not answered"] += 1

    def _make(self) -> None:
        self._count += 1
        name, node = f"o{self._count}", self._random.choice(self._site.names)
        metadata = {"name": name, "namespace": "default"}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}
        self.call("POST", "/api/v1/namespaces/default/configmaps", body)
        volumes = [{"name": "c", "configMap": {"name": name}}]
        pod = rig.pod(name, "none", ["/bin/sleep", "100000"], nodeName=node, volumes=volumes)
        self.call("POST", "/api/v1/namespaces/default/pods", pod)
        self._live.append((name, node))

    def _patch(self, path: str, patch: object) -> None:
        with rig.Api(self._site.kubeconfig) as api:
            connection = api.connection()
            connection.request("PATCH", path, json.dumps(patch), {"Content-Type": "application/merge-patch+json"})
            answer = connection.getresponse()
            answer.read()
            connection.close()
            if answer.status >= 300:
                raise rig.BenchmarkFailed(f"PATCH {path}: {answer.status}")


async def _fault(site: Site, draw: random.Random, tally: Counter[str]) -> None:
    kind = draw.choice(_FAULTS)
    tally[f"fault: {kind}"] += 1
    length = draw.uniform(0.5, 6.0)
    if kind == "kill cloud":
        site.kill("cloud")
        await asyncio.sleep(length)
        site.start("cloud")
        await asyncio.sleep(3)
    elif kind == "kill edge":
        name = draw.choice(site.names)
        site.kill(name)
        await asyncio.sleep(length)
        site.start(name)
    elif kind == "cut":
        site.relay.cut()
    elif kind == "stick":
        site.relay.stuck = True
        await asyncio.sleep(length * 6)
        site.relay.stuck = False
        if draw.random() < 0.5:
            site.relay.cut()
    elif kind == "slow":
        site.relay.delay_s = draw.uniform(0.05, 0.5)
        await asyncio.sleep(length * 2)
        site.relay.delay_s = 0.0
    await asyncio.sleep(draw.uniform(0.5, 4.0))


def differences(load: Load, site: Site) -> list[str]:
    """What the API says of each node against the database of its edge."""
    pods = load.call("GET", "/api/v1/namespaces/default/pods")["items"]
    maps = {one["metadata"]["name"]: one for one in load.call("GET", "/api/v1/namespaces/default/configmaps")["items"]}
    found = []
    for name in site.names:
        wanted = {}
        for pod in (one for one in pods if one["spec"].get("nodeName") == name):
            wanted[f"default/pod/{pod['metadata']['name']}"] = pod
            for volume in pod["spec"].get("volumes") or ():
                needed = maps.get((volume.get("configMap") or {}).get("name", ""))
                if needed is not None:
                    wanted[f"default/configmap/{needed['metadata']['name']}"] = needed
        held = site.held(name)
        for key, obj in wanted.items():
            expected = (obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])
            if held.get(key) != expected:
                found.append(f"{name}: {key} is {held.get(key)}, not {expected}")
        known = {f"default/configmap/{one}" for one in maps} | {
            f"default/pod/{one['metadata']['name']}" for one in pods
        }
        found += [f"{name}: {key} is gone from the API" for key in held if key not in wanted and key not in known]
    return found


async def until(what: str, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if await asyncio.to_thread(condition):
                return
        except (OSError, rig.BenchmarkFailed, KeyError, sqlite3.Error):
            pass
        await asyncio.sleep(0.5)
    raise rig.BenchmarkFailed(f"{what}: not in {seconds:g} s")


async def start(site: Site, load: Load) -> None:
    """Start all, and wait until pods can be made."""
    site.start("cloud")
    await until("the cloud role", lambda: bool(_token(load, site)), 60 * site.patience)
    for name in site.names:
        site.start(name)
    nodes, account = "/api/v1/nodes", "/api/v1/namespaces/default/serviceaccounts/default"
    await until("the nodes", lambda: len(load.call("GET", nodes)["items"]) == len(site.names), 60 * site.patience)
    await until("the account", lambda: bool(load.call("GET", account)), 60 * site.patience)


async def _run(folder: Path, seconds: float, edges: int, seed: int) -> int:
    draw, site = random.Random(seed), Site(folder, edges)
    await site.relay.start()
    load = Load(site, draw)
    try:
        await start(site, load)
        ends = time.monotonic() + seconds
        faults = asyncio.create_task(_faults(site, draw, load.tally, ends))
        while not faults.done():
            await asyncio.to_thread(load.step)
            await asyncio.sleep(0.05)
        await faults
        started = time.monotonic()
        with contextlib.suppress(rig.BenchmarkFailed):
            await until("agreement", lambda: not differences(load, site), _SETTLE_S)
        left = differences(load, site)
        for text, count in sorted(load.tally.items()):
            rig.line(text, str(count))
        rig.line("bytes through the relay", f"{site.relay.carried:,}")
        rig.line("objects in the edges' databases", str(sum(len(site.held(name)) for name in site.names)))
        rig.line("seconds until both sides were equal", f"{time.monotonic() - started:.1f}")
        rig.line("differences at the end", str(len(left)), "0")
        print("\n".join(left))
        return 1 if left else 0
    finally:
        for name in list(site.processes):
            site.kill(name)
        end_pods(folder)
        site.relay.stuck = False
        site.relay.cut()
        await asyncio.sleep(0.5)  # its connections end


async def _faults(site: Site, draw: random.Random, tally: Counter[str], ends: float) -> None:
    while time.monotonic() < ends:
        await _fault(site, draw, tally)


def _token(load: Load, site: Site) -> str:
    found = load.call("GET", "/api/v1/namespaces/kubeedge/secrets/tokensecret")
    site.token = base64.b64decode(found["data"]["tokendata"]).decode()
    return site.token


def end_pods(folder: Path) -> None:
    """End the host processes of pods, which outlive their edge: those that run below our folder."""
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (proc / "cmdline").read_bytes()
            environment = (proc / "environ").read_bytes()
            if str(folder).encode() in words + environment:
                os.kill(int(proc.name), signal.SIGKILL)


def _duration(text: str) -> float:
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    return float(number) * _UNITS[unit]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--edges", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument(
        "--simulated", metavar="TIME", type=_duration, help="run so long in simulated time: 90s, 30m, 2h"
    )
    parser.add_argument(
        "--namespaces", action="store_true", help="in network namespaces: packets lost, clocks that jump, full disks"
    )
    parser.add_argument("--netem", action="store_true", help="the same, with packets lost by the kernel's netem")
    parser.add_argument("--patience", type=float, default=1.0, help="on a slow machine: how many times longer to wait")
    options = parser.parse_args()
    if options.simulated:
        from benchmarks import linksim

        return linksim.play(options.simulated, options.seed)
    if options.namespaces or options.netem:
        from benchmarks import linkspaces

        return linkspaces.play(
            options.seconds, options.edges, options.seed, patience=options.patience, with_netem=options.netem
        )
    print(f"seed {options.seed}", flush=True)
    with rig.folder() as folder:
        return asyncio.run(_run(folder, options.seconds, options.edges, options.seed))


if __name__ == "__main__":
    sys.exit(main())
