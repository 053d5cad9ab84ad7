"""Resources that change while a container runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edged_machine import IMAGE, Machine, condition, container, pod

from edgesite.edge.edged.runtime import LinuxResources
from edgesite.testing.fakemeta import FakeCloud

pytestmark = pytest.mark.anyio


@pytest.fixture
def machine() -> Machine:
    return Machine()


def sized(cpu: str, memory: str, **more: Any) -> dict[str, Any]:
    resources = {"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}}
    return pod(containers=[{"name": "main", "image": IMAGE, "resources": resources, **more}])


def limits(machine: Machine) -> LinuxResources:
    (found,) = [one for one in machine.engine.containers.values() if one.state.value == "running"]
    return found.resources


def shown(cloud: FakeCloud) -> str:
    return str((container(cloud).get("resources") or {}).get("limits", {}).get("cpu", ""))


async def test_a_container_is_resized_where_it_runs(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        cloud = rig.cloud
        await cloud.apply("pod", sized("100m", "64Mi"))
        await cloud.until(lambda: condition(cloud, "Ready") == "True" and shown(cloud) == "100m")
        before = container(cloud)["containerID"]
        await cloud.apply("pod", sized("200m", "96Mi"))
        await cloud.until(lambda: shown(cloud) == "200m")
        assert (limits(machine).cpu_quota_us, limits(machine).memory_bytes) == (20_000, 96 << 20)
        assert (container(cloud)["containerID"], container(cloud)["restartCount"]) == (before, 0)
    async with machine.rig(tmp_path, cloud):
        await cloud.apply("pod", sized("300m", "96Mi"))
        await cloud.until(lambda: shown(cloud) == "300m")
        assert limits(machine).cpu_quota_us == 30_000
        assert machine.started == ["main"]


async def test_a_change_while_edgesite_was_away_is_made_up_for(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        cloud = rig.cloud
        await cloud.apply("pod", sized("100m", "64Mi"))
        await cloud.until(lambda: condition(cloud, "Ready") == "True")
    cloud.pod("web")["spec"] = sized("500m", "64Mi")["spec"] | {"nodeName": cloud.node_name}
    async with machine.rig(tmp_path, cloud):
        await cloud.until(lambda: shown(cloud) == "500m")
        assert limits(machine).cpu_quota_us == 50_000
        assert machine.started == ["main"]


async def test_a_policy_may_ask_for_a_restart(machine: Machine, tmp_path: Path) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    async with machine.rig(tmp_path) as rig:
        cloud = rig.cloud
        await cloud.apply("pod", sized("100m", "64Mi", resizePolicy=policy))
        await cloud.until(lambda: condition(cloud, "Ready") == "True")
        await cloud.apply("pod", sized("200m", "64Mi", resizePolicy=policy))
        await cloud.until(lambda: shown(cloud) == "200m")
        assert container(cloud)["restartCount"] == 0
        await cloud.apply("pod", sized("200m", "96Mi", resizePolicy=policy))
        await cloud.until(lambda: container(cloud)["restartCount"] == 1 and "running" in container(cloud)["state"])
        assert limits(machine).memory_bytes == 96 << 20
        assert any("resize requires restart" in one["message"] for one in cloud.events.values())


async def test_what_the_node_cannot_give_waits_and_is_told(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        cloud = rig.cloud
        await cloud.apply("pod", sized("100m", "64Mi"))
        await cloud.until(lambda: condition(cloud, "Ready") == "True")
        await cloud.apply("pod", sized("9000", "64Mi"))
        await cloud.until(lambda: condition(cloud, "PodResizePending") == "True")
        (told,) = [one for one in cloud.status("web")["conditions"] if one["type"] == "PodResizePending"]
        assert told["reason"] == "Infeasible"
        assert "cpu" in told["message"]
        assert shown(cloud) == "100m"
        assert limits(machine).cpu_quota_us == 10_000
        await cloud.apply("pod", sized("150m", "64Mi"))
        await cloud.until(lambda: shown(cloud) == "150m" and condition(cloud, "PodResizePending") == "")
        assert machine.started == ["main"]
