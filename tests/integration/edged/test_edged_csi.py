"""Volumes of CSI drivers on a real containerd: a driver in a process of its own, which binds folders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from csi_driver import is_mounted
from edged_site import FOREVER, clean_rig, container, is_ready, output, pod, rig_on

from edgesite.edge.edged.server.source import LogSource
from edgesite.edge.edged.volumes.csi import expansion, volumes
from edgesite.edge.edged.volumes.csi.attachments import unique_name
from edgesite.edge.edged.volumes.csi.volume import CsiVolume, attachment_name
from edgesite.testing.containerd import Containerd
from edgesite.testing.edgedrig import NODE, Rig
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
NAME = "folders.test"
PROGRAM = Path(__file__).with_name("csi_driver.py")


class Driver:
    def __init__(self, root: Path, state: Path, *options: str) -> None:
        self.state, self.options = state, options
        self.registration = root / "edged" / "plugins_registry" / f"{NAME}-reg.sock"
        self.endpoint = root / "edged" / "plugins" / NAME / "csi.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(PROGRAM), NAME, str(self.registration), str(self.endpoint), str(self.state)]
        self.process = subprocess.Popen([*command, *self.options])

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None
        for socket in (self.registration, self.endpoint):
            socket.unlink(missing_ok=True)

    def calls(self, name: str = "") -> list[dict[str, Any]]:
        try:
            found = [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]
        except FileNotFoundError:
            return []
        return [one for one in found if name in ("", one["call"])]

    def names(self) -> list[str]:
        return [one["call"] for one in self.calls() if one["call"].startswith("Node") and "Get" not in one["call"]]


@contextmanager
def driver(root: Path, *options: str) -> Iterator[Driver]:
    made = Driver(root, root / "driver", *options)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def volume_objects(name: str, **csi: Any) -> dict[str, dict[str, Any]]:
    source = {"driver": NAME, "volumeHandle": f"handle-{name}", **csi}
    spec = {"csi": source, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}
    claim_spec = {"volumeName": f"pv-{name}", "accessModes": ["ReadWriteOnce"]}
    return {
        "persistentvolume": {"metadata": {"name": f"pv-{name}", "namespace": ""}, "spec": spec},
        "persistentvolumeclaim": {"metadata": {"name": name}, "spec": claim_spec, "status": {"phase": "Bound"}},
    }


async def give(rig: Rig, name: str, rules: dict[str, Any] | None = None, **csi: Any) -> None:
    """Put a volume and its claim into the cloud, and what the driver says of itself there."""
    for kind, obj in volume_objects(name, **csi).items():
        await rig.cloud.apply(kind, obj)
    spec = {"attachRequired": False, "podInfoOnMount": True, "volumeLifecycleModes": ["Persistent", "Ephemeral"]}
    await rig.cloud.apply("csidriver", {"metadata": {"name": NAME, "namespace": ""}, "spec": spec | (rules or {})})


async def grow(rig: Rig, name: str, claimed: str = "1Gi") -> None:
    """Do what a resizer does: the volume is larger now, and its claim says what the node is to do."""
    objects = volume_objects(name)
    objects["persistentvolume"]["spec"] |= {
        "capacity": {"storage": "2Gi"},
        "claimRef": {"namespace": "default", "name": name},
    }
    objects["persistentvolumeclaim"]["status"] |= {
        "capacity": {"storage": claimed},
        "conditions": [{"type": "FileSystemResizePending", "status": "True"}],
        "allocatedResources": {"storage": "2Gi"},
        "allocatedResourceStatuses": {"storage": "NodeResizePending"},
    }
    for kind in ("persistentvolumeclaim", "persistentvolume"):
        await rig.cloud.apply(kind, objects[kind])


async def attach(rig: Rig, name: str) -> None:
    """Do what an attacher and the attach controller do."""
    volume = CsiVolume(f"pv-{name}", NAME, f"handle-{name}")
    metadata = {"name": attachment_name(volume, NODE), "namespace": ""}
    await rig.cloud.apply("volumeattachment", {"metadata": metadata, "status": {"attached": True}})
    rig.cloud.objects["node", "", NODE]["status"]["volumesAttached"] = [{"name": unique_name(NAME, volume.handle)}]


def claiming(name: str, claim: str, script: str = FOREVER[2], **spec: Any) -> dict[str, Any]:
    main = container(command=["/bin/sh", "-c", script], volumeMounts=[{"name": "data", "mountPath": "/data"}])
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return pod(name, main, volumes=volumes, **spec)


async def called(csi: Driver, name: str, times: int) -> bool:
    return len(csi.calls(name)) >= times


def said(rig: Rig, words: str) -> bool:
    return any(words in one["message"] for one in rig.cloud.events.values())


async def test_a_volume_is_staged_published_shared_and_given_back(rig: Rig, tmp_path: Path) -> None:
    with driver(tmp_path, "stage", "stats") as csi:
        await rig.cloud.apply("secret", {"metadata": {"name": "key", "namespace": "vault"}, "data": {"k": "djE="}})
        secret = {"nodeStageSecretRef": {"name": "key", "namespace": "vault"}}
        await give(rig, "data", volumeAttributes={"colour": "blue"}, fsType="ext4", **secret)
        script = "echo one >> /data/file; " + FOREVER[2]
        await rig.cloud.apply("pod", claiming("first", "data", script, securityContext={"fsGroup": 4321}))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "first"))
        await rig.cloud.apply("pod", claiming("second", "data", "cat /data/file; " + FOREVER[2]))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "second"))

        async def printed() -> bool:
            return await output(rig, "second") == "one\n"

        await until(printed)
        assert csi.names() == ["NodeStageVolume", "NodePublishVolume", "NodePublishVolume"]
        (staged,) = csi.calls("NodeStageVolume")
        assert staged["secrets"] == {"k": "v1"}
        assert staged["volume_context"] == {"colour": "blue"}
        assert staged["volume_capability"] == {"mount": {"fs_type": "ext4"}, "access_mode": {"mode": 1}}
        published = csi.calls("NodePublishVolume")[0]
        uid = rig.cloud.pod("first")["metadata"]["uid"]
        assert published["volume_context"]["csi.storage.k8s.io/pod.uid"] == uid
        assert published["staging_target_path"] == staged["staging_target_path"]
        assert published["target_path"].endswith(f"/pods/{uid}/volumes/kubernetes.io~csi/pv-data/mount")
        about = (csi.state / "volumes" / "handle-data").stat()
        assert (about.st_gid, about.st_mode & 0o7777) == (4321, 0o2775)

        for name in ("first", "second"):
            await rig.cloud.delete(name, grace_s=1)
        await rig.cloud.until(lambda: len(rig.cloud.deleted) == 2)
        assert csi.names()[3:] == ["NodeUnpublishVolume", "NodeUnpublishVolume", "NodeUnstageVolume"]
        assert (csi.state / "volumes" / "handle-data" / "file").read_text() == "one\n"
        left = tmp_path / "edged" / "plugins" / "kubernetes.io" / "csi" / NAME
        assert list(left.iterdir()) == []


async def test_the_node_tells_of_its_driver(rig: Rig, tmp_path: Path) -> None:
    with driver(tmp_path) as csi:
        await rig.cloud.until(lambda: ("csinode", "", NODE) in rig.cloud.objects)
        (listed,) = rig.cloud.objects["csinode", "", NODE]["spec"]["drivers"]
        assert listed == {
            "name": NAME,
            "nodeID": f"id-of-{NAME}",
            "topologyKeys": [f"topology.{NAME}/zone"],
            "allocatable": {"count": 7},
        }
        metadata = rig.cloud.objects["node", "", NODE]["metadata"]
        assert metadata["labels"][f"topology.{NAME}/zone"] == "west"
        ids = json.loads(metadata["annotations"]["csi.volume.kubernetes.io/nodeid"])
        assert ids == {NAME: f"id-of-{NAME}"}
        await until(lambda: called(csi, "registered", 1))  # it is told beside that
        assert csi.calls("registered") == [{"call": "registered", "ok": True, "error": ""}]


async def test_a_volume_of_the_pods_own_comes_and_goes_with_it(rig: Rig, tmp_path: Path) -> None:
    with driver(tmp_path, "stage") as csi:
        await give(rig, "unused")
        await rig.cloud.apply("secret", {"metadata": {"name": "key"}, "data": {"k": "djI="}})
        source = {"driver": NAME, "readOnly": True, "nodePublishSecretRef": {"name": "key"}}
        main = container(
            command=["/bin/sh", "-c", "touch /data/x || echo refused; " + FOREVER[2]],
            volumeMounts=[{"name": "own", "mountPath": "/data"}],
        )
        await rig.cloud.apply("pod", pod("inline", main, volumes=[{"name": "own", "csi": source}]))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "inline"))

        async def printed() -> bool:
            return "refused" in await output(rig, "inline")

        await until(printed)
        (published,) = csi.calls("NodePublishVolume")
        assert published["secrets"] == {"k": "v2"}
        assert published["volume_context"]["csi.storage.k8s.io/ephemeral"] == "true"
        assert csi.calls("NodeStageVolume") == []
        await rig.cloud.delete("inline", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))
        assert list((csi.state / "volumes").iterdir()) == []


async def test_a_volume_grows_under_its_pod_and_tells_how_full_it_is(rig: Rig, tmp_path: Path) -> None:
    with driver(tmp_path, "stage", "stats", "expand") as csi:
        await give(rig, "data")
        await rig.cloud.apply("pod", claiming("user", "data"))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "user"))
        uid = rig.cloud.pod("user")["metadata"]["uid"]
        source = rig.host.services.get(LogSource)  # type: ignore[type-abstract]
        (volume,) = (await source.details())[uid].volumes
        told = (volume.fs.capacity_bytes, volume.fs.used_bytes, volume.fs.available_bytes, volume.fs.inodes_used)
        assert told == (1000, 400, 600, 1)
        await grow(rig, "data")

        async def expanded() -> bool:
            return len(csi.calls("NodeExpandVolume")) == 1

        await until(expanded)
        (call,) = csi.calls("NodeExpandVolume")
        assert call["capacity_range"] == {"required_bytes": 2 << 30}
        assert call["volume_path"].endswith("/pv-data/mount")
        claim = lambda: rig.cloud.objects["persistentvolumeclaim", "default", "data"]["status"]
        await rig.cloud.until(lambda: claim().get("capacity") == {"storage": "2Gi"})
        assert claim()["conditions"] == []
        assert not claim().get("allocatedResourceStatuses")
        told = [one for one in rig.cloud.events.values() if one["reason"] == "FileSystemResizeSuccessful"]
        assert {one["involvedObject"]["kind"] for one in told} == {"Pod", "PersistentVolumeClaim"}
        await rig.cloud.delete("user", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))


async def test_a_volume_that_has_grown_without_its_pod_grows_before_it_and_a_refusal_is_told(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expansion, "AGAIN_S", 1.0)
    with driver(tmp_path, "stage", "expand", "refuse-expand") as csi:
        await give(rig, "data")
        await grow(rig, "data")
        await rig.cloud.apply("pod", claiming("user", "data"))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "user"))
        assert "VolumeResizeFailed" in rig.cloud.reasons()
        claim = lambda: rig.cloud.objects["persistentvolumeclaim", "default", "data"]["status"]
        await rig.cloud.until(lambda: claim()["allocatedResourceStatuses"] == {"storage": "NodeResizeInfeasible"})
        assert claim()["capacity"] == {"storage": "1Gi"}
        assert [one["type"] for one in claim()["conditions"]] == ["NodeResizeError", "FileSystemResizePending"]
        (csi.state / "allow").touch()
        await grow(rig, "data")  # the resizer tries again
        await rig.cloud.until(lambda: claim()["capacity"] == {"storage": "2Gi"})
        assert csi.names()[:3] == ["NodeStageVolume", "NodePublishVolume", "NodeExpandVolume"]
        await rig.cloud.delete("user", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))


async def test_a_driver_that_wants_to_is_asked_again_and_its_volumes_grow_too(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "REPUBLISH_S", 0.5)
    with driver(tmp_path, "stage", "expand") as csi:
        await give(rig, "data", {"requiresRepublish": True})
        await rig.cloud.apply("pod", claiming("user", "data"))
        await until(lambda: called(csi, "NodePublishVolume", 3))
        (record,) = (tmp_path / "edged" / "pods").glob("*/volumes/kubernetes.io~csi/pv-data/vol_data.json")
        before = record.stat().st_ino
        await until(lambda: called(csi, "NodePublishVolume", 5))
        assert record.stat().st_ino == before  # nothing is written for that
        await grow(rig, "data")
        await until(lambda: called(csi, "NodeExpandVolume", 1))
        assert len(csi.calls("NodeStageVolume")) == 1
        await rig.cloud.delete("user", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))


async def test_a_pod_waits_for_its_driver_and_for_the_attachment(rig: Rig, tmp_path: Path) -> None:
    await give(rig, "data", {"attachRequired": True})
    await rig.cloud.apply("pod", claiming("waits", "data"))
    await rig.cloud.until(lambda: said(rig, f"driver name {NAME} not found in the list of registered CSI drivers"))
    with driver(tmp_path, "stage") as csi:
        await rig.cloud.until(lambda: said(rig, "is not attached yet"))
        assert csi.names() == []
        name = attachment_name(CsiVolume("pv-data", NAME, "handle-data"), NODE)
        unique = unique_name(NAME, "handle-data")
        node = lambda: rig.cloud.objects["node", "", NODE]["status"]
        assert node()["volumesInUse"] == [unique]  # before it is even attached
        status = {"attached": True, "attachmentMetadata": {"device": "sdx"}}
        attachment = {"metadata": {"name": name, "namespace": ""}, "status": status}
        leaving = attachment["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}
        await rig.cloud.apply("volumeattachment", attachment | {"metadata": leaving})
        await rig.cloud.until(lambda: said(rig, "is not attached yet according to the node status"))
        node()["volumesAttached"] = [{"name": unique, "devicePath": ""}]
        await rig.cloud.until(lambda: said(rig, "is being detached"))
        assert csi.names() == []
        await rig.cloud.apply("volumeattachment", attachment)
        await rig.cloud.until(lambda: is_ready(rig.cloud, "waits"))
        assert csi.calls("NodeStageVolume")[0]["publish_context"] == {"device": "sdx"}
        await rig.cloud.delete("waits", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))
        await rig.cloud.until(lambda: not node().get("volumesInUse"))


async def test_a_pod_that_ends_while_it_waits_for_its_volume_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    with driver(tmp_path, "stage") as csi:
        await give(rig, "data", {"attachRequired": True})
        await rig.cloud.apply("pod", claiming("waits", "data"))
        await rig.cloud.until(lambda: said(rig, "is not attached yet"))
        node = lambda: rig.cloud.objects["node", "", NODE]["status"]
        assert node()["volumesInUse"]
        await rig.cloud.delete("waits", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))
        await rig.cloud.until(lambda: not node().get("volumesInUse"))
        assert csi.names() == []  # the driver has never heard of it


async def test_a_refusal_is_told_and_tried_again(rig: Rig, tmp_path: Path) -> None:
    with driver(tmp_path, "refuse-publish") as csi:
        await give(rig, "data")
        await rig.cloud.apply("pod", claiming("refused", "data"))
        await rig.cloud.until(lambda: said(rig, "rpc error: code = INTERNAL desc = not today"))
        (csi.state / "allow").touch()
        await rig.cloud.until(lambda: is_ready(rig.cloud, "refused"))
        await rig.cloud.delete("refused", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))


async def test_volumes_outlive_a_restart_and_go_when_their_driver_is_back(daemon: Containerd, tmp_path: Path) -> None:
    with driver(tmp_path, "stage") as csi:
        async with rig_on(daemon, tmp_path) as rig:
            await give(rig, "data", {"attachRequired": True})
            await rig.cloud.until(lambda: ("node", "", NODE) in rig.cloud.objects)
            await attach(rig, "data")
            await rig.cloud.apply("pod", claiming("kept", "data"))
            await rig.cloud.until(lambda: is_ready(rig.cloud, "kept"))
            cloud = rig.cloud
        before = csi.names()
        csi.stop()
        async with clean_rig(daemon, tmp_path, cloud=cloud) as rig:
            await rig.cloud.until(lambda: is_ready(rig.cloud, "kept"))
            node = lambda: rig.cloud.objects["node", "", NODE]["status"]
            await rig.cloud.until(lambda: node().get("volumesInUse") == [f"kubernetes.io/csi/{NAME}^handle-data"])
            assert csi.names() == before
            await rig.cloud.delete("kept", grace_s=1)
            running = rig.cloud.pod("kept")["metadata"]["uid"]
            place = Path(tmp_path, "edged", "pods", running, "volumes", "kubernetes.io~csi", "pv-data", "mount")

            async def stopped() -> bool:
                found = rig.cloud.status("kept").get("containerStatuses") or [{}]
                return "terminated" in found[0].get("state", {})

            await until(stopped)
            assert is_mounted(place)  # nothing is torn away from under a driver that is not there
            csi.start()
            await rig.cloud.until(lambda: bool(rig.cloud.deleted))
            assert csi.names()[len(before) :] == ["NodeUnpublishVolume", "NodeUnstageVolume"]


async def test_what_was_staged_for_a_pod_that_is_gone_is_unstaged(daemon: Containerd, tmp_path: Path) -> None:
    with driver(tmp_path, "stage") as csi:
        async with rig_on(daemon, tmp_path) as rig:
            await give(rig, "data")
            await rig.cloud.apply("pod", claiming("gone", "data"))
            await rig.cloud.until(lambda: is_ready(rig.cloud, "gone"))
            cloud = rig.cloud
        cloud.objects.pop(("pod", "default", "gone"))
        async with clean_rig(daemon, tmp_path, cloud=cloud):

            async def cleared() -> bool:
                return csi.names()[-2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]

            await until(cleared)


async def test_a_pod_whose_work_is_done_gives_its_volume_back(rig: Rig, tmp_path: Path) -> None:
    with driver(tmp_path, "stage") as csi:
        await give(rig, "data")
        work = claiming("job", "data", "echo done > /sub/file", restartPolicy="Never")
        mounts = work["spec"]["containers"][0]["volumeMounts"]
        mounts.append({"name": "data", "mountPath": "/sub", "subPath": "below"})
        await rig.cloud.apply("pod", work)
        await rig.cloud.until(lambda: rig.cloud.status("job").get("phase") == "Succeeded")

        async def given_back() -> bool:
            return csi.names()[2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]

        await until(given_back)
        assert (csi.state / "volumes" / "handle-data" / "below" / "file").read_text() == "done\n"
        await rig.cloud.delete("job", grace_s=1)
        await rig.cloud.until(lambda: len(rig.cloud.deleted) == 1)
