"""kill -9 of the whole program at each call that makes or ends a part of a pod: before the runtime has it, while it works, and after.

A pod with an init container and two main ones goes up, and another time down; the program is killed at one call after the other, each
time started again over what it left, and the pod gets where it should with every container once, and leaves nothing.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from edged_site import FOREVER, container, none_runs, nothing_left

from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.runtime import ContainerState, SandboxState
from edgesite.edge.edged.volumes.host import unmount
from edgesite.testing.containerd import Containerd
from edgesite.testing.criproxy import CriProxy, When, cri_proxy
from edgesite.testing.runtime import running
from edgesite.testing.waiting import until

sys.path.insert(0, str(Path(__file__).parents[3]))
from benchmarks import rig

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]
PODS = "/api/v1/namespaces/default/pods"
MAKING = ("RunPodSandbox", "CreateContainer", "StartContainer")
ENDING = ("StopContainer", "StopPodSandbox", "RemoveContainer", "RemovePodSandbox")
#: Kills on both sides of each call follow each other in one life of a pod; what comes of one that was cut off is the runtime's affair.
AROUND = (
    [(method, when) for method in MAKING for when in (When.ASKED, When.ANSWERED)],
    [
        (ENDING[0], When.ASKED),
        *((method, When.ANSWERED) for method in ENDING[:3]),
        (ENDING[3], When.ASKED),
        (ENDING[3], When.ANSWERED),
    ],
)
AMIDST = ([(method, When.UNDER_WAY) for method in (*MAKING, *MAKING[1:])], [(one, When.UNDER_WAY) for one in ENDING])


class Killed:
    """The program, which is killed at calls and started again."""

    def __init__(self, path: Path, proxy: CriProxy) -> None:
        self._path, self._proxy = path, proxy
        self._program: rig.Program | None = None

    async def start(self) -> None:
        await self._launch()
        assert self._program is not None
        await anyio.to_thread.run_sync(self._program.wait_line, "Ready after")

    async def stop(self) -> None:
        """End it, or wait until the system has taken it away."""
        if self._program is not None:
            await anyio.to_thread.run_sync(self._program.__exit__)
            self._program = None

    def log(self) -> str:
        """The end of what the program said, for whoever waited in vain."""
        return "\n".join(text for _, text in self._program.lines[-30:]) if self._program is not None else ""

    async def _launch(self) -> None:
        where = ("--data-dir", str(self._path / "data"), "--node-name", "node1", "--api-address", "127.0.0.1:0")
        options = ("--runtime", "cri", "--cri-endpoint", f"unix://{self._path}/cri.sock", *rig.UP_PORTS)
        self._program = await anyio.to_thread.run_sync(functools.partial(rig.Program, "up", *where, *options))

    def _kill_at(self, method: str, when: When) -> anyio.Event:
        """Kill the program at the next such call."""
        happened = anyio.Event()

        async def kill() -> None:
            assert self._program is not None
            os.kill(self._program.pid, signal.SIGKILL)
            happened.set()
            await anyio.sleep_forever()  # whatever was on its way is lost with the connection

        self._proxy.act(method, when, kill)
        return happened

    async def call(self, method: str, path: str, body: object = None) -> Any:
        def ask() -> Any:
            with rig.Api(self._path / "data" / "admin.kubeconfig") as api:
                return api.call(method, path, body)

        return await anyio.to_thread.run_sync(ask)

    async def status(self) -> dict[str, Any]:
        status: dict[str, Any] = (await self.call("GET", f"{PODS}/web"))["status"]
        return status

    async def is_ready(self) -> bool:
        found = (await self.status()).get("conditions") or ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in found)

    async def is_gone(self) -> bool:
        return not (await self.call("GET", PODS))["items"]

    async def kill_through(self, points: list[tuple[str, When]], begin: Callable[[], Awaitable[Any]]) -> Any:
        """Kill it at each of these calls in turn, the first of which comes because of ``begin``; return what that gives."""
        begun = None
        for number, point in enumerate(points):
            happened = self._kill_at(*point)
            if number:
                await self._launch()
            else:
                begun = await begin()
            with anyio.move_on_after(30):
                await happened.wait()
            assert happened.is_set(), f"{point} never came; calls {self._proxy.calls[-20:]}\n{self.log()}"
            await self.stop()
        await self.start()
        return begun


@asynccontextmanager
async def site(daemon: Containerd, path: Path) -> AsyncGenerator[Killed]:
    async with cri_proxy(path / "cri.sock", daemon.socket) as proxy:
        made = Killed(path, proxy)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()


@pytest.fixture(autouse=True)
def nothing_stays_mounted(tmp_path: Path) -> Iterator[None]:
    """A test that fails leaves a pod's tmpfs, and the folder could not be removed."""
    yield
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if (target := line.split(" ")[4]).startswith(f"{tmp_path}/"):
            unmount(Path(target))


def a_pod() -> dict[str, Any]:
    mounts = [{"name": "work", "mountPath": "/work"}, {"name": "held", "mountPath": "/held"}]
    init = container("setup", ["/bin/sh", "-c", "echo made >> /work/file"], volumeMounts=mounts)
    spec = {
        "terminationGracePeriodSeconds": 1,
        "initContainers": [init],
        "containers": [container(name, FOREVER, volumeMounts=mounts) for name in ("one", "two")],
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "held", "emptyDir": {"medium": "Memory"}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


async def runs_once(daemon: Containerd) -> None:
    async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:
        sandboxes = [one for one in await runtime.list_sandboxes() if one.state is SandboxState.READY]
        names = sorted(one.name for one in await runtime.list_containers() if one.state is ContainerState.RUNNING)
    assert len(sandboxes) == 1
    assert names == ["one", "two"]


@pytest.mark.parametrize(("up", "down"), [AROUND, AMIDST], ids=["around", "amidst"])
async def test_a_pod_goes_up_and_down_over_a_kill_at_each_call(
    daemon: Containerd, tmp_path: Path, up: list[tuple[str, When]], down: list[tuple[str, When]]
) -> None:
    async with site(daemon, tmp_path) as killed:
        made = await killed.kill_through(up, lambda: killed.call("POST", PODS, a_pod()))
        uid = made["metadata"]["uid"]
        await until(killed.is_ready, 60)
        await runs_once(daemon)
        await killed.kill_through(down, lambda: killed.call("DELETE", f"{PODS}/web"))
        await until(killed.is_gone, 60)
        await until(functools.partial(none_runs, daemon))
        await until(functools.partial(has_no_files, tmp_path / "data", uid))
    await nothing_left(daemon, tmp_path, [uid])


async def has_no_files(folder: Path, uid: str) -> bool:
    return not [one async for one in anyio.Path(folder).rglob(f"*{uid}*")]
