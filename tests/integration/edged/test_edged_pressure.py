"""A node that runs short, on a real containerd: what its pods use is measured, and the right one goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edged_site import FOREVER, clean_rig, container, is_ready, pod, state

from edgesite.edge.edged.machine import LinuxMachine, Pressure
from edgesite.testing.containerd import Containerd
from edgesite.testing.edgedrig import NODE, Rig

pytestmark = pytest.mark.anyio
SETTINGS: dict[str, Any] = {
    "tailoredKubeletConfig": {
        "nodeStatusUpdateFrequency": "300ms",
        "evictionHard": {"memory.available": "100Mi"},
        "evictionPressureTransitionPeriod": "1s",
    }
}


class ShortMachine(LinuxMachine):
    """This host, with as little memory or disk left as a test says."""

    memory_left: int | None = None
    disk_left: int | None = None

    def pressure(self, data_dir: Path) -> Pressure:
        found = super().pressure(data_dir)
        if self.memory_left is not None:
            found = replace(found, memory_available_bytes=self.memory_left)
        return found if self.disk_left is None else replace(found, disk_available_bytes=self.disk_left)


def pressure_on(rig: Rig, what: str = "MemoryPressure") -> str:
    node = rig.cloud.objects.get(("node", "", NODE)) or {}
    found = (node.get("status") or {}).get("conditions") or ()
    return next((one["status"] for one in found if one["type"] == what), "")


def memory_held(rig: Rig) -> bool:
    return f"{rig.data_dir}/" in "".join(
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4].endswith("/held")
    )


async def test_the_pod_that_uses_the_most_is_evicted_and_others_stay(daemon: Containerd, tmp_path: Path) -> None:
    machine = ShortMachine()
    async with clean_rig(daemon, tmp_path, settings=SETTINGS, machine=machine) as rig:
        hog = ["/bin/sh", "-c", "dd if=/dev/zero of=/held/x bs=1M count=48; touch /held/done; " + FOREVER[2]]
        filled = {"exec": {"command": ["cat", "/held/done"]}, "periodSeconds": 1, "timeoutSeconds": 30}
        mounts = [{"name": "held", "mountPath": "/held"}]
        volumes = [{"name": "held", "emptyDir": {"medium": "Memory"}}]
        greedy = container(command=hog, volumeMounts=mounts, readinessProbe=filled)
        asked = container(resources={"requests": {"memory": "32Mi"}})
        for spec in (pod("greedy", greedy, volumes=volumes), pod("modest", asked)):
            await rig.cloud.apply("pod", spec)
        await rig.cloud.until(lambda: is_ready(rig.cloud, "greedy") and is_ready(rig.cloud, "modest"))
        assert pressure_on(rig) == "False"
        assert memory_held(rig)
        machine.memory_left = 50 << 20
        await rig.cloud.until(lambda: rig.cloud.status("greedy").get("reason") == "Evicted")
        machine.memory_left = None
        status = rig.cloud.status("greedy")
        assert status["phase"] == "Failed"
        assert (
            "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 51200Ki."
            in status["message"]
        )
        assert "Container main was using " in status["message"]
        assert "terminated" in state(rig.cloud, "greedy")
        assert any(one["type"] == "DisruptionTarget" for one in status["conditions"])
        await rig.cloud.until(lambda: not memory_held(rig))  # though nobody has deleted it
        await rig.cloud.until(lambda: pressure_on(rig) == "True")
        await rig.cloud.until(lambda: pressure_on(rig) == "False")
        assert is_ready(rig.cloud, "modest")


async def test_what_fills_the_disk_is_evicted_and_nothing_comes_until_there_is_room(
    daemon: Containerd, tmp_path: Path
) -> None:
    machine = ShortMachine()
    limits = {**SETTINGS["tailoredKubeletConfig"], "evictionHard": {"nodefs.available": "100Mi"}}
    async with clean_rig(daemon, tmp_path, settings={"tailoredKubeletConfig": limits}, machine=machine) as rig:
        fill = ["/bin/sh", "-c", "dd if=/dev/zero of=/held/x bs=1M count=8; touch /held/done; " + FOREVER[2]]
        filled = {"exec": {"command": ["cat", "/held/done"]}, "periodSeconds": 1, "timeoutSeconds": 30}
        greedy = container(command=fill, volumeMounts=[{"name": "held", "mountPath": "/held"}], readinessProbe=filled)
        await rig.cloud.apply("pod", pod("greedy", greedy, volumes=[{"name": "held", "emptyDir": {}}]))
        await rig.cloud.apply("pod", pod("modest", container()))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "greedy") and is_ready(rig.cloud, "modest"))
        assert pressure_on(rig, "DiskPressure") == "False"
        machine.disk_left = 50 << 20
        await rig.cloud.until(lambda: rig.cloud.status("greedy").get("reason") == "Evicted")
        await rig.cloud.until(lambda: pressure_on(rig, "DiskPressure") == "True")
        await rig.cloud.apply("pod", pod("new", container()))
        await rig.cloud.until(lambda: rig.cloud.status("new").get("reason") == "Evicted")
        machine.disk_left = None
        said = rig.cloud.status("greedy")["message"]
        assert "low on resource: ephemeral-storage. Threshold quantity: 102400Ki, available: 51200Ki." in said
        assert "DiskPressure" in rig.cloud.status("new")["message"]
        await rig.cloud.until(lambda: pressure_on(rig, "DiskPressure") == "False")
        await rig.cloud.apply("pod", pod("later", container()))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "later"))
        assert is_ready(rig.cloud, "modest")


async def test_a_pod_over_its_own_storage_limit_is_evicted(daemon: Containerd, tmp_path: Path) -> None:
    async with clean_rig(daemon, tmp_path, settings=SETTINGS) as rig:
        fill = ["/bin/sh", "-c", "dd if=/dev/zero of=/held/x bs=1M count=4; " + FOREVER[2]]
        greedy = container(command=fill, volumeMounts=[{"name": "held", "mountPath": "/held"}])
        volumes = [{"name": "held", "emptyDir": {"sizeLimit": "2Mi"}}]
        await rig.cloud.apply("pod", pod("greedy", greedy, volumes=volumes))
        await rig.cloud.until(lambda: rig.cloud.status("greedy").get("reason") == "Evicted")
        assert rig.cloud.status("greedy")["message"] == 'Usage of EmptyDir volume "held" exceeds the limit "2Mi". '
