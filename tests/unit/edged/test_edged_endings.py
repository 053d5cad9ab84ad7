"""Pods that end before their work is done, and what an edge says of them: deadlines, gates, generations, looks from inside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from edged_machine import Machine, condition, container, pod

from edgesite.edge.edged.lifecycle import active_deadline
from edgesite.edge.edged.pod import Pod
from edgesite.testing.fakeruntime import Script

pytestmark = pytest.mark.anyio
IMAGE = "docker.io/library/busybox:1"


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize(
    ("limit", "start", "at"),
    [
        (60, "2027-01-15T08:00:00Z", 1_800_000_060.0),
        (None, "2027-01-15T08:00:00Z", None),
        (60, "", None),
        (60, "soon", None),
    ],
)
def test_the_deadline_of_a_pod(limit: int | None, start: str, at: float | None) -> None:
    spec = {} if limit is None else {"activeDeadlineSeconds": limit}
    assert active_deadline(Pod({"spec": spec}), start) == at


async def test_a_pod_past_its_deadline_fails_and_stays_so(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["main"] = Script(stop_code=143)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(activeDeadlineSeconds=1))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        await rig.cloud.until(lambda: rig.cloud.status("web").get("phase") == "Failed")
        status = rig.cloud.status("web")
        assert status["reason"] == "DeadlineExceeded"
        assert status["message"] == "Pod was active on the node longer than the specified deadline"
        assert container(rig.cloud)["state"]["terminated"]["exitCode"] == 143
        cloud = rig.cloud
    async with machine.rig(tmp_path, cloud) as rig:
        await rig.cloud.apply("pod", pod("other"))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "other") == "True")
        assert rig.cloud.status("web")["reason"] == "DeadlineExceeded"
        assert machine.started == ["main", "main"]


async def test_a_shorter_deadline_counts_at_once(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(activeDeadlineSeconds=1000))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        await rig.cloud.apply("pod", pod(activeDeadlineSeconds=1))
        await rig.cloud.until(lambda: rig.cloud.status("web").get("reason") == "DeadlineExceeded")


async def test_a_readiness_gate_opens_by_the_condition_that_somebody_sets(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        spec = pod(readinessGates=[{"conditionType": "example.com/open"}])
        await rig.cloud.apply("pod", spec)
        await rig.cloud.until(lambda: condition(rig.cloud, "ContainersReady") == "True")
        assert condition(rig.cloud, "Ready") == "False"
        rig.cloud.pod("web")["status"]["conditions"].append({"type": "example.com/open", "status": "True"})
        await rig.cloud.apply("pod", spec)
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        assert condition(rig.cloud, "example.com/open") == "True"


async def test_the_status_says_which_generation_it_is_of(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        spec = pod()
        spec["metadata"]["generation"] = 1
        await rig.cloud.apply("pod", spec)
        await rig.cloud.until(lambda: rig.cloud.status("web").get("observedGeneration") == 1)
        spec["metadata"]["generation"] = 2
        spec["spec"]["tolerations"] = [{"operator": "Exists"}]
        await rig.cloud.apply("pod", spec)
        await rig.cloud.until(lambda: rig.cloud.status("web").get("observedGeneration") == 2)
        assert all(one["observedGeneration"] == 2 for one in rig.cloud.status("web")["conditions"])


async def test_an_ephemeral_container_runs_once_and_not_again_after_a_restart(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["debugger"] = Script(run_s=0.05, exit_code=9)
    spec = pod()
    spec["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": IMAGE, "targetContainerName": "main"}]

    def debugger(cloud: Any) -> dict[str, Any]:
        return (cloud.status("web").get("ephemeralContainerStatuses") or [{}])[0]  # type: ignore[no-any-return]

    async with machine.rig(tmp_path) as rig:
        cloud = rig.cloud
        await cloud.apply("pod", pod())
        await cloud.until(lambda: condition(cloud, "Ready") == "True")
        await cloud.apply("pod", spec)
        await cloud.until(lambda: "terminated" in (debugger(cloud).get("state") or {}))
        made = next(one for one in machine.engine.containers.values() if one.config.name == "debugger")
        target = next(one for one in machine.engine.containers.values() if one.config.name == "main")
        assert made.config.security.namespaces.target == target.id
        assert debugger(cloud)["state"]["terminated"]["exitCode"] == 9
    machine.engine.forget(made)
    async with machine.rig(tmp_path, cloud) as rig:
        await cloud.apply("pod", pod("other"))
        await cloud.until(lambda: condition(cloud, "Ready", "other") == "True")
        assert machine.started.count("debugger") == 1


async def test_the_sidecars_of_finished_work_are_asked_to_stop(machine: Machine, tmp_path: Path) -> None:
    machine.scripts |= {"proxy": Script(run_s=math.inf, stop_s=0.1, stop_code=7), "main": Script(run_s=0.05)}
    inits = [{"name": "proxy", "image": IMAGE, "restartPolicy": "Always"}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(initContainers=inits, restartPolicy="Never"))
        await rig.cloud.until(lambda: rig.cloud.status("web").get("phase") == "Succeeded")
        assert container(rig.cloud, init=True)["state"]["terminated"]["exitCode"] == 7
