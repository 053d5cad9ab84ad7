"""CSI volumes that are block devices, on a real containerd: published as files, seen by containers as devices, given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from csi_driver import is_mounted
from edged_site import FOREVER, container, is_ready, output, pod
from test_edged_csi import NAME, driver, said, volume_objects

from edgesite.testing.edgedrig import Rig
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


async def give_device(rig: Rig, name: str) -> None:
    for kind, obj in volume_objects(name).items():
        await rig.cloud.apply(kind, {**obj, "spec": {**obj["spec"], "volumeMode": "Block"}})
    rules = {"attachRequired": False, "fsGroupPolicy": "File"}
    await rig.cloud.apply("csidriver", {"metadata": {"name": NAME, "namespace": ""}, "spec": rules})


def with_device(name: str, **how: Any) -> dict[str, Any]:
    script = "test -b /dev/xvda && echo a device; " + FOREVER[2]
    main = container(command=["/bin/sh", "-c", script], **how)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]
    return pod(name, main, volumes=volumes, securityContext={"fsGroup": 4321})


def is_device(path: Path) -> bool:
    return path.is_block_device()


def is_there(path: Path) -> bool:
    return path.exists()


@pytest.mark.parametrize("leaves", [(), ("leave-file",)])
async def test_a_device_is_given_to_a_container_and_back(rig: Rig, tmp_path: Path, leaves: tuple[str, ...]) -> None:
    with driver(tmp_path, "stage", *leaves) as csi:
        await give_device(rig, "disk")
        await rig.cloud.apply("pod", with_device("db", volumeDevices=[{"name": "data", "devicePath": "/dev/xvda"}]))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "db"))

        async def printed() -> bool:
            return await output(rig, "db") == "a device\n"

        await until(printed)
        (staged,), (published,) = csi.calls("NodeStageVolume"), csi.calls("NodePublishVolume")
        for call in (staged, published):
            assert call["volume_capability"] == {"block": {}, "access_mode": {"mode": 1}}
        target = Path(published["target_path"])
        assert (is_device(target), is_mounted(target)) == (True, True)

        await rig.cloud.delete("db", grace_s=1)
        await rig.cloud.until(lambda: len(rig.cloud.deleted) == 1)
        assert csi.names()[2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]
        assert not is_there(target.parent)


async def test_a_device_cannot_be_mounted_as_a_folder(rig: Rig, tmp_path: Path) -> None:
    with driver(tmp_path):
        await give_device(rig, "disk")
        await rig.cloud.apply("pod", with_device("wrong", volumeMounts=[{"name": "data", "mountPath": "/data"}]))
        await rig.cloud.until(lambda: said(rig, "has volumeMode Block, but is specified in volumeMounts"))
        await rig.cloud.delete("wrong", grace_s=1)
        await rig.cloud.until(lambda: len(rig.cloud.deleted) == 1)
