"""Pods with users of their own, on a containerd and an OCI runtime that can; elsewhere a word that they cannot.

EDGESITE_TEST_CONTAINERD=FOLDER EDGESITE_TEST_OCI=PROGRAM    containerd 2.0 or later, crun 1.9 or runc 1.2 or later
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from edged_site import FOREVER, clean_rig, container, is_ready, output, pod, rig_on

from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.testing.containerd import Containerd
from edgesite.testing.edgedrig import Rig
from edgesite.testing.runtime import running
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
SCRIPT = (
    "cat /proc/self/uid_map; touch /data/mine; stat -c %u:%g /data/mine /etc/hosts /words/word; id -u; " + FOREVER[2]
)


async def can(daemon: Containerd) -> bool:
    async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:
        return await runtime.user_namespaces("")


def with_users(name: str) -> dict[str, object]:
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "words", "mountPath": "/words"}]
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "words", "configMap": {"name": "words"}}]
    main = container(command=["/bin/sh", "-c", SCRIPT], volumeMounts=mounts)
    return pod(name, main, hostUsers=False, volumes=volumes)


async def test_pods_have_users_of_their_own_or_are_told_that_they_cannot(daemon: Containerd, tmp_path: Path) -> None:
    able = await can(daemon)
    assert able or "EDGESITE_TEST_OCI" not in os.environ
    async with rig_on(daemon, tmp_path) as rig:
        await rig.cloud.apply("configmap", {"metadata": {"name": "words"}, "data": {"word": "x"}})
        for name in ("first", "second"):
            await rig.cloud.apply("pod", with_users(name))
        if not able:
            text = 'Failed to create pod sandbox: runtime handler "" does not support user namespaces'
            await rig.cloud.until(lambda: text in {one["message"] for one in rig.cloud.events.values()})
        else:
            for number, name in enumerate(("first", "second"), 1):
                await _has_range(rig, name, 65536 * number, tmp_path)
        cloud = rig.cloud
    async with clean_rig(daemon, tmp_path, cloud=cloud) as rig:  # the ranges are known after a restart
        if able:
            await rig.cloud.delete("first", grace_s=1)
            await rig.cloud.until(lambda: len(rig.cloud.deleted) == 1)
            await rig.cloud.apply("pod", with_users("third"))
            await _has_range(rig, "third", 65536, tmp_path)


async def _has_range(rig: Rig, name: str, first: int, root: Path) -> None:
    await rig.cloud.until(lambda: is_ready(rig.cloud, name))

    async def printed() -> bool:
        return len((await output(rig, name)).split()) == 7

    await until(printed)
    found = (await output(rig, name)).split()
    assert found == ["0", str(first), "65536", "0:0", "0:0", "0:0", "0"], found
    uid = rig.cloud.pod(name)["metadata"]["uid"]
    mine = root / "edged" / "pods" / uid / "volumes" / "kubernetes.io~empty-dir" / "data" / "mine"
    assert mine.stat().st_uid == 0  # on the disk it is the host's root's, by the mapped mount
