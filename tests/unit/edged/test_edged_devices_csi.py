"""Devices and CSI volumes without plugins: what is decided, what is written down, what is read again."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from edgesite.edge.edged.cri import convert
from edgesite.edge.edged.devices import checkpoint
from edgesite.edge.edged.devices.allocation import (
    Allocation,
    AllocationError,
    Device,
    free_devices,
    is_extended,
    wanted,
)
from edgesite.edge.edged.devices.tables import DEVICES
from edgesite.edge.edged.machine import _huge_pages
from edgesite.edge.edged.mounts import Sources, devices_of, mounts_of
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.resources import linux_resources
from edgesite.edge.edged.volumes import emptydir, nfs
from edgesite.edge.edged.volumes.csi.driver import CSI
from edgesite.edge.edged.volumes.csi.expansion import finished, smaller
from edgesite.edge.edged.volumes.csi.records import ATTACHED, EPHEMERAL, FILE, LIFECYCLE, Records, Waiting
from edgesite.edge.edged.volumes.csi.volume import (
    Claim,
    CsiVolume,
    attachment_name,
    capability,
    inline,
    persistent,
    wants_group,
)
from edgesite.edge.edged.volumes.host import give_all_to_group
from edgesite.edge.edged.volumes.payload import VolumeError
from edgesite.kube import json, schema
from edgesite.kube.patch_strategic import strategic_merge
from edgesite.kube.protowire import encode

GIVEN = {"envs": {"A": "1"}, "devices": [{"container_path": "/dev/a", "host_path": "/dev/null", "permissions": "rw"}]}


def pod(*containers: dict[str, Any], **spec: Any) -> Pod:
    metadata = {"name": "web", "namespace": "shop", "uid": "u1"}
    return Pod({"metadata": metadata, "spec": {"containers": list(containers), **spec}})


# Devices


@pytest.mark.parametrize(
    ("name", "fits"),
    [("example.com/gpu", True), ("cpu", False), ("hugepages-2Mi", False), ("kubernetes.io/x", False), ("a/", False)],
)
def test_which_resources_can_be_a_plugins(name: str, fits: bool) -> None:
    assert is_extended(name) is fits


def test_what_containers_ask_for_and_what_is_free() -> None:
    limits = {"cpu": "1", "example.com/gpu": "2", "example.com/none": "0"}
    assert wanted({"resources": {"limits": limits}}) == {"example.com/gpu": 2}
    with pytest.raises(AllocationError, match="cannot be read"):
        wanted({"resources": {"limits": {"example.com/gpu": "many"}}})
    devices = [Device("b", True), Device("a", True), Device("c", False), Device("d", True)]
    held = [Allocation("u", "c", "example.com/gpu", ("d",)), Allocation("u", "c", "other.com/x", ("a",))]
    assert free_devices(devices, held, "example.com/gpu") == ["a", "b"]


def test_allocations_are_read_again(tmp_path: Path) -> None:
    made = [
        Allocation("u1", "main", "example.com/gpu", ("a", "b"), GIVEN),
        Allocation("u2", "x", "example.com/y", ("1",)),
    ]
    checkpoint.save(tmp_path, made)
    assert checkpoint.load(tmp_path) == made
    (tmp_path / checkpoint.FILE).write_bytes(b'{"half')
    assert checkpoint.load(tmp_path) == []


def test_the_allocations_of_a_kubelet_are_taken_over(tmp_path: Path) -> None:
    response = base64.b64encode(encode(DEVICES["ContainerAllocateResponse"], GIVEN)).decode()
    entry = {
        "PodUID": "u1",
        "ContainerName": "main",
        "ResourceName": "example.com/gpu",
        "DeviceIDs": {"-1": ["a"], "0": ["b"]},
        "AllocResp": response,
    }
    broken = [{}, {**entry, "AllocResp": "///"}, "text"]
    data = {"Data": {"PodDeviceEntries": [entry, *broken], "RegisteredDevices": {}}, "Checksum": 1}
    (tmp_path / checkpoint.KUBELETS).write_bytes(json.dumps(data))
    assert checkpoint.load(tmp_path) == [Allocation("u1", "main", "example.com/gpu", ("a", "b"), GIVEN)]


# Huge pages


def test_huge_pages_of_the_host_and_of_containers(tmp_path: Path) -> None:
    for size, count in (("2048", "8"), ("1048576", "0")):
        (tmp_path / f"hugepages-{size}kB").mkdir()
        (tmp_path / f"hugepages-{size}kB" / "nr_hugepages").write_text(f"{count}\n")
    assert _huge_pages(tmp_path) == {"1Gi": 0, "2Mi": 16 << 20}
    container = {"name": "c", "resources": {"limits": {"hugepages-2Mi": "4Mi", "memory": "1Gi"}}}
    limits = linux_resources(pod(container), container, 1 << 30, huge_pages=["2Mi", "1Gi"])
    assert convert.linux_resources(limits)["hugepage_limits"] == [
        {"page_size": "2MB", "limit": 4 << 20},
        {"page_size": "1GB", "limit": 0},
    ]


def test_media_and_sizes_of_empty_folders() -> None:
    small = {"name": "c", "resources": {"limits": {"memory": "64Mi", "hugepages-2Mi": "4Mi"}}}
    node = {"memory": (1 << 30) * 10**9}
    assert emptydir.medium(pod(small), {"medium": "HugePages"}) == "HugePages-2Mi"
    with pytest.raises(VolumeError, match="there are none"):
        emptydir.medium(pod({"name": "c"}), {"medium": "HugePages"})
    with pytest.raises(VolumeError, match="not requested"):
        emptydir.medium(pod(small), {"medium": "HugePages-1Gi"})
    assert emptydir.size_limit(pod(small), {"medium": "Memory", "sizeLimit": "3Mi"}, node) == 3 << 20
    assert emptydir.size_limit(pod(small), {"medium": "Memory"}, node) == 64 << 20
    assert emptydir.size_limit(pod(small, {"name": "free"}), {"medium": "Memory"}, node) == 1 << 30
    assert (
        emptydir.size_limit(pod(small), {"sizeLimit": "3Mi"}, node) == 0
    )  # on disk nothing holds it back; it is evicted


# CSI


def test_what_a_driver_is_told_of_a_volume() -> None:
    source = {
        "driver": "d.test",
        "volumeHandle": "h",
        "fsType": "ext4",
        "nodeStageSecretRef": {"name": "s", "namespace": "n"},
    }
    spec = {"csi": source, "accessModes": ["ReadWriteOnce"], "mountOptions": ["noatime"]}
    volume = persistent({"metadata": {"name": "pv"}, "spec": spec}, readonly=False)
    assert volume.stage_secret == ("n", "s")
    assert capability(volume, frozenset(), 5) == {
        "mount": {"fs_type": "ext4", "mount_flags": ["noatime"]},
        "access_mode": {"mode": 1},
    }
    told = capability(volume, frozenset({"VOLUME_MOUNT_GROUP", "SINGLE_NODE_MULTI_WRITER"}), 5)
    assert (told["mount"]["volume_mount_group"], told["access_mode"]) == ("5", {"mode": 7})
    device = persistent({"metadata": {"name": "pv"}, "spec": {**spec, "volumeMode": "Block"}}, readonly=False)
    assert capability(device, frozenset({"VOLUME_MOUNT_GROUP"}), 5) == {"block": {}, "access_mode": {"mode": 1}}
    assert encode(CSI["VolumeCapability"], {"block": {}}) == b"\n\0"  # empty, and yet said
    assert not wants_group(device, "File")
    own = inline(pod(), {"name": "v", "csi": {"driver": "d.test", "readOnly": True}})
    assert own.handle.startswith("csi-")
    assert (own.is_inline, own.readonly) == (True, True)
    assert attachment_name(volume, "n1") != attachment_name(volume, "n2")


@pytest.mark.parametrize(
    ("policy", "fs_type", "modes", "readonly", "wants"),
    [
        ("ReadWriteOnceWithFSType", "ext4", ["ReadWriteOnce"], False, True),
        ("ReadWriteOnceWithFSType", "ext4", ["ReadWriteOncePod"], False, True),
        ("ReadWriteOnceWithFSType", "", ["ReadWriteOnce"], False, False),
        ("ReadWriteOnceWithFSType", "ext4", ["ReadWriteMany"], False, False),
        ("File", "", ["ReadWriteMany"], False, True),
        ("File", "", ["ReadWriteMany"], True, False),
        ("None", "ext4", ["ReadWriteOnce"], False, False),
    ],
)
def test_whose_files_get_the_group(policy: str, fs_type: str, modes: list[str], readonly: bool, wants: bool) -> None:
    volume = CsiVolume("pv", "d", "h", fs_type=fs_type, access_modes=modes, readonly=readonly)
    assert wants_group(volume, policy) is wants


@pytest.mark.parametrize(
    ("modes", "number"),
    [((), 1), (("ReadWriteOnce", "ReadWriteMany"), 1), (("ReadWriteMany", "ReadWriteOnce"), 5), (("ReadOnlyMany",), 3)],
)
def test_the_first_access_mode_counts(modes: tuple[str, ...], number: int) -> None:
    told = capability(CsiVolume("pv", "d", "h", access_modes=modes), frozenset(), None)
    assert told["access_mode"] == {"mode": number}


def test_records_tell_who_uses_a_volume(tmp_path: Path) -> None:
    records = Records(Paths(tmp_path, tmp_path / "logs"))
    volume = CsiVolume("pv", "d.test", "h")
    for uid in ("u1", "u2"):
        records.write(records.of_pod(uid, volume), {"specVolID": "pv"})
    records.write(records.staged("d.test", "h"))
    assert records.users("d.test", "h") == ["u1", "u2"]
    assert records.attached() == [("d.test", "h")]
    assert records.users("d.test", "other") == []
    (staged,) = records.all_staged()
    assert (staged.driver, staged.handle) == ("d.test", "h")
    (one,) = records.of("u1")
    (one.folder / FILE).write_bytes(b"null")
    assert records.of("u1") == []
    records.remove(records.of_pod("u2", volume))
    assert records.users("d.test", "h") == []
    assert not records.of_pod("u2", volume).folder.exists()


def test_records_tell_what_the_cluster_has_attached(tmp_path: Path) -> None:
    records = Records(Paths(tmp_path, tmp_path / "logs"))
    waiting = {"to-come": Waiting.YET, "here": Waiting.NO_MORE, "plain": Waiting.NEVER}
    for handle, how in waiting.items():
        records.write(records.of_pod("u", CsiVolume(f"pv-{handle}", "d", handle)), {ATTACHED: how.value})
    records.write(records.of_pod("u", CsiVolume("own", "d", "inline")), {LIFECYCLE: EPHEMERAL})
    records.write(records.of_pod("u", CsiVolume("go", "d", "of-go")), {LIFECYCLE: "Persistent"})
    records.write(records.staged("d", "left"), {ATTACHED: Waiting.NO_MORE.value})
    records.write(records.staged("d", "plain"), {ATTACHED: Waiting.NEVER.value})
    assert sorted(handle for _, handle in records.attached()) == ["here", "left", "of-go", "to-come"]
    (untouched,) = (one.handle for one in records.of("u") if records.is_untouched(one))
    assert untouched == "to-come"
    here = records.of_pod("u", CsiVolume("pv-here", "d", "here"))
    records.write(here, records.grown(here, "2Gi"))
    assert records.capacity(here) == "2Gi"
    assert ("d", "here") in records.attached()


def test_what_a_claim_is_told_when_its_volume_has_grown() -> None:
    conditions = [{"type": "FileSystemResizePending"}, {"type": "ModifyingVolume"}, {"type": "Resizing"}]
    status = {"capacity": {"storage": "1Gi"}, "conditions": conditions}
    status["allocatedResourceStatuses"] = {"storage": "NodeResizePending"}
    metadata = {"namespace": "shop", "name": "data", "uid": "u"}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "status": status}
    patch = {"status": finished("2Gi", Claim.of(claim))}
    schemas = schema.load()
    definition = schemas.definition_of("", "v1", "PersistentVolumeClaim")
    told = strategic_merge(schemas, definition, claim, patch)["status"]
    assert told["capacity"] == {"storage": "2Gi"}
    assert [one["type"] for one in told["conditions"]] == ["ModifyingVolume"]
    assert not told.get("allocatedResourceStatuses")
    assert (smaller("2Gi", "1Gi"), smaller("1Gi", "2Gi"), smaller("1Gi", "")) == ("1Gi", "1Gi", "1Gi")


# Mounts


def test_files_are_given_to_a_group_and_links_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "v" / "in").mkdir(parents=True)
    (tmp_path / "v" / "in" / "file").write_text("x")
    (tmp_path / "outside").write_text("x")
    (tmp_path / "outside").chmod(0o600)
    os.symlink(tmp_path / "outside", tmp_path / "v" / "link")
    group = os.getgid()
    give_all_to_group(tmp_path / "v", group)
    assert (tmp_path / "v" / "in" / "file").stat().st_mode & 0o777 == 0o664
    assert (tmp_path / "v").stat().st_mode & 0o7777 == 0o2775
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o600
    (tmp_path / "v" / "in" / "file").chmod(0o600)
    give_all_to_group(tmp_path / "v", group, lazily=True)
    assert (tmp_path / "v" / "in" / "file").stat().st_mode & 0o777 == 0o600


def test_mounts_by_what_host_and_runtime_can(tmp_path: Path) -> None:
    mount = {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Enabled"}
    sources = Sources({"v": str(tmp_path)}, {"i": "sha256:1"}, tmp_path / "places", isolates=True, recursive=False)
    with pytest.raises(VolumeError, match="recursive read-only mode"):
        mounts_of(pod(), {"name": "c", "volumeMounts": [mount]}, {}, sources)
    (plain,) = mounts_of(
        pod(), {"name": "c", "volumeMounts": [mount | {"recursiveReadOnly": "IfPossible"}]}, {}, sources
    )
    assert (plain.host_path, plain.readonly) == (str(tmp_path), True)
    image = {"name": "i", "mountPath": "/i", "subPathExpr": "$(A)"}
    (native,) = mounts_of(pod(), {"name": "c", "volumeMounts": [image]}, {"A": "bin"}, sources)
    assert (native.image, native.image_sub_path, native.readonly) == ("sha256:1", "bin", True)
    with pytest.raises(VolumeError, match="cannot find volume"):
        mounts_of(pod(), {"name": "c", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}, {}, sources)
    with pytest.raises(VolumeError, match="is no block device"):
        devices_of({"name": "c", "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}, sources)


def test_shares() -> None:
    share = nfs.Share.of({"server": "fd00::1", "path": "/x", "readOnly": True}, ["vers=4.1"], readonly=False)
    assert (share.server, share.options) == ("[fd00::1]", ("vers=4.1", "ro"))
    with pytest.raises(VolumeError, match="absolute path"):
        nfs.Share.of({"server": "s", "path": "x"}, (), readonly=False)
    with pytest.raises(VolumeError, match="needs a server"):
        nfs.Share.of({"server": "-overs=3", "path": "/x"}, (), readonly=False)
