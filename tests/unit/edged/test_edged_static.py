"""Static pods: files that run with and without a cloud, and their mirrors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edged_machine import IMAGE, Machine, condition
from hypothesis import given
from hypothesis import strategies as st

from edgesite.edge.edged.pod import MIRROR
from edgesite.edge.edged.staticpods import NotAPod, read_pod
from edgesite.testing.edgedrig import NODE
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
NAME = f"web-{NODE}"
TEXT = f"""
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  containers:
  - {{name: main, image: "{IMAGE}"}}
"""


def quick(path: Path) -> dict[str, Any]:
    return {"tailoredKubeletConfig": {"staticPodPath": str(path), "fileCheckFrequency": "100ms"}}


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "manifests"
    made.mkdir()
    return made


def mirror(cloud: FakeCloud) -> dict[str, Any]:
    return cloud.objects.get(("pod", "default", NAME)) or {}


def test_a_file_becomes_a_pod_of_this_node() -> None:
    pod = read_pod(TEXT.encode(), "edge-1", 0.0)
    assert (pod.name, pod.namespace, pod.spec["nodeName"]) == ("web-edge-1", "default", "edge-1")
    assert pod.is_static
    assert pod.spec["restartPolicy"] == "Always"
    assert read_pod(TEXT.encode(), "edge-1", 99.0).uid == pod.uid
    assert read_pod(TEXT.encode(), "edge-2", 0.0).uid != pod.uid
    assert (
        read_pod(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": "j"},
                    "spec": {"containers": [{"name": "m", "image": "i"}]},
                }
            ).encode(),
            "n",
            0.0,
        ).name
        == "j-n"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("kind: Pod", "apiVersion v1"),
        ("apiVersion: v1\nkind: Service", "kind Pod"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "lacks"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}", "spec.containers"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [1]}", "no valid pod"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: A_b}\nspec: {containers: [{name: m, image: i}]}",
            "metadata.name",
        ),
    ],
)
def test_a_file_that_is_no_pod_says_why(text: str, words: str) -> None:
    with pytest.raises(NotAPod, match=words):
        read_pod(text.encode(), "n", 0.0)


@given(st.binary(max_size=200))
def test_no_file_can_do_more_than_be_refused(content: bytes) -> None:
    with pytest.raises(NotAPod):
        read_pod(content, "n", 0.0)


async def test_a_static_pod_runs_without_a_cloud_and_is_mirrored_once_there_is_one(
    machine: Machine, tmp_path: Path, folder: Path
) -> None:
    (folder / "web.yaml").write_text(TEXT)
    (folder / ".hidden").write_text(TEXT)
    (folder / "broken.yaml").write_text("{")
    cloud = FakeCloud(NODE)
    cloud.cut()
    async with machine.rig(tmp_path, cloud, **quick(folder)):

        async def runs() -> bool:
            return machine.started == ["main"]

        await until(runs)
        assert mirror(cloud) == {}
        cloud.mend()
        await cloud.until(lambda: condition(cloud, "Ready", NAME) == "True")
        assert mirror(cloud)["metadata"]["annotations"][MIRROR]
        assert machine.started == ["main"]


async def test_the_mirror_comes_back_and_goes_with_the_file(machine: Machine, tmp_path: Path, folder: Path) -> None:
    file = folder / "web.yaml"
    file.write_text(TEXT)
    async with machine.rig(tmp_path, **quick(folder)) as rig:
        cloud = rig.cloud
        await cloud.until(lambda: condition(cloud, "Ready", NAME) == "True")
        await cloud.apply("pod", mirror(cloud))  # as the cloud sends what is bound to the node
        created = len(machine.started)
        await cloud.delete(NAME)
        await cloud.until(lambda: "deletionTimestamp" not in mirror(cloud).get("metadata", {"deletionTimestamp": 1}))
        await cloud.until(lambda: condition(cloud, "Ready", NAME) == "True")
        assert len(machine.started) == created  # the program itself went on
        file.unlink()
        await cloud.until(lambda: mirror(cloud) == {})
        await until(machine.is_empty)


async def test_a_changed_file_replaces_the_pod_after_the_old_one_has_ended(
    machine: Machine, tmp_path: Path, folder: Path
) -> None:
    file = folder / "web.yaml"
    file.write_text(TEXT)
    async with machine.rig(tmp_path, **quick(folder)) as rig:
        cloud = rig.cloud
        await cloud.until(lambda: condition(cloud, "Ready", NAME) == "True")
        first = mirror(cloud)["metadata"]["annotations"][MIRROR]
        file.write_text(TEXT.replace("app: web", "app: other"))
        await cloud.until(lambda: mirror(cloud).get("metadata", {}).get("labels") == {"app": "other"})
        await cloud.until(lambda: condition(cloud, "Ready", NAME) == "True")
        assert mirror(cloud)["metadata"]["annotations"][MIRROR] != first
        assert len(machine.engine.sandboxes) == 1
        file.write_text(TEXT)  # and back to a version that has run before
        await cloud.until(lambda: mirror(cloud).get("metadata", {}).get("annotations", {}).get(MIRROR) == first)
        await cloud.until(lambda: condition(cloud, "Ready", NAME) == "True")


async def test_a_static_pod_goes_on_over_a_restart(machine: Machine, tmp_path: Path, folder: Path) -> None:
    (folder / "web.yaml").write_text(TEXT)
    async with machine.rig(tmp_path, **quick(folder)) as rig:
        cloud = rig.cloud
        await cloud.until(lambda: condition(cloud, "Ready", NAME) == "True")
    async with machine.rig(tmp_path, cloud, **quick(folder)):
        await cloud.apply(
            "pod", {"metadata": {"name": "next"}, "spec": {"containers": [{"name": "n", "image": IMAGE}]}}
        )
        await cloud.until(lambda: condition(cloud, "Ready", "next") == "True")
        assert machine.started == ["main", "n"]
    async with machine.rig(tmp_path, cloud):  # no folder any more: the mirror has nobody behind it
        await cloud.until(lambda: mirror(cloud) == {})
