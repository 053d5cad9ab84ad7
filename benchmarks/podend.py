"""How long after the end of its grace period a deleted pod is gone from the API, on containerd.

    python -m benchmarks.podend [--pods 20]

Two kinds of programs: one that heeds SIGTERM (gone after the DELETE), and one that does not
(gone after DELETE and its grace of one second). Beside them, the CRI calls that are in it alone: StopContainer and StopPodSandbox. Needs root.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import anyio

from benchmarks import rig
from benchmarks.podrig import PODS, Bare, Pods, in_thread, quantile
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.testing.containerd import Containerd
from edgesite.testing.runtime import running

GRACE_S = 1
TARGET_MS = 100
HEEDS = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]
IGNORES = ["/bin/sleep", "100000"]  # as process 1 it has no handler, and the kernel passes SIGTERM over


async def measure(daemon: Containerd, data: Path, count: int) -> dict[str, list[float]]:
    """Return seconds beyond the grace period by kind."""
    took: dict[str, list[float]] = {"bare": [], "heeds": [], "ignores": []}
    runtime = CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)
    with rig.Api(data / "admin.kubeconfig") as api, api.watch(PODS) as events:
        async with running(runtime):
            bare, pods = Bare(runtime, data), Pods(api, events)
            for number in range(count):
                ids = await bare.start(f"bare{number}")
                started = time.perf_counter()
                await bare.stop(*ids, grace_s=GRACE_S)
                took["bare"].append(time.perf_counter() - started - GRACE_S)
                await bare.remove(ids[0])
                for kind, command, grace_s in (("heeds", HEEDS, 0), ("ignores", IGNORES, GRACE_S)):
                    name = f"{kind}{number}"
                    await in_thread(pods.start, name, command)
                    await anyio.sleep(0.2)  # the shell has to come to its trap
                    took[kind].append(await in_thread(pods.delete, name) - grace_s)
    return took


def report(took: dict[str, list[float]]) -> None:
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        bare = quantile(took["bare"], part)
        rig.line(f"StopContainer and StopPodSandbox after the grace, {name}", f"{bare * 1e3:.0f} ms")
        for kind, what in (("heeds", "DELETE to gone, program heeds SIGTERM"), ("ignores", "end of grace to gone")):
            whole = quantile(took[kind], part)
            rig.line(f"{what}, {name}", f"{whole * 1e3:.0f} ms", f"{TARGET_MS} ms")
            rig.line("  against the CRI calls", f"{whole / bare:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=20)
    count = parser.parse_args().pods
    with rig.folder() as folder, rig.containerd(folder) as daemon:
        data = folder / "data"
        with rig.site(data, "--cri-endpoint", daemon.endpoint, runtime="cri"):
            report(anyio.run(measure, daemon, data, count))


if __name__ == "__main__":
    main()
