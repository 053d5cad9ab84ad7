"""Pods that are deleted while something else is going on: a pull, a wait, a hook; and a node that is deleted under them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anyio
import pytest
from edged_machine import IMAGE, Machine, condition, container, pod

from edgesite.edge.edged import images
from edgesite.edge.edged.runtime import ExecResult, PullProgress, RegistryAuth
from edgesite.testing.edgedrig import NODE, Rig
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.fakeruntime import FakeRuntime, Script
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def gone(rig: Rig, machine: Machine, within_s: float) -> None:
    await rig.cloud.until(lambda: ("pod", "default", "web") not in rig.cloud.objects, within_s)
    await until(machine.is_empty, 5)


async def test_during_a_pull_that_does_not_end(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulling, ended = anyio.Event(), anyio.Event()

    async def endless(self: FakeRuntime, reference: str, auth: RegistryAuth | None = None) -> str:
        pulling.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        return ""

    monkeypatch.setattr(FakeRuntime, "pull_image", endless)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(image="docker.io/library/large:1"))
        with anyio.fail_after(10):
            await pulling.wait()
        await rig.cloud.delete("web", grace_s=30)
        await gone(rig, machine, 5)
        with anyio.fail_after(5):
            await ended.wait()  # nobody wants the image any more


async def test_a_pull_that_takes_long_tells_how_far_it_is(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, pull = anyio.Event(), FakeRuntime.pull_image

    async def slow(self: FakeRuntime, reference: str, auth: RegistryAuth | None = None) -> str:
        await go_on.wait()
        return await pull(self, reference, auth)

    def told(cloud: FakeCloud) -> str:
        found = (cloud.status("web").get("containerStatuses") or [{}])[0]
        return str(found.get("state", {}).get("waiting", {}).get("message", ""))

    monkeypatch.setattr(FakeRuntime, "pull_image", slow)
    monkeypatch.setattr(images, "PROGRESS_S", 0.01)
    async with machine.rig(tmp_path) as rig:
        machine.engine.pulling = PullProgress(0, 0)
        await rig.cloud.apply("pod", pod(image="docker.io/library/large:1"))
        await rig.cloud.until(lambda: told(rig.cloud) == 'Pulling image "docker.io/library/large:1"')
        machine.engine.pulling = PullProgress(2_500_000, 40_000_000)
        text = 'Pulling image "docker.io/library/large:1": 2.5 of 40.0 MB of the layers that are under way'
        await rig.cloud.until(lambda: told(rig.cloud) == text)
        go_on.set()
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")


async def test_during_the_back_off_of_a_pull(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(image="docker.io/library/missing:1"))
        await rig.cloud.until(
            lambda: (
                container(rig.cloud).get("state", {}).get("waiting", {}).get("reason")
                in ("ErrImagePull", "ImagePullBackOff")
            )
        )
        await rig.cloud.delete("web", grace_s=30)
        await gone(rig, machine, 5)


async def test_during_the_back_off_of_a_restart(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["main"] = Script(run_s=0.01, exit_code=1)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(
            lambda: container(rig.cloud).get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
        )
        starts = len(machine.started)
        await rig.cloud.delete("web", grace_s=30)
        await gone(rig, machine, 5)
        assert len(machine.started) == starts
        assert rig.cloud.history["uid-of-pod-web"][-1]["phase"] == "Failed"


async def test_during_a_hook_that_does_not_end_and_by_a_user_who_hurries(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["main"] = Script(exec=lambda command: (math.inf, ExecResult(b"", b"", 0)))
    hook = {"preStop": {"exec": {"command": ["never"]}}}
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(containers=[{"name": "main", "image": IMAGE, "lifecycle": hook}]))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        await rig.cloud.delete("web", grace_s=600)
        await rig.cloud.until(lambda: "Killing" in rig.cloud.reasons())
        await rig.cloud.delete("web", grace_s=1)
        await gone(rig, machine, 5)
        assert "FailedPreStopHook" in rig.cloud.reasons()


async def test_by_force_while_it_does_not_want_to_end(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["main"] = Script(stop_s=math.inf)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(terminationGracePeriodSeconds=600))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        await rig.cloud.delete("web")
        await rig.cloud.until(lambda: "Killing" in rig.cloud.reasons())
        await rig.cloud.delete("web", grace_s=0)
        await until(machine.is_empty, 5)
        await rig.cloud.apply("pod", pod() | {"metadata": {"name": "web", "uid": "another"}})
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")


async def test_a_node_that_is_deleted_comes_back_and_its_pods_go_on(machine: Machine, tmp_path: Path) -> None:
    kubelet: dict[str, Any] = {"nodeLeaseDurationSeconds": 1}
    async with machine.rig(tmp_path, tailoredKubeletConfig=kubelet) as rig:
        lease = ("lease", "kube-node-lease", NODE)
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True" and lease in rig.cloud.objects)
        for key in (("node", "", NODE), lease):
            del rig.cloud.objects[key]
        await rig.cloud.until(lambda: ("node", "", NODE) in rig.cloud.objects and lease in rig.cloud.objects, 15)
        assert machine.started == ["main"]
        assert condition(rig.cloud, "Ready") == "True"
