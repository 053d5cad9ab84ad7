"""A fault run of the link in real time, in network namespaces: ``python -m benchmarks.linkfaults --namespaces [--seconds 300]``.

Cloud and edges are real processes in namespaces of their own; their packets go through `lossynet`, or with ``--netem`` through the kernel's netem (`netemnet`). Edges run real host processes.
Faults, several at a time: kill -9 of either end; an interface that goes down; half-open links (iptables drops what comes in,
what goes out, or both, and nobody hears a reset); delay, loss, duplicates, reordering; wall clocks that jump; a full disk at an edge.

Checked: whenever an edge has been killed, and in the end, each version that it ever acknowledged is in its database (or its end
has been told); no version of an object takes effect twice; in the end the API and the edges' databases are equal, and every pod
runs in the one process that it was started in. Books are kept by `linkprobe` inside the processes.

Needs root and `ip`, `iptables`, `mount`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import linkfaults, lossynet, rig
from benchmarks.lossynet import INTERFACE, Impairment, LossyNet, in_namespace
from benchmarks.netemnet import NetemNet

__all__ = ["play"]

_DISK: Final = "48m"
_SETTLE_S: Final = 150.0
_QUIET: Final = Impairment(delay_s=0.005, jitter_s=0.002, loss=0.002, duplicate=0.002, reorder=0.01)
_BAD: Final = (
    Impairment(0.3, 0.1),
    Impairment(0.05, 0.05, loss=0.05, duplicate=0.05, reorder=0.25),
    Impairment(0.02, 0.2, loss=0.15),
    Impairment(0.1, 0.0, loss=0.01, duplicate=0.3, reorder=0.5),
)
_PATHS: Final = {"in": ("INPUT",), "out": ("OUTPUT",), "both": ("INPUT", "OUTPUT")}


class Spaces(linkfaults.Site):
    """The processes in their namespaces. What it makes in the file system is seen inside this process's mount namespace alone."""

    def __init__(self, folder: Path, edges: int, net: LossyNet | NetemNet, prefix: str) -> None:
        super().__init__(folder, edges)
        self.net = net
        self.spaces = {name: f"{prefix}{at}" for at, name in enumerate(["cloud", *self.names])}
        self.address = ""
        self.books: Counter[str] = Counter()

    def connect(self) -> None:
        for at, name in enumerate(["cloud", *self.names], 1):
            address = self.net.add(self.spaces[name], at)
            self.address = self.address or address

    def mount(self) -> None:
        """Give each edge a disk of its own, which can be filled."""
        for name in self.names:
            (self.folder / name).mkdir()
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(self.folder / name)], check=True
            )

    def unmount(self) -> None:
        for name in self.names:
            subprocess.run(["umount", "-l", str(self.folder / name)], check=False, capture_output=True)

    def start(self, name: str) -> None:
        words = [sys.executable, "-m", "benchmarks.linkprobe", name, *self._arguments(name)]
        environment = {**os.environ, "LINKPROBE": str(self.folder), "PYTHONPATH": str(Path(__file__).parent.parent)}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                in_namespace(self.spaces[name], *words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def _arguments(self, name: str) -> list[str]:
        data = ["--data-dir", str(self.folder / name)]
        if name == "cloud":
            return ["cloud", *data, "--api-address", "127.0.0.1:6443", "--advertise-address", self.address]
        link = ["--cloud", self.address, "--token", self.token, "--node-name", name]
        return ["edge", *data, *link, "--runtime", "process", *rig.EDGE_PORTS]

    def jump(self, name: str, seconds: float) -> None:
        """The wall clock of a process, running or not, is so far ahead from now on."""
        with (self.folder / f"{name}.clock").open("r+b") as file:
            file.write(struct.pack("d", seconds))

    def iptables(self, name: str, what: str, chains: tuple[str, ...]) -> None:
        for chain in chains:
            side = "-i" if chain == "INPUT" else "-o"
            rule = ["iptables", "-w", what, chain, side, INTERFACE, "-j", "DROP"]
            subprocess.run(in_namespace(self.spaces[name], *rule), check=True)

    def link(self, name: str, state: str) -> None:
        subprocess.run(["ip", "-n", self.spaces[name], "link", "set", INTERFACE, state], check=True)

    # -- books ---------------------------------------------------------------------------------------------------

    def entries(self, name: str) -> list[list[Any]]:
        path = self.folder / f"{name}.books"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def lost(self, name: str) -> list[str]:
        """Versions that this edge has acknowledged and does not have; it must not be running, or nothing may be under way."""
        acknowledged: dict[str, int] = {}
        told_end: set[str] = set()
        for kind, node, *rest in self.entries("cloud"):
            if node != name:
                continue
            if kind == "acked":
                acknowledged[rest[0]] = max(rest[1], acknowledged.get(rest[0], 0))
            elif kind == "sent" and rest[3] == "delete":
                told_end.add(rest[1])
        told_end |= {rest[0] for kind, _, *rest in self.entries(name) if kind == "applied" and rest[2] == "delete"}
        held = dict(self.held(name).values())
        found = []
        for uid, version in acknowledged.items():
            self.books["acknowledged versions looked for on disk"] += 1
            if uid not in told_end and version > int(held.get(uid, 0)):
                found.append(f"{name}: {uid} was acknowledged at {version}, on its disk is {held.get(uid)}")
        return found

    def held(self, name: str) -> dict[str, tuple[str, str]]:
        """As the base class, from a copy: recovery after a kill would write."""
        source = self.folder / name / "edge" / "edgecore.db"
        with rig.folder() as aside:
            for suffix in ("", "-wal"):
                if source.with_name(source.name + suffix).exists():
                    shutil.copy(source.with_name(source.name + suffix), aside / f"edgecore.db{suffix}")
            with contextlib.closing(sqlite3.connect(aside / "edgecore.db")) as database:
                rows = database.execute("SELECT key, value FROM meta WHERE type IN ('pod', 'configmap')").fetchall()
        metadata = {key: json.loads(value)["metadata"] for key, value in rows}
        return {key: (one["uid"], one["resourceVersion"]) for key, one in metadata.items()}

    def balance(self) -> list[str]:
        """Add up the books; returns what took effect twice."""
        seen: set[str] = set()
        for kind, _, *rest in self.entries("cloud"):
            if kind == "sent":
                self.books["messages repeated" if rest[0] in seen else "messages sent"] += 1
                seen.add(rest[0])
            else:
                self.books[f"messages {kind}"] += 1
        twice = []
        for name in self.names:
            newest: dict[str, int] = {}
            for _, _, uid, version, verdict in self.entries(name):
                self.books[f"at the edges: {verdict}"] += 1
                if verdict in ("store", "replace"):
                    if version <= newest.get(uid, 0):
                        twice.append(f"{name}: {uid} took effect at {version} after {newest[uid]}")
                    newest[uid] = version
        return twice


class Trouble:
    """Strikes until the time is over. One fault of each kind and place at a time."""

    def __init__(self, site: Spaces, draw: random.Random, tally: Counter[str], ends: float) -> None:
        self.lost: list[str] = []
        self._site, self._draw, self._tally, self._ends = site, draw, tally, ends
        self._busy: set[tuple[str, str]] = set()
        self._kinds: dict[str, Callable[[str, float], Awaitable[None]]] = {
            "kill -9": self._kill,
            "interface down": self._down,
            "half-open": self._half_open,
            "clock jump": self._jump,
            "disk full": self._fill,
            "bad packets": self._impair,
        }

    async def run(self) -> None:
        """Two at a time."""
        await asyncio.gather(self._strike(), self._strike())

    async def _strike(self) -> None:
        while time.monotonic() < self._ends:
            kind, name = self._draw.choice(list(self._kinds)), self._draw.choice(["cloud", *self._site.names])
            if kind == "disk full" and name == "cloud":
                name = self._draw.choice(self._site.names)
            if kind == "bad packets":
                name = "net"
            if (kind, name) not in self._busy:
                self._busy.add((kind, name))
                self._tally[f"fault: {kind} {name if name in ('cloud', 'net') else 'edge'}"] += 1
                await self._kinds[kind](name, min(self._draw.expovariate(1 / 6.0) + 0.3, 60.0))
                self._busy.discard((kind, name))
            await asyncio.sleep(self._draw.uniform(0.2, 4.0))

    async def _kill(self, name: str, seconds: float) -> None:
        await asyncio.to_thread(self._site.kill, name)
        if name != "cloud":
            self.lost += await asyncio.to_thread(self._site.lost, name)
        await asyncio.sleep(min(seconds, 10.0))
        self._site.start(name)
        await asyncio.sleep(3.0)

    async def _down(self, name: str, seconds: float) -> None:
        self._site.link(name, "down")
        await asyncio.sleep(seconds)
        self._site.link(name, "up")

    async def _half_open(self, name: str, seconds: float) -> None:
        way = self._draw.choice(list(_PATHS))
        self._tally[f"half-open: {way}"] += 1
        self._site.iptables(name, "-I", _PATHS[way])
        await asyncio.sleep(seconds * 2)
        self._site.iptables(name, "-D", _PATHS[way])

    async def _jump(self, name: str, seconds: float) -> None:
        self._site.jump(name, self._draw.choice([-3600.0, -90.0, -10.0, 10.0, 90.0, 3600.0]))
        await asyncio.sleep(seconds)

    async def _fill(self, name: str, seconds: float) -> None:
        path = self._site.folder / name / "filler"
        await asyncio.to_thread(_fill, path)
        await asyncio.sleep(seconds)
        path.unlink()

    async def _impair(self, name: str, seconds: float) -> None:
        self._site.net.impairment = self._draw.choice(_BAD)
        await asyncio.sleep(seconds * 2)
        self._site.net.impairment = _QUIET


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def play(seconds: float, edges: int, seed: int, *, patience: float = 1.0, with_netem: bool = False) -> int:
    """Run; everything that it makes is gone afterwards. Returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made goes all the same
    if "LINKSPACES" not in os.environ:
        return _outside(edges)
    with rig.folder() as folder:
        return asyncio.run(_inside(folder, seconds, edges, seed, patience, with_netem))


def _outside(edges: int) -> int:
    """Make the namespaces, and go on in that of the cloud, where its API listens on the loopback."""
    prefix = f"link{os.getpid()}-"
    names = [f"{prefix}{at}" for at in range(edges + 1)]
    lossynet.make_namespaces(names)
    try:
        words = [sys.executable, "-m", "benchmarks.linkfaults", *sys.argv[1:]]
        environment = {**os.environ, "LINKSPACES": prefix}
        inside = subprocess.Popen(in_namespace(names[0], *words), env=environment)
        try:
            return inside.wait()
        finally:
            inside.terminate()  # it ends what it has started
            inside.wait(60)
    finally:
        lossynet.remove_namespaces(names)


async def _inside(folder: Path, seconds: float, edges: int, seed: int, patience: float, with_netem: bool) -> int:
    draw = random.Random(seed)
    net = NetemNet(_QUIET) if with_netem else LossyNet(draw, _QUIET)
    site = Spaces(folder, edges, net, os.environ["LINKSPACES"])
    site.patience = patience
    load = linkfaults.Load(site, random.Random(seed + 1))
    site.connect()
    site.mount()
    try:
        try:
            await linkfaults.start(site, load)
        except rig.BenchmarkFailed:
            _show_logs(site)
            raise
        trouble = Trouble(site, draw, load.tally, time.monotonic() + seconds)
        running = asyncio.create_task(trouble.run())
        while not running.done():
            await asyncio.to_thread(load.step)
            await asyncio.sleep(0.05)
        await running
        for name in ("cloud", *site.names):
            site.jump(name, 0.0)
        started = time.monotonic()
        with contextlib.suppress(rig.BenchmarkFailed):
            await linkfaults.until("agreement", lambda: not _wrong(load, site), _SETTLE_S * patience)
        took = time.monotonic() - started
        wrong = _wrong(load, site)
        lost = trouble.lost + [one for name in site.names for one in site.lost(name)]
        twice = site.balance()
        _print(load, site, took)
        rig.line("differences at the end", str(len(wrong)), "0")
        rig.line("acknowledged and lost", str(len(lost)), "0")
        rig.line("took effect twice", str(len(twice)), "0")
        print("\n".join([*wrong, *lost, *twice]))
        if wrong or lost or twice:
            _show_logs(site)
            return 1
        return 0
    finally:
        for name in list(site.processes):
            site.kill(name)
        linkfaults.end_pods(folder)
        site.net.close()
        site.unmount()


def _wrong(load: linkfaults.Load, site: Spaces) -> list[str]:
    """Where API and edges differ, and pods that do not run, or not in their first process."""
    found = linkfaults.differences(load, site)
    for pod in load.call("GET", "/api/v1/namespaces/default/pods")["items"]:
        if pod["status"].get("phase") == "Failed" and pod["status"].get("reason") == "Evicted":
            continue  # its node's disk was full: see `_print`
        status = (pod["status"].get("containerStatuses") or [{}])[0]
        if pod["status"].get("phase") != "Running" or not status.get("ready") or status.get("restartCount"):
            found.append(f"pod {pod['metadata']['name']} of {pod['spec']['nodeName']}: {pod['status']}")
    return found


def _show_logs(site: Spaces) -> None:
    for name in ("cloud", *site.names):
        lines = (site.folder / f"{name}.log").read_text(errors="replace").splitlines()
        print(f"-- the last lines of {name}:", *lines[-40:], sep="\n")


def _print(load: linkfaults.Load, site: Spaces, took: float) -> None:
    for text, count in sorted(load.tally.items()):
        rig.line(text, str(count))
    for text, count in sorted(site.books.items()):
        rig.line(text, str(count))
    for text, count in site.net.counts.items():
        rig.line(f"packets {text}", f"{count:,}")
    pods = load.call("GET", "/api/v1/namespaces/default/pods")["items"]
    rig.line("pods turned away by a full disk", str(sum(one["status"].get("reason") == "Evicted" for one in pods)))
    rig.line("objects in the edges' databases", str(sum(len(site.held(name)) for name in site.names)))
    rig.line("seconds until all was equal", f"{took:.1f}")
