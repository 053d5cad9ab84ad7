"""Pod start on containerd, image present: from API create to Running seen by a watch, less what the same CRI calls take alone.

    python -m benchmarks.pods [--pods 100]

Pods start one after another. Before each, the same calls are made by a bare loop on the same containerd (sandbox, image, container,
start, status), so that both see the same machine. The client is a process of its own: its share is in the figure. Needs root.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import anyio

from benchmarks import rig
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.runtime import ContainerConfig, Mount, SandboxConfig
from edgesite.testing.containerd import BUSYBOX, Containerd, containerd
from edgesite.testing.runtime import running

PODS: Final = "/api/v1/namespaces/default/pods"
COMMAND: Final = ["/bin/sleep", "100000"]
TARGETS_MS: Final = {"p50": 100, "p99": 300}


class Bare:
    """The CRI calls of one pod start, with nothing around them."""

    def __init__(self, runtime: CriRuntime, folder: Path) -> None:
        self._runtime, self._folder = runtime, folder
        (folder / "hosts").write_text("127.0.0.1 localhost\n")

    async def start(self, name: str) -> float:
        logs = self._folder / name
        (logs / "main").mkdir(parents=True)
        sandbox = SandboxConfig(name, "bare", name, hostname=name, log_directory=str(logs))
        mounts = (Mount("/etc/hosts", str(self._folder / "hosts")),)
        started = time.perf_counter()
        sandbox_id = await self._runtime.run_sandbox(sandbox)
        await self._runtime.sandbox_status(sandbox_id)
        image = await self._runtime.image_status(BUSYBOX)
        assert image is not None
        config = ContainerConfig("main", image.id, command=tuple(COMMAND), mounts=mounts, log_path="main/0.log")
        container_id = await self._runtime.create_container(sandbox_id, config, sandbox)
        await self._runtime.start_container(container_id)
        await self._runtime.container_status(container_id)
        return time.perf_counter() - started


class Pods:
    """Creates pods through the API and waits for each on one watch."""

    def __init__(self, api: rig.Api, events: Iterator[dict[str, Any]]) -> None:
        self._api, self._events = api, events

    def start(self, name: str) -> float:
        started = time.perf_counter()
        self._api.call("POST", PODS, rig.pod(name, BUSYBOX, COMMAND))
        for event in self._events:
            obj = event["object"]
            if obj["metadata"]["name"] == name and obj.get("status", {}).get("phase") == "Running":
                return time.perf_counter() - started
        raise rig.BenchmarkFailed("the watch ended")


async def measure(daemon: Containerd, data: Path, count: int) -> tuple[list[float], list[float]]:
    """Return seconds of each bare start and of each pod."""
    bare_s, pod_s = [], []
    runtime = CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)
    with rig.Api(data / "admin.kubeconfig") as api, api.watch(PODS) as events:
        async with running(runtime):
            bare, pods = Bare(runtime, data), Pods(api, events)
            for number in range(-2, count):  # the first ones warm both up
                bare_s.append(await bare.start(f"bare{number + 2}"))
                pod_s.append(await anyio.to_thread.run_sync(pods.start, f"pod{number + 2}"))
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


def quantile(values: Sequence[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=100)
    count = parser.parse_args().pods
    with rig.folder() as folder, containerd() as daemon:
        data = folder / "data"
        with rig.site(data, "--cri-endpoint", daemon.endpoint, runtime="cri") as program:
            before = rig.usage(program.pid)
            report(*anyio.run(measure, daemon, data, count))
            spent = rig.usage(program.pid).cpu_s - before.cpu_s
            rig.line("CPU of edgesite per pod", f"{spent / (count + 2) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
