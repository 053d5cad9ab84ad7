"""Claims: what they amount to on a node, and pods that wait for theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from edged_machine import Machine, condition, pod

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.volumes.claims import check_claimed, claim_names, is_bound, source_of
from edgesite.edge.edged.volumes.payload import VolumeError
from edgesite.testing.edgedrig import NODE

pytestmark = pytest.mark.anyio
CLAIM = {"metadata": {"name": "data", "uid": "c1"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}


def affinity(*values: str) -> dict[str, Any]:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(values)}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


def test_what_volumes_amount_to() -> None:
    labels = {"kubernetes.io/hostname": "n1"}
    path = {"hostPath": {"path": "/data", "type": "DirectoryOrCreate"}}
    assert source_of({"spec": path}) == {"hostPath": {"path": "/data", "type": "DirectoryOrCreate"}}
    local = {"local": {"path": "/disk"}, "nodeAffinity": affinity("n0", "n1")}
    assert source_of({"spec": local}) == {"local": {"path": "/disk", "type": "Directory"}}
    check_claimed({"spec": local}, CLAIM, labels)
    with pytest.raises(VolumeError, match="NodeAffinity check failed"):
        check_claimed({"spec": local}, CLAIM, {"kubernetes.io/hostname": "n2"})
    with pytest.raises(VolumeError, match="another claim"):
        check_claimed({"spec": {**path, "claimRef": {"uid": "c2"}}}, CLAIM, labels)
    with pytest.raises(VolumeError, match="kind iscsi"):
        source_of({"spec": {"iscsi": {}, "accessModes": []}})


def test_which_claims_a_pod_has() -> None:
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "b", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "c", "emptyDir": {}},
    ]
    assert list(claim_names(Pod({"metadata": {"name": "web"}, "spec": {"volumes": volumes}}))) == ["data", "web-b"]
    assert is_bound(CLAIM)
    assert not is_bound({"spec": {"volumeName": "pv"}})
    assert not is_bound(None)


async def test_a_pod_waits_for_its_claim_and_then_mounts_the_folder(tmp_path: Path) -> None:
    machine = Machine()
    folder = tmp_path / "disk"
    folder.mkdir()
    spec = pod(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])
    spec["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", spec)
        await rig.cloud.until(lambda: any("not found" in one["message"] for one in rig.cloud.events.values()))
        await rig.cloud.apply(
            "persistentvolumeclaim", {"metadata": {"name": "data"}, "spec": {}, "status": {"phase": "Pending"}}
        )
        await rig.cloud.until(lambda: any("is not bound" in one["message"] for one in rig.cloud.events.values()))
        local = {"local": {"path": str(folder)}, "nodeAffinity": affinity(NODE)}
        rig.cloud.objects["persistentvolume", "", "pv"] = {"metadata": {"name": "pv"}, "spec": local}
        bound = {"metadata": {"name": "data"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}
        await rig.cloud.apply("persistentvolumeclaim", bound)
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        (made,) = machine.engine.containers.values()
        assert [one.host_path for one in made.config.mounts if one.container_path == "/data"] == [str(folder)]
        (folder / "kept").write_text("x")
        await rig.cloud.delete("web", grace_s=1)
        await rig.cloud.until(lambda: rig.cloud.deleted == ["uid-of-pod-web"])
    assert (folder / "kept").read_text() == "x"


async def test_a_claim_of_one_pod_goes_from_one_to_the_next(tmp_path: Path) -> None:
    machine = Machine()
    (tmp_path / "disk").mkdir()
    spec = {"local": {"path": str(tmp_path / "disk")}, "accessModes": ["ReadWriteOncePod"]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]

    def refused(name: str) -> bool:
        text = "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
        events = [one for one in rig.cloud.events.values() if one["involvedObject"].get("name") == name]
        return any(one["reason"] == "FailedMount" and text in one["message"] for one in events)

    async with machine.rig(tmp_path) as rig:
        rig.cloud.objects["persistentvolume", "", "pv"] = {"metadata": {"name": "pv"}, "spec": spec}
        await rig.cloud.apply("persistentvolumeclaim", CLAIM | {"metadata": {"name": "data"}})
        await rig.cloud.apply("pod", pod("first", volumes=volumes))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "first") == "True")
        await rig.cloud.apply("pod", pod("again", volumes=volumes))
        await rig.cloud.until(lambda: refused("again"))
        cloud = rig.cloud
    cloud.events.clear()
    async with machine.rig(tmp_path, cloud) as rig:  # whoever ran before has it, whoever is looked at first
        await rig.cloud.until(lambda: refused("again"))
        assert condition(rig.cloud, "Ready", "first") == "True"
        assert not refused("first")
        await rig.cloud.delete("first", grace_s=1)
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "again") == "True")
