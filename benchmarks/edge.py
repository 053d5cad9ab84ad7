"""The edge role alone on containerd, with pods that run: resident memory, CPU and wake-ups while idle, and what probes cost.

    python -m benchmarks.edge [--pods 10 50] [--seconds 60] [--probes http tcp exec] [--probed 100]

CPU is user and system seconds of the edge's process against the time that passed, and of containerd with its shims beside it. Probes:
so many containers (ten a pod) with a readiness probe each second of one kind, from which the idle share of the same pods is not
taken off. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import idle, rig
from benchmarks.apart import Apart
from benchmarks.podrig import COMMAND, PODS
from edgesite.testing.containerd import BUSYBOX, Containerd

MEMORY_MB = {10: 55, 50: 65}
IDLE_PERCENT, PROBES_PERCENT = 1.0, 10.0
A_POD = 10  #: probed containers
FIRST_PORT = 8000
SETTLE_S = 12.0  #: what the start of pods still moves: statuses, events, renewals


@dataclass(slots=True)
class Edge:
    program: rig.Program
    env: dict[str, str]
    api: rig.Api
    daemon: Containerd


@contextlib.contextmanager
def edge_role(folder: Path, daemon: Containerd) -> Iterator[Edge]:
    apart = Apart(folder, ("--runtime", "cri", "--cri-endpoint", daemon.endpoint))
    env = idle.imported_env(folder / "e")
    with apart.cloud() as cloud:
        cloud.wait_line("ready after")
        with apart.edge(apart.token(), env) as program:
            program.wait_line("node=node1 is registered")
            with apart.api() as api:
                yield Edge(program, env, api, daemon)


def spent(edge: Edge, seconds: float) -> tuple[idle.Spent, float]:
    """Leave it alone for some time; return what the edge spent, and percent of a core of its runtime."""
    before = runtime_cpu_s(edge.daemon)
    result = idle.spent({"edge": edge.program}, seconds)["edge"]
    return result, (runtime_cpu_s(edge.daemon) - before) / seconds * 100


def runtime_cpu_s(daemon: Containerd) -> float:
    """CPU of containerd, its shims and their children that have ended, so far."""
    ticks = 0
    for pid in daemon.pids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(one) for one in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle_with(folder: Path, counts: list[int], seconds: float) -> None:
    with rig.containerd(folder) as daemon, edge_role(folder, daemon) as edge:
        here = 0
        for count in counts:
            for number in range(here, count):
                edge.api.call("POST", PODS, rig.pod(f"idle{number}", BUSYBOX, COMMAND))
            here = count
            rig.wait_running(edge.api, count, 180.0)
            time.sleep(SETTLE_S)
            used, runtime_percent = spent(edge, seconds)
            now = rig.usage(edge.program.pid)
            mark = MEMORY_MB.get(count)
            rig.line(f"{count} pods: RSS", f"{now.rss / 1e6:.1f} MB", f"{mark} MB" if mark else "")
            rig.line("  PSS, threads", f"{now.pss / 1e6:.1f} MB, {now.threads}")
            rig.line(f"  CPU in {seconds:g} s", f"{used.cpu_percent:.2f} %", f"{IDLE_PERCENT} %" if count == 50 else "")
            rig.line("  wake-ups a second, all threads", f"{used.wakeups_per_s:.1f}")
            rig.line("  containerd and its shims, CPU", f"{runtime_percent:.2f} %")
        rig.line("modules", f"{idle.held(edge.program, edge.env).modules}")


def probed(folder: Path, kind: str, count: int, seconds: float) -> None:
    with rig.containerd(folder) as daemon, edge_role(folder, daemon) as edge:
        for number in range(count // A_POD):
            edge.api.call("POST", PODS, _pod(f"{kind}{number}", kind))
        rig.wait_running(edge.api, count // A_POD, 180.0)
        time.sleep(SETTLE_S)
        used, runtime_percent = spent(edge, seconds)
        mark = f"{PROBES_PERCENT} %"
        rig.line(f"{kind} probe a second on {count} containers: CPU", f"{used.cpu_percent:.1f} %", mark)
        rig.line("  a probe", f"{used.cpu_percent / 100 / count * 1e6:.0f} µs")
        rig.line("  containerd, its shims and what they run, CPU", f"{runtime_percent:.1f} %")


def _pod(name: str, kind: str) -> dict[str, Any]:
    containers = []
    for number in range(A_POD):
        port = FIRST_PORT + number
        probes: dict[str, dict[str, Any]] = {
            "http": {"httpGet": {"path": "/", "port": port}},
            "tcp": {"tcpSocket": {"port": port}},
            "exec": {"exec": {"command": ["/bin/true"]}},
        }
        serve = f"echo hi > /tmp/index.html; exec httpd -f -p {port} -h /tmp"
        command = COMMAND if kind == "exec" else ["/bin/sh", "-c", serve]
        readiness = {**probes[kind], "periodSeconds": 1, "timeoutSeconds": 5}
        made = rig.pod(name, BUSYBOX, command)["spec"]["containers"][0]
        containers.append(made | {"name": f"main{number}", "readinessProbe": readiness})
    return rig.pod(name, BUSYBOX, COMMAND, containers=containers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, nargs="*", default=[10, 50])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--probes", nargs="*", default=["http", "tcp", "exec"], choices=["http", "tcp", "exec"])
    parser.add_argument("--probed", type=int, default=100)
    options = parser.parse_args()
    if options.pods:
        with rig.folder() as folder:
            idle_with(folder, sorted(options.pods), options.seconds)
    for kind in options.probes:
        with rig.folder() as folder:
            probed(folder, kind, options.probed, options.seconds)


if __name__ == "__main__":
    main()
