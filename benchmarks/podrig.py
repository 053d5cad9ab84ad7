"""What the benchmarks of pods share: the bare CRI calls of a pod's life, and pods through the API, on one containerd.

Units   Seconds.
Errors  RuntimeFault of the runtime; BenchmarkFailed when a pod does not get where it should.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio

from benchmarks import rig
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.runtime import ContainerConfig, Mount, SandboxConfig
from edgesite.testing.containerd import BUSYBOX

__all__ = ["COMMAND", "PODS", "Bare", "Pods", "in_thread", "quantile"]

PODS: Final = "/api/v1/namespaces/default/pods"
T = TypeVar("T")
COMMAND: Final = ["/bin/sleep", "100000"]


class Bare:
    """The CRI calls of one pod, with nothing around them."""

    def __init__(self, runtime: CriRuntime, folder: Path) -> None:
        self._runtime, self._folder = runtime, folder
        (folder / "hosts").write_text("127.0.0.1 localhost\n")

    async def start(self, name: str) -> tuple[str, str]:
        """Return the ids of the sandbox and of its container."""
        logs = self._folder / name
        (logs / "main").mkdir(parents=True)
        sandbox = SandboxConfig(name, "bare", name, hostname=name, log_directory=str(logs))
        mounts = (Mount("/etc/hosts", str(self._folder / "hosts")),)
        sandbox_id = await self._runtime.run_sandbox(sandbox)
        await self._runtime.sandbox_status(sandbox_id)
        image = await self._runtime.image_status(BUSYBOX)
        assert image is not None
        config = ContainerConfig("main", image.id, command=tuple(COMMAND), mounts=mounts, log_path="main/0.log")
        container_id = await self._runtime.create_container(sandbox_id, config, sandbox)
        await self._runtime.start_container(container_id)
        await self._runtime.container_status(container_id)
        return sandbox_id, container_id

    async def timed_start(self, name: str) -> float:
        started = time.perf_counter()
        await self.start(name)
        return time.perf_counter() - started

    async def stop(self, sandbox_id: str, container_id: str, grace_s: float) -> None:
        """What has to be done before a pod can be said to be gone."""
        await self._runtime.stop_container(container_id, grace_s)
        await self._runtime.stop_sandbox(sandbox_id)

    async def remove(self, sandbox_id: str) -> None:
        await self._runtime.stop_sandbox(sandbox_id)
        await self._runtime.remove_sandbox(sandbox_id)


class Pods:
    """Pods through the API; waits for each on one watch of its own."""

    def __init__(self, api: rig.Api, events: Iterator[dict[str, Any]]) -> None:
        self._api, self._events = api, events

    def start(self, name: str, command: list[str] | None = None, **spec: Any) -> float:
        """Create one and return how long it took until it was Running."""
        started = time.perf_counter()
        self._api.call("POST", PODS, rig.pod(name, BUSYBOX, command or COMMAND, **spec))
        self.wait(lambda event: _is(event, name) and _runs(event))
        return time.perf_counter() - started

    def start_all(self, names: Sequence[str]) -> float:
        """Create all as fast as one client can, and return how long it took until the last was Running."""
        started = time.perf_counter()
        for name in names:
            self._api.call("POST", PODS, rig.pod(name, BUSYBOX, COMMAND))
        left = set(names)

        def last(event: dict[str, Any]) -> bool:
            if _runs(event):
                left.discard(event["object"]["metadata"]["name"])
            return not left

        self.wait(last)
        return time.perf_counter() - started

    def delete(self, name: str) -> float:
        """Delete one and return how long it took until it was gone from the API."""
        started = time.perf_counter()
        self._api.call("DELETE", f"{PODS}/{name}")
        self.wait(lambda event: _is(event, name) and event["type"] == "DELETED")
        return time.perf_counter() - started

    def wait(self, done: Callable[[dict[str, Any]], bool]) -> None:
        for event in self._events:
            if done(event):
                return
        raise rig.BenchmarkFailed("the watch ended")


def _is(event: dict[str, Any], name: str) -> bool:
    return bool(event["object"]["metadata"]["name"] == name)


def _runs(event: dict[str, Any]) -> bool:
    return bool(event["object"].get("status", {}).get("phase") == "Running")


def quantile(values: Sequence[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """Cancelled, it does not wait: the thread ends when the program that it asks is gone."""
    return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True)
