"""What holds pods on a real host: cgroups of pods and classes, runtime classes, OOM scores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from edged_site import UIDS, container, is_ready, output, pod

from edgesite.edge.edged.server.source import LogSource
from edgesite.testing.edgedrig import Rig
from edgesite.testing.waiting import until

pytestmark = pytest.mark.anyio
ROOT = Path("/sys/fs/cgroup")
HALF = {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "32Mi"}}


def cgroup(controller: str, path: str) -> anyio.Path:
    unified = (ROOT / "cgroup.controllers").exists()
    return anyio.Path(ROOT if unified else ROOT / controller, path)


async def test_a_pod_is_held_by_a_cgroup_of_its_own_below_its_classs(rig: Rig) -> None:
    await rig.cloud.apply("pod", pod("held", container(resources=HALF), container("second", resources=HALF)))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "held"))
    path = f"kubepods/burstable/pod{UIDS}uid-of-pod-held"
    unified = (ROOT / "cgroup.controllers").exists()
    memory = cgroup("memory", path) / ("memory.max" if unified else "memory.limit_in_bytes")
    assert int(await memory.read_text()) == 64 << 20
    if not unified:
        assert (await (cgroup("cpu", path) / "cpu.cfs_quota_us").read_text()).strip() == "40000"
        assert (await (cgroup("cpu", path) / "cpu.shares").read_text()).strip() == "204"
        assert (await (cgroup("cpu", "kubepods/besteffort") / "cpu.shares").read_text()).strip() == "2"
    below = [one.name async for one in cgroup("memory", path).iterdir() if await one.is_dir()]
    assert len(below) == 3, "two containers and the sandbox"


async def test_a_runtime_class_names_a_handler_of_the_runtime(rig: Rig) -> None:
    rig.cloud.objects["runtimeclass", "", "plain"] = {"metadata": {"name": "plain"}, "handler": "oci"}
    rig.cloud.objects["runtimeclass", "", "kata"] = {"metadata": {"name": "kata"}, "handler": "kata-qemu"}
    await rig.cloud.apply("pod", pod("usual", container(), runtimeClassName="plain"))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "usual"))
    await rig.cloud.apply("pod", pod("other", container(), runtimeClassName="kata"))
    await rig.cloud.until(lambda: "FailedCreatePodSandBox" in rig.cloud.reasons())
    (said,) = [one["message"] for one in rig.cloud.events.values() if one["reason"] == "FailedCreatePodSandBox"]
    assert "kata-qemu" in said


async def test_services_are_in_the_environment_of_programs(rig: Rig) -> None:
    services: list[dict[str, Any]] = [
        {"name": "kubernetes", "namespace": "default", "clusterIP": "10.96.0.1", "ports": [{"port": 443}]}
    ]
    rig.cloud.objects["servicelist", "default", "default"] = {"metadata": {"name": "default"}, "items": services}
    script = "echo $KUBERNETES_SERVICE_HOST $(URL); cat /proc/self/oom_score_adj; sleep 1000"
    main = container(command=["/bin/sh", "-c", script], env=[{"name": "URL", "value": "at-$(KUBERNETES_PORT)"}])
    await rig.cloud.apply("pod", pod("told", main, terminationGracePeriodSeconds=0))
    await rig.cloud.until(lambda: is_ready(rig.cloud, "told"))

    async def printed() -> bool:
        return len((await output(rig, "told")).splitlines()) == 2

    await until(printed)
    assert (await output(rig, "told")).splitlines() == ["10.96.0.1 at-tcp://10.96.0.1:443", "1000"]


async def test_the_summary_tells_of_networks_volumes_and_logs_of_pods(rig: Rig) -> None:
    script = "dd if=/dev/zero of=/work/file bs=1k count=100 2>/dev/null; wget -q -T 1 http://10.255.255.1/; echo done; sleep 1000"
    probe = {"exec": {"command": ["/bin/true"]}, "periodSeconds": 1, "timeoutSeconds": 30}
    mounts = [{"name": "work", "mountPath": "/work"}]
    main = container(command=["/bin/sh", "-c", script], volumeMounts=mounts, readinessProbe=probe)
    spec = pod("used", main, volumes=[{"name": "work", "emptyDir": {}}], terminationGracePeriodSeconds=0)
    await rig.cloud.apply("pod", spec)
    await rig.cloud.until(lambda: is_ready(rig.cloud, "used"))

    async def printed() -> bool:
        return "done" in await output(rig, "used")

    await until(printed)
    source = rig.host.services.get(LogSource)  # type: ignore[type-abstract]
    details = (await source.details())[f"{UIDS}uid-of-pod-used"]
    (volume,) = details.volumes
    assert (volume.name, volume.is_local) == ("work", True)
    assert volume.fs.used_bytes is not None
    assert volume.fs.used_bytes >= 100 << 10
    assert [one.name for one in details.interfaces] == ["eth0"]
    assert details.interfaces[0].tx_bytes > 0
    assert details.logs["main"].used_bytes
    (counted,) = [one for one in source.probe_counts() if one.pod == "used"]
    assert (counted.probe, counted.result, counted.count >= 1) == ("Readiness", "successful", True)


async def said(rig: Rig, name: str, lines: int, container_name: str = "main") -> list[str]:
    """The first lines of a container's log, once they are all there."""

    await rig.cloud.until(lambda: is_ready(rig.cloud, name))

    async def printed() -> bool:
        return len((await output(rig, name, container_name)).splitlines()) >= lines

    await until(printed)
    return (await output(rig, name, container_name)).splitlines()


