"""Many pods at once on containerd, image present: how long until all are Running, against the same CRI calls all at once.

    python -m benchmarks.podburst [--pods 30 100] [--rounds 3]

Each round makes the calls of so many pods at the same time by a bare loop, then creates as many pods through the API, then does the
former again; all of it is removed between the rounds. The ratio is of medians: 1 is the rate that containerd alone allows. Needs root.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from benchmarks import rig
from benchmarks.podrig import PODS, Bare, Pods, in_thread
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.testing.containerd import Containerd
from edgesite.testing.runtime import running

TARGET = 0.8


async def bare_burst(bare: Bare, count: int, label: str) -> float:
    """Return how long so many starts at once take; what was started is removed."""
    sandboxes: list[str] = []

    async def one(number: int) -> None:
        sandbox_id, _ = await bare.start(f"{label}-{number}")
        sandboxes.append(sandbox_id)

    started = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, number)
    took = time.perf_counter() - started
    async with anyio.create_task_group() as tasks:
        for sandbox_id in sandboxes:
            tasks.start_soon(bare.remove, sandbox_id)
    return took


async def measure(daemon: Containerd, data: Path, count: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return seconds of each bare burst and of each burst of pods."""
    bare_s, pods_s = [], []
    runtime = CriRuntime(daemon.endpoint, "", request_timeout_s=120.0)
    with rig.Api(data / "admin.kubeconfig") as api, api.watch(PODS) as events:
        async with running(runtime):
            bare, pods = Bare(runtime, data), Pods(api, events)
            for turn in range(rounds):
                bare_s.append(await bare_burst(bare, count, f"bare{count}-{turn}a"))
                names = [f"pod{count}-{turn}-{number}" for number in range(count)]
                pods_s.append(await in_thread(pods.start_all, names))
                await in_thread(rig.remove_pods, api)
                bare_s.append(await bare_burst(bare, count, f"bare{count}-{turn}b"))
    return bare_s, pods_s


def report(count: int, bare_s: Sequence[float], pods_s: Sequence[float]) -> None:
    bare, pods = statistics.median(bare_s), statistics.median(pods_s)
    rig.line(f"{count} at once, CRI calls alone", f"{bare:.2f} s")
    rig.line(f"{count} pods at once, API create to all Running", f"{pods:.2f} s")
    rig.line("  rate against CRI calls alone", f"{bare / pods:.2f}", f"{TARGET}")
    print(f"  bare {[round(one, 2) for one in bare_s]}, pods {[round(one, 2) for one in pods_s]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, nargs="+", default=[30, 100])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with rig.folder() as folder, rig.containerd(folder) as daemon:
        data = folder / "data"
        with rig.site(data, "--cri-endpoint", daemon.endpoint, runtime="cri") as program:
            for count in options.pods:
                before = rig.usage(program.pid)
                report(count, *anyio.run(measure, daemon, data, count, options.rounds))
                spent = rig.usage(program.pid).cpu_s - before.cpu_s
                rig.line("  CPU of edgesite per pod, start and end", f"{spent / count / options.rounds * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
