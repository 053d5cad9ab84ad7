"""The edge role on a device with little memory and a bad link: a memory limit that the kernel enforces, ten pods, a link that flaps.

    python -m benchmarks.limit [--dist dist/here] [--runtime containerd|process] [--limit 100] [--pods 10] [--seconds 180] [--seed 1]

The edge role of ``--dist`` (frozen; "" is this environment's) starts in a memory cgroup with that limit in MiB, swap included, and in a network
namespace; the link is cut and restored every few seconds, and goes dead half of the times without anybody being told. Meanwhile the
API has a ConfigMap of each pod changed twice a second, and pods made and deleted. It has survived if the kernel ended nothing, the process is the one
that was started, the node is Ready in the end, and every pod runs in its first container and has the last ConfigMap.

With ``containerd`` pods have cgroups of their own; with ``process`` they are in the edge role's, and count. As root; cgroup v1 or v2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks import rig
from edgesite.testing.containerd import BUSYBOX

MIB: Final = 1 << 20
ROOT: Final = Path("/sys/fs/cgroup")
PODS: Final = "/api/v1/namespaces/default/pods"
MAPS: Final = "/api/v1/namespaces/default/configmaps"
_NODE: Final = "/api/v1/nodes/small"
_STEP_S: Final = 0.5
_SETTLE_S: Final = 60.0
_JOIN: Final = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execvp(sys.argv[2], sys.argv[2:])"


class Group:
    """A memory cgroup."""

    def __init__(self, name: str, limit: int) -> None:
        self.is_v1 = (ROOT / "memory").is_dir()
        self.path = (ROOT / "memory" if self.is_v1 else ROOT) / name
        self.path.mkdir()
        files = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if self.is_v1 else ("memory.max",)
        for file in files:
            if (self.path / file).exists():  # without swap accounting there is no second one
                (self.path / file).write_text(str(limit))
        if not self.is_v1 and (self.path / "memory.swap.max").exists():
            (self.path / "memory.swap.max").write_text("0")

    def number(self, v1: str, v2: str) -> int:
        return int((self.path / (v1 if self.is_v1 else v2)).read_text())

    def field(self, file: str, name: str) -> int:
        rows = dict(line.split() for line in (self.path / file).read_text().splitlines())
        return int(rows.get(name, 0))

    def killed(self) -> int:
        """Processes that the kernel has ended for want of memory."""
        return self.field("memory.oom_control" if self.is_v1 else "memory.events", "oom_kill")

    def anonymous(self) -> int:
        return self.field("memory.stat", "total_rss" if self.is_v1 else "anon")

    def used(self) -> int:
        return self.number("memory.usage_in_bytes", "memory.current")

    def remove(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.1)


class Link:
    """A cable between this host and a namespace."""

    def __init__(self, name: str, number: int) -> None:
        self.space, self._end = name, f"{name}-h"
        self.here, self._there = f"10.78.{number}.1", f"10.78.{number}.2"
        self.is_up = True
        _call("ip", "netns", "add", self.space)
        _call("ip", "link", "add", self._end, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        _call("ip", "address", "add", f"{self.here}/24", "dev", self._end)
        _call("ip", "link", "set", self._end, "up")
        for words in (("address", "add", f"{self._there}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            _call("ip", "-n", self.space, *words)
        _call("ip", "-n", self.space, "link", "set", "lo", "up")

    def set(self, *, up: bool, told: bool = True) -> None:
        """``told``: both ends see the carrier go; else packets are dropped, and nobody hears of it."""
        if up:
            _call("ip", "link", "set", self._end, "up")
            _call("ip", "-n", self.space, "route", "flush", "type", "blackhole")
        elif told:
            _call("ip", "link", "set", self._end, "down")
        else:
            _call("ip", "-n", self.space, "route", "add", "blackhole", f"{self.here}/32")
        self.is_up = up

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", self._end], check=False, capture_output=True)


def _call(*argv: str) -> None:
    subprocess.run(argv, check=True)


class Play:
    """One run. ``runtime`` are the edge's options for what runs its pods."""

    def __init__(self, folder: Path, options: argparse.Namespace, runtime: tuple[str, ...], image: str) -> None:
        self._folder, self._options, self._runtime, self._image = folder, options, runtime, image
        self._program = Path(options.dist) / "lib" / "kubeedge" / "edgesite" if options.dist else rig.PROGRAM
        self._draw = random.Random(options.seed)
        self._ports = [rig.free_port() for _ in range(3)]
        self._name = f"eslim{os.getpid()}"
        self.cuts = self.changes = 0
        self._last: dict[str, str] = {}  # values by ConfigMap

    def run(self) -> bool:
        """Returns whether it has survived."""
        link = Link(self._name, os.getpid() % 250 + 1)
        group = Group(self._name, self._options.limit * MIB)
        try:
            with self._cloud(link) as cloud:
                cloud.wait_line("ready after")
                with self._edge(link, group) as edge, rig.Api(self._folder / "cloud" / "admin.kubeconfig") as api:
                    edge.wait_line("node=small is registered")
                    return self._play(api, edge, link, group)
        finally:
            link.remove()
            group.remove()

    def _play(self, api: rig.Api, edge: rig.Program, link: Link, group: Group) -> bool:
        names = [f"pod-{number}" for number in range(self._options.pods)]
        for name in names:
            api.call("POST", MAPS, {"metadata": {"name": name}, "data": {"value": "first"}})
            api.call("POST", PODS, self._pod(name))
        rig.wait_running(api, len(names))
        rig.line("ten pods Running: anonymous memory", f"{group.anonymous() / MIB:.1f} MiB")
        containers = _containers(api)
        highest = self._flap(api, link, group, names)
        link.set(up=True)
        survived = self._is_well(api, containers, edge)
        rig.line("most anonymous memory of the edge role", f"{highest / MIB:.1f} MiB", f"{self._options.limit} MiB")
        rig.line("  at the end", f"{group.anonymous() / MIB:.1f} MiB")
        most = group.number("memory.max_usage_in_bytes", "memory.peak")
        rig.line("most of all memory, with the kernel's cache of files", f"{most / MIB:.1f} MiB")
        rig.line("processes that the kernel has ended", str(group.killed()), "0")
        rig.line("cuts of the link; changes meanwhile", f"{self.cuts}; {self.changes}")
        rig.line("survived", "yes" if survived and not group.killed() else "no", "yes")
        rig.remove_pods(api)
        return survived and not group.killed()

    def _flap(self, api: rig.Api, link: Link, group: Group, names: list[str]) -> int:
        """Returns the most anonymous memory that was seen."""
        end, next_turn, highest, extra = time.monotonic() + self._options.seconds, 0.0, 0, 0
        while (now := time.monotonic()) < end:
            if now >= next_turn:
                if link.is_up:
                    link.set(up=False, told=self._draw.random() < 0.5)
                    self.cuts += 1
                else:
                    link.set(up=True)
                next_turn = now + self._draw.uniform(2, 8)
                extra = self._turn_over(api, extra)
            for name in names:
                value = self._last[name] = str(self.changes)
                api.call("PUT", f"{MAPS}/{name}", {"metadata": {"name": name}, "data": {"value": value}})
                self.changes += 1
            highest = max(highest, group.anonymous())
            time.sleep(_STEP_S)
        return highest

    def _turn_over(self, api: rig.Api, number: int) -> int:
        """One pod more, one of the former less."""
        api.call("POST", PODS, self._pod(f"extra-{number + 1}", with_map=False))
        if number:
            api.call("DELETE", f"{PODS}/extra-{number}")
        self.changes += 2
        return number + 1

    def _is_well(self, api: rig.Api, containers: dict[str, str], edge: rig.Program) -> bool:
        began = time.monotonic()
        while time.monotonic() < began + _SETTLE_S:
            ready = {one["type"]: one["status"] for one in api.call("GET", _NODE)["status"]["conditions"]}["Ready"]
            now = {name: one for name, one in _containers(api).items() if name in containers}
            if ready == "True" and now == containers and edge.process.poll() is None and self._has_last(now):
                rig.line("all is as it should be, after the last cut", f"{time.monotonic() - began:.1f} s")
                return True
            time.sleep(0.5)
        print("\n".join(text for _, text in edge.lines[-30:]), file=sys.stderr)
        return False

    def _has_last(self, names: Iterable[str]) -> bool:
        """Whether each pod's volume has what its ConfigMap had last."""
        files = self._folder.glob("edge/**/volumes/kubernetes.io~configmap/map/value")
        return sorted(one.read_text() for one in files) == sorted(self._last[name] for name in names)

    def _pod(self, name: str, *, with_map: bool = True) -> dict[str, Any]:
        made = rig.pod(name, self._image, ["sleep", "86400"], nodeName="small")
        if with_map:
            made["spec"]["volumes"] = [{"name": "map", "configMap": {"name": name}}]
            made["spec"]["containers"][0]["volumeMounts"] = [{"name": "map", "mountPath": "/map"}]
        return made

    def _cloud(self, link: Link) -> rig.Program:
        where = ("--data-dir", str(self._folder / "cloud"), "--api-address", f"127.0.0.1:{rig.free_port()}")
        return rig.Program("cloud", *where, "--advertise-address", link.here, *self._port_options())

    def _edge(self, link: Link, group: Group) -> rig.Program:
        asked = [str(rig.PROGRAM), "token", "--data-dir", str(self._folder / "cloud")]
        token = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        where = ("--data-dir", str(self._folder / "edge"), "--cloud", link.here, "--node-name", "small")
        enter = ("-c", _JOIN, str(group.path / "cgroup.procs"), "ip", "netns", "exec", link.space, str(self._program))
        words = ("edge", *where, *self._runtime, *self._port_options(), *rig.EDGE_PORTS, "--token", token)
        return rig.Program(*enter, *words, program=Path(sys.executable))

    def _port_options(self) -> tuple[str, ...]:
        names = ("--hub-port", "--bootstrap-port", "--tunnel-port")
        return tuple(part for name, port in zip(names, self._ports, strict=True) for part in (name, str(port)))


