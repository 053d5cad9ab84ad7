"""Edged as a whole on a fake runtime: pods start, report, restart, end, and are adopted."""

from __future__ import annotations

import math
from pathlib import Path

import anyio
import pytest
from edged_machine import Machine, condition, container, pod

from edgesite.edge.edged.runtime import ContainerState, ExecResult
from edgesite.testing.fakemeta import FakeCloud
from edgesite.testing.fakeruntime import Script
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def test_a_pod_becomes_running_and_ready(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        status = rig.cloud.status("web")
        assert status["phase"] == "Running"
        assert status["podIP"].startswith("10.88.")
        assert status["hostIP"] == "192.0.2.7"
        main = container(rig.cloud)
        assert (main["ready"], main["started"], main["restartCount"]) == (True, True, 0)
        assert main["containerID"].startswith("fake://")
        await rig.cloud.until(lambda: "Started" in rig.cloud.reasons())
        told = [one for one in rig.cloud.reasons() if one != "Starting"]
        assert sorted(told) == ["Created", "MissingClusterDNS", "Pulled", "Started"]


async def test_a_pod_is_told_that_it_gets_no_dns_of_a_cluster(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        for name, policy in (("wants", "ClusterFirst"), ("own", "Default")):
            await rig.cloud.apply("pod", pod(name, dnsPolicy=policy))
            await rig.cloud.until(lambda name=name: condition(rig.cloud, "Ready", name) == "True")
        (told,) = [one for one in rig.cloud.events.values() if one["reason"] == "MissingClusterDNS"]
        assert told["message"].startswith('pod: "wants_default(uid-of-pod-wants)". kubelet does not have ClusterDNS IP')
    async with Machine().rig(tmp_path / "with", tailoredKubeletConfig={"clusterDNS": ["10.96.0.10"]}) as rig:
        await rig.cloud.apply("pod", pod("has"))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "has") == "True")
        assert "MissingClusterDNS" not in rig.cloud.reasons()


async def test_the_status_is_sent_once_when_nothing_changes(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        uid = rig.cloud.pod("web")["metadata"]["uid"]
        sent = len(rig.cloud.history[uid])
        await rig.cloud.apply("pod", pod())
        await rig.cloud.apply("pod", pod("other"))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "other") == "True")
        assert len(rig.cloud.history[uid]) == sent


@pytest.mark.parametrize("pull", ["IfNotPresent", "Always"])
async def test_an_ended_program_is_restarted_with_back_off(machine: Machine, tmp_path: Path, pull: str) -> None:
    machine.scripts["main"] = Script(run_s=0.02, exit_code=2)
    crashing = pod()
    crashing["spec"]["containers"][0]["imagePullPolicy"] = pull
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", crashing)
        await rig.cloud.until(lambda: "CrashLoopBackOff" in str(container(rig.cloud)))
        main = container(rig.cloud)
        assert main["restartCount"] == 1
        assert main["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert "back-off 10s restarting failed container=main" in main["state"]["waiting"]["message"]
        assert main["lastState"]["terminated"]["exitCode"] == 2
        assert rig.cloud.status("web")["phase"] == "Running"
        assert machine.started == ["main", "main"]


async def test_a_new_image_does_not_wait_for_the_crashes_of_the_old_one(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["main"] = Script(run_s=0.02, exit_code=2)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: "CrashLoopBackOff" in str(container(rig.cloud)))
        changed = rig.cloud.pod("web")
        changed["spec"]["containers"][0]["image"] = "better:2"
        machine.scripts["main"] = Script()
        with anyio.fail_after(5):  # half of the back-off
            await rig.cloud.apply("pod", changed)
            await rig.cloud.until(lambda: container(rig.cloud)["restartCount"] == 2)


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")],
)
async def test_a_pod_that_is_not_restarted_ends(
    machine: Machine, tmp_path: Path, policy: str, code: int, phase: str
) -> None:
    machine.scripts["main"] = Script(run_s=0.02, exit_code=code)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(restartPolicy=policy))
        await rig.cloud.until(lambda: rig.cloud.status("web").get("phase") == phase)
        assert container(rig.cloud)["state"]["terminated"]["exitCode"] == code
        assert condition(rig.cloud, "Ready") == "False"
        assert machine.started == ["main"]


