"""How volumes are seen inside containers of a real containerd: images, read-only trees, propagation, claims, groups, sizes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from edged_site import FOREVER, container, is_ready, output, pod, state
from test_edged_csi import said

from edgesite.edge.edged.volumes import host
from edgesite.testing.containerd import Containerd
from edgesite.testing.edgedrig import Rig
from edgesite.testing.images import build_image
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def unmount(*folders: Path) -> None:
    for folder in folders:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextmanager
def memory(*folders: Path) -> Iterator[None]:
    """File systems of their own at folders."""
    made = []
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            mount("-t", "tmpfs", "tmpfs", str(folder))
            made.append(folder)
        yield
    finally:
        unmount(*reversed(made))


async def says(rig: Rig, name: str, *lines: str, containers: str = "main") -> None:
    async def printed() -> bool:
        return (await output(rig, name, containers)).split("\n")[: len(lines)] == list(lines)

    await until(printed)


async def test_the_files_of_an_image_as_a_volume(rig: Rig, daemon: Containerd) -> None:
    image = "docker.io/library/data:1"
    daemon.load({image: build_image(env={"WHO": "data"})})
    script = "/data/bin/busybox echo works; touch /data/x 2>/dev/null || echo read-only; ls /bins/sh; " + FOREVER[2]
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/bins", "subPath": "bin"}]
    main = container(command=["/bin/sh", "-c", script], volumeMounts=mounts)
    volume = {"name": "data", "image": {"reference": image, "pullPolicy": "IfNotPresent"}}
    await rig.cloud.apply("pod", pod("imaged", main, volumes=[volume]))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "imaged"))
    await says(rig, "imaged", "works", "read-only", "/bins/sh")
    await rig.cloud.delete("imaged", grace_s=1)
    await rig.cloud.until(lambda: bool(rig.cloud.deleted))
    listed = daemon._ctr("-n", "k8s.io", "snapshots", "ls").stdout.decode()

    async def gone() -> bool:
        return "edgesite-image-volume" not in daemon._ctr("-n", "k8s.io", "snapshots", "ls").stdout.decode()

    await until(gone)
    assert "Committed" in listed


async def test_a_volume_whose_image_is_missing_keeps_the_container_waiting(rig: Rig) -> None:
    main = container(volumeMounts=[{"name": "data", "mountPath": "/data"}])
    volume = {"name": "data", "image": {"reference": "docker.io/library/none:1", "pullPolicy": "Never"}}
    await rig.cloud.apply("pod", pod("without", main, volumes=[volume]))
    await rig.cloud.until(lambda: state(rig.cloud, "without").get("waiting", {}).get("reason") == "ErrImageNeverPull")


async def test_a_tree_of_mounts_is_read_only_to_the_bottom(rig: Rig, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    with memory(root, root / "below"):
        script = "; ".join(
            f"touch /{name}/{path}x 2>/dev/null && echo {name}/{path} || echo no"
            for name in ("plain", "deep", "maybe")
            for path in ("", "below/")
        )
        mounts = [
            {"name": "tree", "mountPath": "/plain", "readOnly": True},
            {"name": "tree", "mountPath": "/deep", "readOnly": True, "recursiveReadOnly": "Enabled"},
            {"name": "tree", "mountPath": "/maybe", "readOnly": True, "recursiveReadOnly": "IfPossible"},
        ]
        main = container(command=["/bin/sh", "-c", f"{script}; {FOREVER[2]}"], volumeMounts=mounts)
        await rig.cloud.apply("pod", pod("reader", main, volumes=[{"name": "tree", "hostPath": {"path": str(root)}}]))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "reader"))
        await says(rig, "reader", "no", "plain/below/", "no", "no", "no", "no")
        shown = rig.cloud.status("reader")["containerStatuses"][0]["volumeMounts"]
        assert [one["recursiveReadOnly"] for one in shown] == ["Disabled", "Enabled", "Enabled"]
        await rig.cloud.delete("reader", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))
        (root / "below" / "still").touch()  # the host's own mounts are as they were


async def test_mounts_propagate_as_asked(rig: Rig, tmp_path: Path) -> None:
    root = tmp_path / "shared"
    with memory(root):
        mount("--make-rshared", str(root))
        for name in ("from-host", "from-container"):
            (root / name).mkdir()
        wait = "until [ -e /v/go ]; do sleep 0.1; done; [ -e /v/from-host/new ] && echo sees || echo blind; "
        volumes = [{"name": "v", "hostPath": {"path": str(root)}}]

        def mounting(name: str, propagation: str, script: str, **more: Any) -> dict[str, Any]:
            mounts = [{"name": "v", "mountPath": "/v", "mountPropagation": propagation}]
            return container(name, ["/bin/sh", "-c", script + FOREVER[2]], volumeMounts=mounts, **more)

        both = "mount -t tmpfs tmpfs /v/from-container && touch /v/from-container/made; " + wait
        spec = pod(
            "mounter",
            mounting("none", "None", wait),
            mounting("in", "HostToContainer", wait),
            mounting("both", "Bidirectional", both, securityContext={"privileged": True}),
            volumes=volumes,
        )
        await rig.cloud.apply("pod", spec)
        await rig.cloud.until(lambda: is_ready(rig.cloud, "mounter"))

        async def made() -> bool:
            return (root / "from-container" / "made").exists()

        await until(made)
        mount("-t", "tmpfs", "tmpfs", str(root / "from-host"))
        try:
            (root / "from-host" / "new").touch()
            (root / "go").touch()
            await says(rig, "mounter", "blind", containers="none")
            await says(rig, "mounter", "sees", containers="in")
            await says(rig, "mounter", "sees", containers="both")
        finally:
            unmount(root / "from-host", root / "from-container")
        await rig.cloud.delete("mounter", grace_s=1)
        await rig.cloud.until(lambda: bool(rig.cloud.deleted))


async def test_sub_paths_from_variables_memory_by_size_and_groups(rig: Rig, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    (disk / "old").mkdir(parents=True)
    (disk / "old" / "file").write_text("x")
    claimed = {"local": {"path": str(disk)}, "accessModes": ["ReadWriteOnce"]}
    await rig.cloud.apply("persistentvolume", {"metadata": {"name": "pv", "namespace": ""}, "spec": claimed})
    claim = {"metadata": {"name": "data"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}
    await rig.cloud.apply("persistentvolumeclaim", claim)
    script = (
        "echo here > /mine/x; df -k /memory | tail -1 | tr -s ' ' | cut -d' ' -f2; "
        "stat -c %g /disk/old/file; touch /kept/x 2>/dev/null || echo read-only; " + FOREVER[2]
    )
    mounts = [
        {"name": "empty", "mountPath": "/mine", "subPathExpr": "$(POD)/logs"},
        {"name": "empty", "mountPath": "/whole"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "disk", "mountPath": "/disk"},
        {"name": "kept", "mountPath": "/kept"},
    ]
    env = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    volumes = [
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "3Mi"}},
        {"name": "disk", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "kept", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
    ]
    main = container(command=["/bin/sh", "-c", script], volumeMounts=mounts, env=env)
    await rig.cloud.apply("pod", pod("many", main, volumes=volumes, securityContext={"fsGroup": 4321}))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "many"))
    await says(rig, "many", "3072", "4321", "read-only")
    uid = rig.cloud.pod("many")["metadata"]["uid"]
    empty = tmp_path / "edged" / "pods" / uid / "volumes" / "kubernetes.io~empty-dir" / "empty"
    assert (empty / "many" / "logs" / "x").read_text() == "here\n"


@pytest.mark.parametrize("helper", [True, False])
async def test_nfs_by_the_hosts_helper_or_a_word_that_there_is_none(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helper: bool
) -> None:
    source = tmp_path / "export"
    source.mkdir()
    (source / "file").write_text("shared\n")
    programs = tmp_path / "programs"
    programs.mkdir()
    if helper:  # it binds a folder: there is no NFS server here
        refusal = f"[ -e {tmp_path}/allow ] || {{ echo 'mount.nfs: No such device' >&2; exit 32; }}"
        text = f'#!/bin/sh\n{refusal}\necho "$@" > {tmp_path}/asked\nexec /bin/mount --bind {source} "$2"\n'
        (programs / "mount.nfs").write_text(text)
        (programs / "mount.nfs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("edgesite.edge.edged.volumes.nfs._PLACES", str(programs))
    main = container(
        command=["/bin/sh", "-c", "cat /share/file; " + FOREVER[2]],
        volumeMounts=[{"name": "share", "mountPath": "/share"}],
    )
    volume = {"name": "share", "nfs": {"server": "192.0.2.9", "path": "/export", "readOnly": True}}
    await rig.cloud.apply("pod", pod("sharing", main, volumes=[volume]))
    if not helper:
        await rig.cloud.until(lambda: said(rig, "this node has no mount.nfs"))
        return
    output = "Output: mount.nfs: No such device"  # what a kernel without NFS answers
    await rig.cloud.until(lambda: said(rig, "mount failed: exit status 32\nMounting command: mount.nfs\n"))
    (told,) = [one for one in rig.cloud.events.values() if one["reason"] == "FailedMount"]
    assert told["message"].endswith(f"kubernetes.io~nfs/share -o ro\n{output}")
    (tmp_path / "allow").touch()
    await rig.cloud.until(lambda: is_ready(rig.cloud, "sharing"))
    await says(rig, "sharing", "shared")
    asked = (tmp_path / "asked").read_text().split()
    assert (asked[0], asked[2:]) == ("192.0.2.9:/export", ["-o", "ro"])


async def test_mounts_are_known_behind_a_link(tmp_path: Path) -> None:
    """edged's root may be a link to a larger disk: what is mounted below it is neither mounted twice nor emptied."""
    share, root, link = tmp_path / "share", tmp_path / "disk", tmp_path / "edged"
    share.mkdir()
    (share / "kept").write_text("data")
    root.mkdir()
    link.symlink_to(root)
    pod_folder = link / "pods" / "u1"
    place = pod_folder / "volumes" / "kubernetes.io~nfs" / "v"
    place.mkdir(parents=True)
    mount("--bind", str(share), str(place))
    try:
        assert host.is_in_mount_table(place)
        host.remove_tree(pod_folder)
        assert not pod_folder.exists()
        assert (share / "kept").read_text() == "data"
    finally:
        unmount(place)
