"""Pod start on containerd, image present: from API create to Running seen by a watch, less what the same CRI calls take alone.

    python -m benchmarks.pods [--pods 100]

Pods start one after another. Before each, the same calls are made by a bare loop on the same containerd (sandbox, image, container,
start, status), so that both see the same machine. The client is a process of its own: its share is in the figure. Needs root.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio

from benchmarks import rig
from benchmarks.podrig import PODS, Bare, Pods, in_thread, quantile
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.testing.containerd import Containerd
from edgesite.testing.runtime import running

TARGETS_MS: Final = {"p50": 60, "p99": 200}


async def measure(daemon: Containerd, data: Path, count: int) -> tuple[list[float], list[float]]:
    """Return seconds of each bare start and of each pod."""
    bare_s, pod_s = [], []
    runtime = CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)
    with rig.Api(data / "admin.kubeconfig") as api, api.watch(PODS) as events:
        async with running(runtime):
            bare, pods = Bare(runtime, data), Pods(api, events)
            for number in range(-2, count):  # the first ones warm both up
                bare_s.append(await bare.timed_start(f"bare{number + 2}"))
                pod_s.append(await in_thread(pods.start, f"pod{number + 2}"))
    return bare_s[2:], pod_s[2:]


def report(bare_s: Sequence[float], pod_s: Sequence[float]) -> None:
    """The share is taken twice: pod by pod against the bare start just before it, and between the percentiles of both."""
    own = [pod - bare for pod, bare in zip(pod_s, bare_s, strict=True)]
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        bare, whole = quantile(bare_s, part), quantile(pod_s, part)
        rig.line(f"CRI calls alone, {name}", f"{bare * 1e3:.0f} ms")
        rig.line(f"API create to Running, {name}", f"{whole * 1e3:.0f} ms")
        rig.line(f"  own share, {name} less {name}", f"{(whole - bare) * 1e3:.0f} ms", f"{TARGETS_MS[name]} ms")
        rig.line(f"  own share, {name} of {len(own)} differences", f"{quantile(own, part) * 1e3:.0f} ms")
    rig.line(
        "API create to Running / CRI calls alone, of medians", f"{quantile(pod_s, 0.5) / quantile(bare_s, 0.5):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=100)
    count = parser.parse_args().pods
    with rig.folder() as folder, rig.containerd(folder) as daemon:
        data = folder / "data"
        with rig.site(data, "--cri-endpoint", daemon.endpoint, runtime="cri") as program:
            before = rig.usage(program.pid)
            report(*anyio.run(measure, daemon, data, count))
            spent = rig.usage(program.pid).cpu_s - before.cpu_s
            rig.line("CPU of edgesite per pod", f"{spent / (count + 2) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
