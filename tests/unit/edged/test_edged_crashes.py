"""Edged is cut off at any moment, again and again: what it finds afterwards it finishes, and nothing runs twice.

The runtime takes a little time for each call, so that the cuts fall between any two steps. Each parameter is another seed.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesite.edge.edged.runtime import ContainerConfig, ContainerState
from edgesite.net.real import RealClock
from edgesite.testing.edgedrig import NODE, edged_rig
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.fakeruntime import FakeContainer, FakeEngine, FakeRuntime, Script
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
IMAGE = "docker.io/library/busybox:1"


class Machine:
    """Notes it when a container starts beside a running one of the same name and pod."""

    def __init__(self) -> None:
        self.twice: list[str] = []
        self.engine = FakeEngine(RealClock(), self._script, images=[IMAGE], latency_s=0.002, started=self._started)

    def _script(self, config: ContainerConfig) -> Script:
        return Script(run_s=0.01) if config.name == "setup" else Script()

    def _started(self, container: FakeContainer) -> None:
        self.engine.settle()
        same = [
            one
            for one in self.engine.containers.values()
            if one.state is ContainerState.RUNNING
            and (one.config.name, one.sandbox.config.uid) == (container.config.name, container.sandbox.config.uid)
        ]
        if len(same) > 1:
            self.twice.append(container.config.name)

    async def is_empty(self) -> bool:
        return not self.engine.sandboxes

    def running(self) -> list[str]:
        self.engine.settle()
        running = (one for one in self.engine.containers.values() if one.state is ContainerState.RUNNING)
        return sorted(one.config.name for one in running)


def a_pod() -> dict[str, Any]:
    mounts = [{"name": "conf", "mountPath": "/conf"}]
    containers = [{"name": name, "image": IMAGE, "volumeMounts": mounts} for name in ("one", "two")]
    spec = {
        "initContainers": [{"name": "setup", "image": IMAGE}],
        "containers": containers,
        "volumes": [{"name": "conf", "configMap": {"name": "conf"}}],
    }
    return {"metadata": {"name": "web"}, "spec": spec}


async def cut_after(machine: Machine, cloud: FakeCloud, path: Path, seconds: float) -> None:
    """Run edged for a moment, and stop it as a kill would: wherever it stands."""
    with anyio.move_on_after(seconds):
        async with edged_rig(lambda ctx: FakeRuntime(machine.engine), path, cloud=cloud):
            await anyio.sleep_forever()


@pytest.mark.parametrize("seed", range(6))
async def test_a_pod_comes_up_and_goes_down_over_any_row_of_crashes(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    machine, cloud = Machine(), FakeCloud(NODE)
    await cloud.apply("configmap", {"metadata": {"name": "conf"}, "data": {"a": "1"}})
    await cloud.apply("pod", a_pod())
    for _ in range(8):
        await cut_after(machine, cloud, tmp_path, chance.uniform(0.005, 0.08))
    async with edged_rig(lambda ctx: FakeRuntime(machine.engine), tmp_path, cloud=cloud):
        await cloud.until(lambda: is_ready(cloud))
        await cloud.until(lambda: machine.running() == ["one", "two"])
    assert machine.twice == []
    assert sum(one.state.value == "ready" for one in machine.engine.sandboxes.values()) == 1
    await cloud.delete("web", grace_s=5)
    for _ in range(6):
        await cut_after(machine, cloud, tmp_path, chance.uniform(0.005, 0.05))
    async with edged_rig(lambda ctx: FakeRuntime(machine.engine), tmp_path, cloud=cloud):
        await cloud.until(lambda: ("pod", "default", "web") not in cloud.objects)
        await until(machine.is_empty, 10)
    assert machine.engine.containers == {}
    left = [str(one) async for one in anyio.Path(tmp_path, "edged", "pods").glob("*")]
    assert left == []


def is_ready(cloud: FakeCloud) -> bool:
    found = cloud.status("web").get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in found)
