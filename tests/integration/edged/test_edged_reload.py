"""Settings of edged that change while it runs: the Node follows, pods go on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from edgesite.context import Context
from edgesite.net.real import RealClock
from edgesite.testing.edgedrig import NODE, Rig, edged_rig
from edgesite.testing.fakeruntime import FakeEngine, FakeRuntime

pytestmark = pytest.mark.anyio
IMAGE = "docker.io/library/busybox:1"
SETTINGS = {
    "nodeLabels": {"rack": "a", "zone": "north"},
    "tailoredKubeletConfig": {"maxPods": 7, "evictionHard": {}, "nodeStatusUpdateFrequency": "1m"},
}


def node(rig: Rig) -> dict[str, Any]:
    return rig.cloud.objects["node", "", NODE]


def labels(rig: Rig) -> dict[str, str]:
    found: dict[str, str] = node(rig)["metadata"]["labels"]
    return found


def reload(rig: Rig, **edged: Any) -> list[str]:
    """Change ``modules.edged``; returns what was taken over."""
    values = copy.deepcopy(rig.host.settings.plain())
    values["modules"]["edged"] |= edged
    return [".".join(one) for one in rig.host.reload(values).changed]


async def test_the_node_follows_and_its_pods_go_on(tmp_path: Path) -> None:
    engine = FakeEngine(RealClock(), images=[IMAGE])

    def runtime(ctx: Context) -> FakeRuntime:
        return FakeRuntime(engine)

    async with edged_rig(runtime, tmp_path, settings=SETTINGS) as rig:
        cloud = rig.cloud
        await cloud.until(lambda: ("node", "", NODE) in cloud.objects)
        labels(rig)["of-somebody"] = "else"
        spec = {"containers": [{"name": "main", "image": IMAGE}]}
        await cloud.apply("pod", {"metadata": {"name": "web"}, "spec": spec})
        await cloud.until(lambda: cloud.status("web").get("phase") == "Running")
        started = cloud.status("web")["containerStatuses"][0]["state"]

        kubelet = {"maxPods": 1, "evictionHard": {"memory.available": "1Gi"}, "nodeStatusUpdateFrequency": "2m"}
        taken = reload(rig, nodeLabels={"rack": "b"}, tailoredKubeletConfig=kubelet, runtime="process")
        assert "modules.edged.nodeLabels.zone" in taken
        assert "modules.edged.runtime" not in taken
        await cloud.until(lambda: labels(rig)["rack"] == "b")
        assert "zone" not in labels(rig)
        assert labels(rig)["of-somebody"] == "else"
        assert labels(rig)["node-role.kubernetes.io/edge"] == ""
        await cloud.until(lambda: node(rig)["status"]["allocatable"]["pods"] == "1")
        capacity, allocatable = node(rig)["status"]["capacity"], node(rig)["status"]["allocatable"]
        assert int(capacity["memory"][:-2]) - int(allocatable["memory"][:-2]) == 1 << 20  # Ki

        await cloud.apply("pod", {"metadata": {"name": "late"}, "spec": spec})
        await cloud.until(lambda: cloud.status("late").get("reason") == "OutOfpods")
        assert cloud.status("web")["containerStatuses"][0]["state"] == started


async def test_a_duration_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    async with edged_rig(lambda ctx: FakeRuntime(FakeEngine(RealClock())), tmp_path, settings=SETTINGS) as rig:
        await rig.cloud.until(lambda: ("node", "", NODE) in rig.cloud.objects)
        kubelet = {**SETTINGS["tailoredKubeletConfig"], "imageMinimumGCAge": "soon"}
        assert reload(rig, nodeLabels={}, tailoredKubeletConfig=kubelet) == []
        assert rig.host.settings.modules.edged.nodeLabels.plain() == SETTINGS["nodeLabels"]
        assert labels(rig)["rack"] == "a"
