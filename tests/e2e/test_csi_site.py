"""A claim from kubectl to a driver's mount, over both roles and a link, on containerd; each of them is killed on the way.

The driver's node part is a process behind its sockets. Its controller sidecars (provisioner, attacher, resizer) are played with kubectl.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e_roles import Cloud, Edge, joined_on
from e2e_site import Kubectl, eventually

from edgesite.testing.containerd import BUSYBOX, Containerd

DRIVER = "folders.test"
VOLUME = f"kubernetes.io/csi/{DRIVER}^disk-1"
PROGRAM = Path(__file__).parents[1] / "integration" / "edged" / "csi_driver.py"
OPTIONS = ("stage", "stats", "expand", "hold-publish")


@pytest.fixture
def edge(tmp_path: Path, daemon: Containerd) -> Iterator[tuple[Cloud, Edge]]:
    with joined_on(daemon, tmp_path, "csi") as roles:
        yield roles


@contextmanager
def driver(root: Path, state: Path) -> Iterator[None]:
    sockets = (root / "plugins_registry" / f"{DRIVER}-reg.sock", root / "plugins" / DRIVER / "csi.sock")
    process = subprocess.Popen([sys.executable, str(PROGRAM), DRIVER, *map(str, sockets), str(state), *OPTIONS])
    try:
        yield
    finally:
        process.kill()
        process.wait(60)


def calls(state: Path) -> list[str]:
    try:
        found = [json.loads(line)["call"] for line in (state / "calls").read_text().splitlines()]
    except FileNotFoundError:
        return []
    return [one for one in found if one.startswith("Node") and "Get" not in one]


def wanted(kubectl: Kubectl) -> None:
    """What a vendor's manifest and a user ask for."""
    storage = {"apiVersion": "storage.k8s.io/v1"}
    rules = {"attachRequired": True, "podInfoOnMount": True}
    a_class = {"provisioner": DRIVER, "allowVolumeExpansion": True, "volumeBindingMode": "WaitForFirstConsumer"}
    size = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOncePod"], "storageClassName": "disks", "resources": size}
    script = "echo here >> /data/file; trap 'exit 0' TERM; sleep 100000 & wait"
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script]}
    container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1}
    objects: list[dict[str, Any]] = [
        {**storage, "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": rules},
        {**storage, "kind": "StorageClass", "metadata": {"name": "disks"}, **a_class},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"}, "spec": pod},
    ]
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def provision(kubectl: Kubectl) -> None:
    def asked() -> dict[str, str] | None:
        notes: dict[str, str] = kubectl.json("get", "pvc", "data")["metadata"].get("annotations") or {}
        return notes if "volume.kubernetes.io/storage-provisioner" in notes else None

    notes = eventually(asked, "the call for a provisioner")
    assert notes["volume.kubernetes.io/storage-provisioner"] == DRIVER
    assert notes["volume.kubernetes.io/selected-node"] == "csi"
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": "data"}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOncePod"],
        "storageClassName": "disks",
        "claimRef": claim,
        "csi": {"driver": DRIVER, "volumeHandle": "disk-1"},
    }
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": spec}
    kubectl("create", "-f", "-", stdin=json.dumps(volume))


def attach(kubectl: Kubectl) -> None:
    def asked() -> str:
        found = kubectl.json("get", "volumeattachments")["items"]
        return str(found[0]["metadata"]["name"]) if found else ""

    name = eventually(asked, "a VolumeAttachment")
    eventually(lambda: used(kubectl) == ([VOLUME], []), "volumesInUse before it is attached")
    patch = json.dumps({"status": {"attached": True, "attachmentMetadata": {"device": "sdx"}}})
    kubectl("patch", "volumeattachment", name, "--subresource=status", "--type=merge", "-p", patch)


def used(kubectl: Kubectl) -> tuple[list[str], list[str]]:
    """What the Node says it uses, and what it is told that it may."""
    status = kubectl.json("get", "node", "csi")["status"]
    return status.get("volumesInUse") or [], [one["name"] for one in status.get("volumesAttached") or ()]


def resize(kubectl: Kubectl) -> None:
    more = json.dumps({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    kubectl("patch", "pvc", "data", "--type=merge", "-p", more)
    events = ("get", "events", "--field-selector", "reason=ExternalExpanding")
    eventually(lambda: kubectl.json(*events)["items"], "the call for a resizer")
    kubectl("patch", "pv", "pv-1", "--type=merge", "-p", json.dumps({"spec": {"capacity": {"storage": "2Gi"}}}))
    status = {
        "allocatedResources": {"storage": "2Gi"},
        "allocatedResourceStatuses": {"storage": "NodeResizePending"},
        "conditions": [{"type": "FileSystemResizePending", "status": "True"}],
    }
    kubectl("patch", "pvc", "data", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def pod_is_ready(kubectl: Kubectl) -> bool:
    conditions = kubectl.json("get", "pod", "user")["status"].get("conditions") or ()
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def test_a_claim_outlives_roles(edge: tuple[Cloud, Edge], tmp_path: Path) -> None:
    cloud, node = edge
    kubectl, state, root = cloud.kubectl(), tmp_path / "driver", node.data / "edge" / "edged"
    assert node.program is not None
    with driver(root, state):
        wanted(kubectl)
        provision(kubectl)
        attach(kubectl)
        eventually(lambda: "NodePublishVolume" in calls(state), "publication, which the driver holds up")
        assert used(kubectl) == ([VOLUME], [VOLUME])
        node.program.kill()  # staged, and not published
        (state / "allow").touch()
        node.start()
        eventually(lambda: pod_is_ready(kubectl), "the pod")
        assert (state / "volumes" / "disk-1" / "file").read_text() == "here\n"

        resize(kubectl)
        claim = lambda: kubectl.json("get", "pvc", "data")["status"]
        eventually(lambda: claim()["capacity"] == {"storage": "2Gi"}, "the claim's new capacity")
        eventually(lambda: not claim().get("conditions"), "the end of the claim's conditions")
        assert not claim().get("allocatedResourceStatuses")
        assert claim()["allocatedResources"] == {"storage": "2Gi"}
        assert calls(state).count("NodeExpandVolume") == 1

        assert cloud.program is not None
        cloud.program.kill()
        node.program.kill()
        cloud.start()
        kubectl("delete", "pod", "user", "--wait=false")  # the node is away
        assert used(kubectl) == ([VOLUME], [VOLUME])
        node.start()
        eventually(lambda: "NotFound" in kubectl.run("get", "pod", "user").stderr, "the pod's end", 60)
        eventually(lambda: not kubectl.json("get", "volumeattachments")["items"], "the end of the attachment")
        assert used(kubectl) == ([], [])
    assert calls(state)[-2:] == ["NodeUnpublishVolume", "NodeUnstageVolume"]
    assert not list((root / "plugins" / "kubernetes.io" / "csi" / DRIVER).iterdir())
    assert not list((root / "pods").iterdir())
