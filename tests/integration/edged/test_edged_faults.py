"""A runtime that breaks, hangs or refuses, a host that reboots, sources that vanish: pods end as they should, and nothing is left."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from edged_site import FOREVER, all_deleted, clean_rig, container, is_ready, nothing_left, output, pod, rig_on, state

from edgesite.edge.edged.machine import LinuxMachine, MachineFacts
from edgesite.testing.containerd import Containerd, containerd
from edgesite.testing.criproxy import CriProxy, When, cri_proxy
from edgesite.testing.edgedrig import NODE, Rig
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def behind_proxy(daemon: Containerd, path: Path, timeout_s: float = 30.0) -> AsyncGenerator[tuple[Rig, CriProxy]]:
    async with cri_proxy(path / "cri.sock", daemon.socket) as proxy:
        endpoint = f"unix://{path}/cri.sock"
        async with clean_rig(daemon, path, timeout_s=timeout_s, endpoint=endpoint) as rig:
            yield rig, proxy


def node_ready(rig: Rig) -> str:
    found = (rig.cloud.objects.get(("node", "", NODE)) or {}).get("status", {}).get("conditions") or ()
    return next((one["status"] for one in found if one["type"] == "Ready"), "")


async def test_pods_that_start_while_containerd_is_restarted_come_up(rig: Rig, daemon: Containerd) -> None:
    names = [f"web{number}" for number in range(6)]
    for name in names:
        await rig.cloud.apply("pod", pod(name, container()))
    await rig.cloud.until(lambda: any("Created container" in one["message"] for one in rig.cloud.events.values()))
    await anyio.to_thread.run_sync(daemon.restart)
    await rig.cloud.until(lambda: all(is_ready(rig.cloud, name) for name in names), 60)


async def test_a_container_starts_anew_without_its_config_map_only_once_that_is_back(rig: Rig) -> None:
    """Files are kept as they are; what goes into the environment is read at each start."""
    conf = {"metadata": {"name": "conf", "uid": "c1"}, "data": {"colour": "red"}}
    await rig.cloud.apply("configmap", conf)
    source = {"configMapKeyRef": {"name": "conf", "key": "colour"}}
    command = ["/bin/sh", "-c", "cat /conf/colour; until [ -e /tell/end ]; do sleep 0.1; done; exit 1"]
    mounts = [{"name": "conf", "mountPath": "/conf"}, {"name": "tell", "mountPath": "/tell"}]
    volumes = [{"name": "conf", "configMap": {"name": "conf"}}, {"name": "tell", "emptyDir": {}}]
    reads = container(command=command, env=[{"name": "COLOUR", "valueFrom": source}], volumeMounts=mounts)
    files = container("files", ["/bin/sh", "-c", command[2]], volumeMounts=mounts)
    await rig.cloud.apply("pod", pod("web", reads, files, volumes=volumes))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "web"))
    del rig.cloud.objects["configmap", "default", "conf"]
    told = anyio.Path(rig.data_dir, "edged", "pods", rig.cloud.pod("web")["metadata"]["uid"], "volumes")
    [tell] = [one async for one in told.glob("*empty-dir/tell")]
    await (tell / "end").touch()
    waits = lambda: (state(rig.cloud, "web").get("waiting") or {}).get("reason") == "CreateContainerConfigError"
    await rig.cloud.until(waits)
    assert 'configmap "conf" not found' in state(rig.cloud, "web")["waiting"]["message"]
    await (tell / "end").unlink()
    await rig.cloud.until(lambda: "running" in state(rig.cloud, "web", 1), 60)
    attempt = rig.cloud.status("web")["containerStatuses"][1]["restartCount"]

    async def has_read() -> bool:
        return await output(rig, "web", "files", attempt) == "red\n"

    await until(has_read)
    assert waits(), "the other container needs no more than the files that are there"
    await rig.cloud.apply("configmap", conf)
    await rig.cloud.until(lambda: is_ready(rig.cloud, "web"), 60)


async def test_a_runtime_that_hangs_makes_the_node_unready_and_pods_go_on_after_it(
    daemon: Containerd, tmp_path: Path
) -> None:
    settings = {"tailoredKubeletConfig": {"nodeStatusUpdateFrequency": "300ms"}}
    async with clean_rig(daemon, tmp_path, timeout_s=1.0, settings=settings) as rig:
        for name in ("steady", "leaving"):
            await rig.cloud.apply("pod", pod(name, container()))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "steady") and is_ready(rig.cloud, "leaving"))
        before = rig.cloud.status("steady")["containerStatuses"]
        daemon.hang()
        try:
            await rig.cloud.apply("pod", pod("new", container()))
            await rig.cloud.delete("leaving", grace_s=1)
            await rig.cloud.until(lambda: node_ready(rig) == "False", 60)
        finally:
            daemon.resume()
        await rig.cloud.until(lambda: is_ready(rig.cloud, "new") and node_ready(rig) == "True", 60)
        await rig.cloud.until(lambda: ("pod", "default", "leaving") not in rig.cloud.objects)
        assert rig.cloud.status("steady")["containerStatuses"] == before


async def test_a_container_that_cannot_be_killed_yet_keeps_its_pod_and_no_other(
    daemon: Containerd, tmp_path: Path
) -> None:
    async with behind_proxy(daemon, tmp_path) as (rig, proxy):
        await rig.cloud.apply("pod", pod("stuck", container()))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "stuck"))
        proxy.refuse("StopContainer", "an error occurs during waiting for container to be killed", times=2)
        await rig.cloud.delete("stuck", grace_s=1)
        await rig.cloud.apply("pod", pod("other", container()))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "other"))
        assert ("pod", "default", "stuck") in rig.cloud.objects
        await rig.cloud.until(lambda: ("pod", "default", "stuck") not in rig.cloud.objects)
        assert proxy.calls.count("StopContainer") >= 3


async def test_the_deletion_of_a_pod_is_told_before_its_network_is_released(daemon: Containerd, tmp_path: Path) -> None:
    async with behind_proxy(daemon, tmp_path) as (rig, proxy):
        ports = [{"containerPort": 80, "hostPort": 18099}]
        await rig.cloud.apply("pod", pod("old", container(ports=ports)))
        await rig.cloud.until(lambda: is_ready(rig.cloud, "old"))
        told = anyio.Event()
        proxy.act("StopPodSandbox", When.ASKED, told.wait)
        await rig.cloud.delete("old", grace_s=1)
        await rig.cloud.until(lambda: ("pod", "default", "old") not in rig.cloud.objects)
        sandboxes = proxy.calls.count("RunPodSandbox")
        await rig.cloud.apply("pod", pod("next", container(ports=ports)))
        await rig.cloud.until(lambda: rig.cloud.status("next").get("startTime") is not None)
        assert proxy.calls.count("RunPodSandbox") == sandboxes  # it waits for the port of the host
        told.set()
        await rig.cloud.until(lambda: is_ready(rig.cloud, "next"))


async def test_a_sandbox_that_cannot_be_made_is_told_and_tried_again(daemon: Containerd, tmp_path: Path) -> None:
    async with behind_proxy(daemon, tmp_path) as (rig, proxy):
        why = "failed to create containerd container: failed to create prepare snapshot dir: no space left on device"
        proxy.refuse("RunPodSandbox", why)
        proxy.refuse("CreateContainer", why)
        await rig.cloud.apply("pod", pod("late", container()))
        await rig.cloud.until(lambda: "FailedCreatePodSandBox" in rig.cloud.reasons())
        await rig.cloud.until(lambda: "CreateContainerError" in str(state(rig.cloud, "late")))
        assert any("no space left" in one["message"] for one in rig.cloud.events.values())
        await rig.cloud.until(lambda: is_ready(rig.cloud, "late"))


async def test_a_folder_that_vanishes_does_not_end_a_pod(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    main = container(
        command=["/bin/sh", "-c", "echo up; while [ ! -f /tmp/end ]; do sleep 0.1; done; exit 1"],
        volumeMounts=[{"name": "source", "mountPath": "/source"}],
    )
    volumes = [{"name": "source", "hostPath": {"path": str(folder), "type": "Directory"}}]
    await rig.cloud.apply("pod", pod("reader", main, volumes=volumes))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "reader"))
    folder.rmdir()
    labelled = rig.cloud.pod("reader")
    labelled["metadata"]["labels"]["seen"] = "again"  # volumes are looked at anew
    await rig.cloud.apply("pod", labelled)

    async def printed() -> bool:
        return "up" in await output(rig, "reader")

    await until(printed)
    assert is_ready(rig.cloud, "reader")
    assert rig.cloud.status("reader")["containerStatuses"][0]["restartCount"] == 0


class BootedMachine(LinuxMachine):
    """This host, as booted for the so-many-eth time."""

    def __init__(self, boot: int) -> None:
        self.boot = boot

    def facts(self, data_dir: Path, resolv_conf: str, interface: str) -> MachineFacts:
        return replace(super().facts(data_dir, resolv_conf, interface), boot_id=f"boot-{self.boot}")


@pytest.fixture
def own() -> Iterator[Containerd]:
    with containerd() as started:
        yield started


async def test_after_a_reboot_pods_run_again_and_work_that_was_done_stays_done(own: Containerd, tmp_path: Path) -> None:
    async with rig_on(own, tmp_path, machine=BootedMachine(1)) as first:
        cloud = first.cloud
        await cloud.apply("pod", pod("web", container(), initContainers=[container("setup", ["/bin/true"])]))
        await cloud.apply("pod", pod("job", container(command=["/bin/true"]), restartPolicy="Never"))
        await cloud.until(lambda: is_ready(cloud, "web") and cloud.status("job").get("phase") == "Succeeded")
        before = cloud.status("web")
    await anyio.to_thread.run_sync(own.reboot)
    async with rig_on(own, tmp_path, cloud, machine=BootedMachine(2)) as second:
        await cloud.until(lambda: is_ready(cloud, "web") and cloud.status("web")["podIP"] != before["podIP"])
        (main,) = cloud.status("web")["containerStatuses"]
        assert main["restartCount"] == 1
        assert "terminated" in main["lastState"]
        assert cloud.status("job")["phase"] == "Succeeded"
        assert cloud.objects["node", "", NODE]["status"]["nodeInfo"]["bootID"] == "boot-2"
        uids = await all_deleted(second, own)
    await nothing_left(own, tmp_path, uids)


async def test_the_program_is_ended_at_once_when_a_hurried_user_asks(rig: Rig) -> None:
    deaf = container(
        command=["/bin/sh", "-c", "trap '' TERM; " + FOREVER[2].partition("; ")[2] + "; sleep 1000"],
        lifecycle={"preStop": {"exec": {"command": ["/bin/sleep", "1000"]}}},
    )
    await rig.cloud.apply("pod", pod("deaf", deaf, terminationGracePeriodSeconds=600))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "deaf"))
    await rig.cloud.delete("deaf")
    await rig.cloud.until(lambda: "Killing" in rig.cloud.reasons())
    await rig.cloud.delete("deaf", grace_s=1)  # shortened
    await rig.cloud.until(lambda: ("pod", "default", "deaf") not in rig.cloud.objects)
    await rig.cloud.apply("pod", pod("forced", deaf | {"lifecycle": {}}, terminationGracePeriodSeconds=600))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "forced"))
    await rig.cloud.delete("forced", grace_s=0)  # --force --grace-period=0: it is gone from the API at once
    assert ("pod", "default", "forced") not in rig.cloud.objects