async def test_processes_of_a_pod_or_of_the_host_are_seen_where_that_is_asked_for(rig: Rig) -> None:
    script = "sleep 1; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c marked; readlink /proc/self/ns/ipc; sleep 1000"
    looks = container(command=["/bin/sh", "-c", script])
    marked = container("second", ["/bin/sh", "-c", "echo marked >/dev/null; sleep 1000 & wait"])
    grace = {"terminationGracePeriodSeconds": 0}
    await rig.cloud.apply("pod", pod("apart", looks, marked, **grace))
    await rig.cloud.apply("pod", pod("shared", looks, marked, shareProcessNamespace=True, **grace))
    await rig.cloud.apply("pod", pod("onhost", looks, hostPID=True, hostIPC=True, **grace))
    apart, shared, onhost = [await said(rig, name, 2) for name in ("apart", "shared", "onhost")]
    assert apart[0] == "1", "the line holds all of its own processes alone"
    ipc = os.readlink("/proc/self/ns/ipc")
    assert (apart[1] == ipc, shared[1] == ipc, onhost[1] == ipc) == (False, False, True)
    found = await rig.host.services.get(LogSource).run(  # type: ignore[type-abstract]
        "default", "shared", "main", ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'"]
    )
    assert b"echo marked" in found.output


async def test_parts_of_proc_are_hidden_unless_a_pod_may_see_them(rig: Rig) -> None:
    script = "[ -c /proc/interrupts ] && echo hidden || echo shown; grep -c '/proc/sys proc ro' /proc/mounts; hostname; sleep 1000"
    usual = container(command=["/bin/sh", "-c", script])
    await rig.cloud.apply("pod", pod("usual", usual, terminationGracePeriodSeconds=0))
    open_ = container(command=["/bin/sh", "-c", script], securityContext={"procMount": "Unmasked"})
    await rig.cloud.apply("pod", pod("open", open_, terminationGracePeriodSeconds=0))
    hidden, shown = await said(rig, "usual", 3), await said(rig, "open", 3)
    assert hidden == ["hidden", "1", "usual"], "a device that holds nothing stands in place of what is hidden"
    assert shown == ["shown", "0", "open"]