async def test_init_containers_run_one_after_another_before_the_main_ones(machine: Machine, tmp_path: Path) -> None:
    machine.scripts |= {"one": Script(run_s=0.02), "two": Script(run_s=0.02)}
    image = "docker.io/library/busybox:1"
    inits = [{"name": "one", "image": image}, {"name": "two", "image": image}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(initContainers=inits))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        assert machine.started == ["one", "two", "main"]
        assert condition(rig.cloud, "Initialized") == "True"
        assert container(rig.cloud, init=True)["state"]["terminated"]["reason"] == "Completed"


async def test_a_failing_init_container_keeps_the_main_ones_back(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["setup"] = Script(run_s=0.02, exit_code=1)
    inits = [{"name": "setup", "image": "docker.io/library/busybox:1"}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(initContainers=inits))
        await rig.cloud.until(lambda: "CrashLoopBackOff" in str(container(rig.cloud, init=True)))
        assert rig.cloud.status("web")["phase"] == "Pending"
        assert container(rig.cloud)["state"]["waiting"]["reason"] == "PodInitializing"
        assert condition(rig.cloud, "Initialized") == "False"
        assert "main" not in machine.started


async def test_a_missing_image_is_told_and_backed_off(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(image="example.com/missing:1"))
        await rig.cloud.until(lambda: "ErrImagePull" in str(container(rig.cloud)))
        await rig.cloud.until(lambda: "ImagePullBackOff" in str(container(rig.cloud)["state"]))
        assert rig.cloud.status("web")["phase"] == "Pending"
        assert {"Pulling", "Failed", "BackOff"} <= set(rig.cloud.reasons())


@pytest.mark.parametrize(
    ("image", "policy", "reason"),
    [
        ("example.com/other:1", "Never", "ErrImageNeverPull"),
        ("Not A Name", "IfNotPresent", "InvalidImageName"),
    ],
)
async def test_images_that_cannot_be_had(
    machine: Machine, tmp_path: Path, image: str, policy: str, reason: str
) -> None:
    containers = [{"name": "main", "image": image, "imagePullPolicy": policy}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(containers=containers))
        await rig.cloud.until(
            lambda: (container(rig.cloud).get("state") or {}).get("waiting", {}).get("reason") == reason
        )


async def test_a_container_waits_for_its_config_map(machine: Machine, tmp_path: Path) -> None:
    source = {"configMapRef": {"name": "settings"}}
    containers = [{"name": "main", "image": "docker.io/library/busybox:1", "envFrom": [source]}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(containers=containers))
        await rig.cloud.until(lambda: "CreateContainerConfigError" in str(container(rig.cloud)))
        assert container(rig.cloud)["state"]["waiting"]["message"] == 'configmap "settings" not found'
        await rig.cloud.apply("configmap", {"metadata": {"name": "settings"}, "data": {"COLOUR": "red"}})
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        (running,) = machine.engine.containers.values()
        assert ("COLOUR", "red") in running.config.envs


async def test_a_pod_waits_for_the_secret_of_a_volume_and_follows_its_changes(machine: Machine, tmp_path: Path) -> None:
    volumes = [{"name": "conf", "configMap": {"name": "files"}}]
    mounts = [{"name": "conf", "mountPath": "/conf"}]
    containers = [{"name": "main", "image": "docker.io/library/busybox:1", "volumeMounts": mounts}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(containers=containers, volumes=volumes))
        await rig.cloud.until(lambda: "FailedMount" in rig.cloud.reasons())
        await rig.cloud.apply("configmap", {"metadata": {"name": "files"}, "data": {"a.txt": "one"}})
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        (running,) = machine.engine.containers.values()
        mount = next(one for one in running.config.mounts if one.container_path == "/conf")
        file = anyio.Path(mount.host_path, "a.txt")
        assert (mount.readonly, await file.read_text()) == (True, "one")
        await rig.cloud.apply("configmap", {"metadata": {"name": "files"}, "data": {"a.txt": "two"}})

        async def followed() -> bool:
            return await file.read_text() == "two"

        await until(followed, 5)
        assert machine.started == ["main"]


async def test_deletion_stops_cleans_up_and_confirms(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        uid = rig.cloud.pod("web")["metadata"]["uid"]
        await rig.cloud.delete("web")
        await rig.cloud.until(lambda: uid in rig.cloud.deleted)
        await until(machine.is_empty, 5)
        assert machine.engine.containers == {}
        assert rig.cloud.history[uid][-1]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0

        async def nothing_left() -> bool:
            return await _left(tmp_path / "edged") == []

        await until(nothing_left, 5)  # the log folder goes last
        await rig.cloud.until(lambda: "Killing" in rig.cloud.reasons())


async def test_a_second_deletion_shortens_the_grace_period(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["main"] = Script(stop_s=math.inf)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        await rig.cloud.delete("web", grace_s=600)
        await rig.cloud.until(lambda: "Killing" in rig.cloud.reasons())
        await rig.cloud.delete("web", grace_s=0)
        await until(machine.is_empty, 5)


async def test_a_hook_that_hangs_does_not_keep_a_pod_from_its_end(machine: Machine, tmp_path: Path) -> None:
    hanging = {"lifecycle": {"postStart": {"sleep": {"seconds": 3000}}}}
    containers = [{"name": name, "image": "docker.io/library/busybox:1", **hanging} for name in ("first", "second")]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(containers=containers))
        await rig.cloud.until(lambda: machine.started == ["first"])
        await rig.cloud.delete("web", grace_s=1)
        await rig.cloud.until(lambda: ("pod", "default", "web") not in rig.cloud.objects, 10.0)
    assert machine.started == ["first"], "nothing more is started once the pod is to end"


async def test_a_hook_that_fails_has_its_container_restarted_with_nobody_asking(
    machine: Machine, tmp_path: Path
) -> None:
    answers = [ExecResult(b"", b"", 0), ExecResult(b"", b"broken", 4)]
    machine.scripts["main"] = Script(exec=lambda command: (0.0, answers.pop()))
    hook = {"postStart": {"exec": {"command": ["/hook"]}}}
    main = {"name": "main", "image": "docker.io/library/busybox:1", "lifecycle": hook}
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(containers=[main], terminationGracePeriodSeconds=1))
        await rig.cloud.until(lambda: container(rig.cloud).get("restartCount") == 1, 15)
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        assert not answers


async def test_running_containers_are_adopted_and_ended_ones_restarted(machine: Machine, tmp_path: Path) -> None:
    machine.scripts["short"] = Script(run_s=0.3)
    image = "docker.io/library/busybox:1"
    containers = [{"name": "long", "image": image}, {"name": "short", "image": image}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(containers=containers))
        await rig.cloud.until(lambda: len(machine.started) == 2)
        cloud = rig.cloud
    assert sum(one.state is ContainerState.RUNNING for one in machine.engine.containers.values()) >= 1
    await anyio.sleep(0.3)
    async with machine.rig(tmp_path, cloud):
        await cloud.until(lambda: container(cloud, index=1).get("restartCount") == 1)
        assert machine.started.count("long") == 1
        assert container(cloud, index=0)["restartCount"] == 0
        assert container(cloud, index=0)["state"].keys() == {"running"}


async def test_after_a_reboot_pods_start_from_the_store_without_a_cloud(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        cloud = rig.cloud
    machine.engine.reboot()
    cloud.cut()
    async with machine.rig(tmp_path, cloud):
        await cloud.until(lambda: container(cloud)["restartCount"] == 1 and "running" in container(cloud)["state"])
        assert machine.started == ["main", "main"]
        assert len([one for one in machine.engine.sandboxes.values() if one.state.value == "ready"]) == 1


async def test_many_reboots_leave_no_row_of_sandboxes(machine: Machine, tmp_path: Path) -> None:
    cloud = FakeCloud("edge-1")
    await cloud.apply("pod", pod())
    for restarts in range(5):
        async with machine.rig(tmp_path, cloud):
            await cloud.until(lambda: is_running_after(cloud, restarts))  # noqa: B023 - awaited at once
        machine.engine.reboot()
    assert len(machine.engine.sandboxes) <= 2
    assert len(machine.engine.containers) <= 2


@pytest.mark.parametrize(("policy", "code", "phase"), [("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")])
async def test_finished_work_is_not_done_again_after_a_reboot(
    machine: Machine, tmp_path: Path, policy: str, code: int, phase: str
) -> None:
    """Also when the cloud never heard of the end."""
    machine.scripts["main"] = Script(run_s=0.02, exit_code=code)
    inits = [{"name": "setup", "image": "docker.io/library/busybox:1"}]
    machine.scripts["setup"] = Script(run_s=0.0)
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(restartPolicy=policy, initContainers=inits))
        await rig.cloud.until(lambda: rig.cloud.status("web").get("phase") == phase)
        cloud = rig.cloud
    machine.engine.reboot()
    cloud.pod("web")["status"] = {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}
    async with machine.rig(tmp_path, cloud):
        await cloud.until(lambda: cloud.status("web").get("phase") == phase)
        assert condition(cloud, "Initialized") == "True"
    assert machine.started == ["setup", "main"]
    assert all(one.state.value == "notready" for one in machine.engine.sandboxes.values())


async def test_what_nobody_wants_is_ended_at_start(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        cloud = rig.cloud
    del cloud.objects["pod", "default", "web"]
    async with machine.rig(tmp_path, cloud):
        await until(machine.is_empty, 5)
    assert cloud.deleted == []


@pytest.mark.parametrize("remembers", [True, False])
async def test_folders_of_ended_pods_are_removed_at_start(machine: Machine, tmp_path: Path, remembers: bool) -> None:
    folders = [
        tmp_path / "edged" / name
        for name in ("pods/ghost/volumes/v", "pods/ghost/volume-subpaths/v/c/0", "logs/d_web_ghost/c")
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    cloud = FakeCloud("edge-1")
    cloud.remembers = remembers
    async with machine.rig(tmp_path, cloud) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")

        async def settled() -> bool:
            return not any([await anyio.Path(folder).exists() for folder in folders])

        if remembers:
            await until(settled, 5)
    for folder in folders:
        assert folder.exists() is not remembers, "after a loss of the store nothing is thrown away"
    assert any("uid-of-pod-web" in one for one in await _left(tmp_path / "edged")), "what runs keeps its own"


async def test_what_runs_here_unknown_after_a_loss_is_adopted_when_the_cloud_sends_it(
    machine: Machine, tmp_path: Path
) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        cloud = rig.cloud
    started = list(machine.started)
    lost = cloud.objects.pop(("pod", "default", "web"))
    cloud.remembers = False
    async with machine.rig(tmp_path, cloud):
        reports = cloud.reports
        await cloud.apply("pod", lost)
        await cloud.until(lambda: cloud.reports > reports and condition(cloud, "Ready") == "True")
    assert machine.started == started
    assert not await machine.is_empty()


async def test_a_pod_that_does_not_fit_is_refused(machine: Machine, tmp_path: Path) -> None:
    resources = {"requests": {"cpu": "10000"}}
    containers = [{"name": "main", "image": "docker.io/library/busybox:1", "resources": resources}]
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod(containers=containers))
        await rig.cloud.until(lambda: rig.cloud.status("web").get("phase") == "Failed")
        assert rig.cloud.status("web")["reason"] == "OutOfcpu"


async def test_pods_go_on_when_the_runtime_comes_back(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        machine.engine.reachable = False
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: _node_ready(rig.cloud) == "False")
        machine.engine.reachable = True
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True" and _node_ready(rig.cloud) == "True")


async def test_the_node_registers_reports_and_keeps_a_lease(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.until(lambda: ("lease", "kube-node-lease", "edge-1") in rig.cloud.objects)
        node = rig.cloud.objects["node", "", "edge-1"]
        assert node["metadata"]["labels"]["node-role.kubernetes.io/edge"] == ""
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"] == "fake://1.0.0"
        assert _node_ready(rig.cloud) == "True"
        lease = rig.cloud.objects["lease", "kube-node-lease", "edge-1"]
        assert lease["spec"]["holderIdentity"] == "edge-1"
        assert lease["spec"]["leaseDurationSeconds"] == 40


async def test_after_a_long_silence_everything_is_told_again(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        await rig.cloud.until(lambda: ("lease", "kube-node-lease", "edge-1") in rig.cloud.objects)
        cloud = rig.cloud
    # What node lifecycle does with a node whose lease has run out.
    cloud.objects["lease", "kube-node-lease", "edge-1"]["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z"
    for one in (cloud.objects["node", "", "edge-1"], cloud.pod("web")):
        for shown in one["status"]["conditions"]:
            if shown["type"] == "Ready":
                shown["status"] = "Unknown" if one is not cloud.pod("web") else "False"
    async with machine.rig(tmp_path, cloud):
        await cloud.until(lambda: condition(cloud, "Ready") == "True" and _node_ready(cloud) == "True")


async def test_a_pod_that_others_mark_as_not_ready_is_told_again_once(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        told = rig.cloud.history["uid-of-pod-web"]
        sent = len(told)
        for shown in rig.cloud.status("web")["conditions"]:  # as the node lifecycle controller does
            if shown["type"] == "Ready":
                shown["status"] = "False"
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        await rig.cloud.apply("pod", pod())
        await rig.cloud.apply("pod", pod("other"))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "other") == "True")
        assert len(told) == sent + 1


async def test_a_pod_that_the_cloud_says_has_failed_does_not_run_again(machine: Machine, tmp_path: Path) -> None:
    """As after an eviction that was reported, and lost here by a power cut while the disk was full."""
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        rig.cloud.status("web").update({"phase": "Failed", "reason": "Evicted", "message": "The node was low."})
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "False")
        await rig.cloud.until(lambda: "terminated" in container(rig.cloud)["state"])
        status = rig.cloud.status("web")
        assert (status["phase"], status["reason"], container(rig.cloud)["restartCount"]) == ("Failed", "Evicted", 0)


async def test_operators_see_pods_and_runtime(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        read = rig.host.metrics.get_sample_value
        assert read("edgesite_edged_pods") == 1
        assert read("edgesite_edged_pod_start_seconds_count") == 1
        assert dict(rig.host.health.report("ready"))["container-runtime"] is None
        machine.engine.reachable = False
        await rig.cloud.until(lambda: _node_ready(rig.cloud) == "False")
        assert read("edgesite_edged_runtime_up") == 0
        assert "does not answer" in str(dict(rig.host.health.report("ready"))["container-runtime"])


async def test_a_broken_pod_hinders_no_other(machine: Machine, tmp_path: Path) -> None:
    async with machine.rig(tmp_path) as rig:
        await rig.cloud.apply("pod", pod("broken", containers=[{"image": "no-name"}]))
        await rig.cloud.apply("pod", pod("odd", volumes="none", containers=[{"name": "main", "image": 5}]))
        await rig.cloud.apply("pod", pod())
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready") == "True")
        await rig.cloud.delete("broken", grace_s=0)
        await rig.cloud.apply("pod", pod("later"))
        await rig.cloud.until(lambda: condition(rig.cloud, "Ready", "later") == "True")


def is_running_after(cloud: FakeCloud, restarts: int) -> bool:
    main = container(cloud)
    return bool(main) and main["restartCount"] == restarts and "running" in main["state"]


def _node_ready(cloud: FakeCloud) -> str:
    node = cloud.objects.get(("node", "", "edge-1")) or {}
    found = (node.get("status") or {}).get("conditions") or ()
    return next((one["status"] for one in found if one["type"] == "Ready"), "")


async def _left(folder: Path) -> list[str]:
    """Everything that is still there for pods."""
    found: list[str] = []
    for place in ("pods", "logs"):
        found += [str(path) async for path in anyio.Path(folder, place).glob("*")]
    return found