def _containers(api: rig.Api) -> dict[str, str]:
    """The container that runs in each pod, by the pod's name."""
    found = {}
    for one in api.call("GET", PODS)["items"]:
        (status,) = one.get("status", {}).get("containerStatuses") or [{}]
        if "running" in status.get("state", {}):
            found[one["metadata"]["name"]] = status["containerID"]
    return found


@contextlib.contextmanager
def _runtime(name: str, folder: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """The edge's options for a runtime, and an image that it has."""
    if name == "process":
        yield ("--runtime", "process"), "host"
        return
    root = f"eslim{os.getpid()}pods"
    setting = f"modules.edged.tailoredKubeletConfig.cgroupRoot=/{root}"
    try:
        with rig.containerd(folder) as daemon:
            yield ("--runtime", "cri", "--cri-endpoint", daemon.endpoint, "--set", setting), BUSYBOX
    finally:
        for top in (*ROOT.glob(f"*/{root}"), ROOT / root):
            _remove_groups(top)


def _remove_groups(top: Path) -> None:
    """Remove empty cgroups, the lowest first."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__)
    parser.add_argument("--dist", default="dist/here")
    parser.add_argument("--runtime", choices=("containerd", "process"), default="containerd")
    parser.add_argument("--limit", type=int, default=100, metavar="MIB")
    parser.add_argument("--pods", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with rig.folder() as folder, _runtime(options.runtime, folder) as (runtime, image):
        return 0 if Play(folder, options, runtime, image).run() else 1


if __name__ == "__main__":
    sys.exit(main())
