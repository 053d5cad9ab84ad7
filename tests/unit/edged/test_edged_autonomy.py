"""Pods whose sources fail while they run, or after a restart without a cloud."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest
from edged_machine import IMAGE, Machine, condition, container, pod

from edgesite.edge.edged.runtime import RuntimeFault
from edgesite.kube.errors import forbidden, unavailable
from edgesite.kube.times import format_time
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.fakeruntime import FakeRuntime, Script
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def machine() -> Machine:
    return Machine()


def with_token() -> dict[str, Any]:
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    return pod(volumes=[{"name": "access", "projected": {"sources": [source]}}])


def token_file(tmp_path: Path) -> Path:
    volume = tmp_path / "edged" / "pods" / "uid-of-pod-web" / "volumes" / "kubernetes.io~projected" / "access"
    return volume / "token"


async def test_a_source_that_vanishes_does_not_keep_a_container_from_its_restart(
    machine: Machine, tmp_path: Path
) -> None:
    machine.scripts["main"] = Script(run_s=0.5, exit_code=1)
    async with machine.rig(tmp_path) as rig:
        cloud = rig.cloud
        await cloud.apply("configmap", {"metadata": {"name": "conf"}, "data": {"a": "1"}})
        spec = pod(volumes=[{"name": "conf", "configMap": {"name": "conf"}}])
        await cloud.apply("pod", spec)
        await cloud.until(lambda: condition(cloud, "Ready") == "True")
        del cloud.objects["configmap", "default", "conf"]
        spec["metadata"]["labels"] = {"changed": "yes"}  # makes it look at its volumes
        await cloud.apply("pod", spec)
        await cloud.until(lambda: container(cloud)["restartCount"] == 1)
        file = tmp_path / "edged" / "pods" / "uid-of-pod-web" / "volumes" / "kubernetes.io~configmap" / "conf" / "a"
        assert file.read_text() == "1"


async def test_a_call_that_was_cancelled_elsewhere_does_not_end_the_pods_worker(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sandbox = FakeRuntime.run_sandbox
    calls = 0

    async def stray(self: FakeRuntime, *args: Any) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncio.CancelledError
        return await run_sandbox(self, *args)

    monkeypatch.setattr(FakeRuntime, "run_sandbox", stray)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
    assert calls == 2


async def test_a_pod_that_has_run_comes_back_without_a_token_and_a_new_one_waits(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with machine.rig(tmp_path) as rig:
        cloud = rig.cloud
        await cloud.apply("pod", with_token())
        await cloud.until(lambda: condition(cloud, "Ready") == "True")
        assert token_file(tmp_path).read_text() == "token-of-default-default"
    machine.engine.reboot()

    async def refuse(self: FakeCloud, *args: object) -> dict[str, Any]:
        raise unavailable("no link")

    monkeypatch.setattr(FakeCloud, "token", refuse)
    cloud.cut()
    async with machine.rig(tmp_path, cloud):
        await cloud.until(lambda: container(cloud).get("restartCount") == 1 and condition(cloud, "Ready") == "True")
        assert token_file(tmp_path).read_text() == "token-of-default-default"
        await cloud.apply("pod", with_token() | {"metadata": {"name": "new"}})
        await cloud.until(lambda: any("failed to fetch token" in one["message"] for one in cloud.events.values()))
        assert cloud.status("new").get("phase") == "Pending"


async def test_a_token_that_the_cloud_forbids_is_a_failed_mount(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: FakeCloud, *args: object) -> dict[str, Any]:
        raise forbidden("serviceaccounts", "default", "no")

    monkeypatch.setattr(FakeCloud, "token", refuse)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", with_token())
        await rig.cloud.until(lambda: "FailedMount" in rig.cloud.reasons())


async def test_a_stored_token_is_renewed_by_what_is_left_of_its_life(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def answer(self: FakeCloud, *args: object) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        # 730 s of 3600 s are left: the next is due in 10 s, not in 48 minutes.
        expiry = format_time(machine.engine.clock.time() + 730)
        return {"status": {"token": f"number-{asked}", "expirationTimestamp": expiry}}

    monkeypatch.setattr(FakeCloud, "token", answer)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", with_token())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")

        async def renewed() -> bool:
            return token_file(tmp_path).read_text() == "number-2"

        await until(renewed)


async def test_a_container_that_cannot_be_stopped_yet_holds_up_nobody_else(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = FakeRuntime.stop_container
    tries = 0

    async def stubborn(self: FakeRuntime, container_id: str, grace_s: float) -> None:
        nonlocal tries
        if machine.engine.container(container_id).config.name == "stuck":
            tries += 1
            if tries < 3:
                raise RuntimeFault("an error occurs during waiting for the container to be killed")
        await stop(self, container_id, grace_s)

    monkeypatch.setattr(FakeRuntime, "stop_container", stubborn)
    async with machine.rig(tmp_path) as rig:
        cloud = rig.cloud
        stuck = pod(containers=[{"name": "stuck", "image": IMAGE}]) | {"metadata": {"name": "stuck"}}
        for one in (stuck, pod()):
            await cloud.apply("pod", one)
        await cloud.until(lambda: condition(cloud, "Ready") == condition(cloud, "Ready", "stuck") == "True")
        await cloud.delete("stuck", grace_s=1)
        await cloud.delete("web", grace_s=1)
        await cloud.until(lambda: cloud.deleted == ["uid-of-pod-web"])
        with anyio.fail_after(15):
            await cloud.until(lambda: cloud.deleted == ["uid-of-pod-web", "uid-of-pod-stuck"])
        assert tries == 3
        await until(machine.is_empty, 5)
