"""Cgroups of pods and classes, on trees of files as cgroup versions 1 and 2 show them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from edgesite.edge.edged import podgroups
from edgesite.edge.edged.cri.convert import cgroup_driver
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.podcgroups import CgroupLimits, limit, slice_path
from edgesite.edge.edged.podgroups import PodGroups
from edgesite.edge.edged.resources import SwapRule, linux_resources, pod_limits
from edgesite.edge.edged.runtime import Isolation
from edgesite.edge.edged.services import NodeFacts
from edgesite.edge.edged.settings import EdgedSettings
from edgesite.net.real import RealThreads

LIMITS = CgroupLimits(cpu_shares=512, cpu_quota_us=50_000, memory_bytes=64 << 20, pids=100)


def a_pod(uid: str, *containers: dict[str, Any], **spec: Any) -> Pod:
    named = [{"name": f"c{number}", "resources": one} for number, one in enumerate(containers or ({},))]
    return Pod({"metadata": {"name": uid, "uid": uid}, "spec": {"containers": named, **spec}})


def v1(root: Path) -> Path:
    for controller in ("cpu", "memory", "pids", "freezer", "systemd"):
        (root / controller).mkdir(parents=True)
    return root


def v2(root: Path) -> Path:
    (root / "kubepods").mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    return root


def text(path: Path) -> str:
    return path.read_text().strip()


def test_version_1_has_each_controller_in_a_tree_of_its_own(tmp_path: Path) -> None:
    root = v1(tmp_path)
    assert limit("/kubepods/burstable/podx", LIMITS, root)
    pod = "kubepods/burstable/podx"
    assert text(root / "cpu" / pod / "cpu.shares") == "512"
    assert (text(root / "cpu" / pod / "cpu.cfs_quota_us"), text(root / "cpu" / pod / "cpu.cfs_period_us")) == (
        "50000",
        "100000",
    )
    assert text(root / "memory" / pod / "memory.limit_in_bytes") == str(64 << 20)
    assert text(root / "pids" / pod / "pids.max") == "100"
    assert not (root / "freezer" / pod).exists()


def test_version_2_hands_controllers_down_and_has_weights(tmp_path: Path) -> None:
    root = v2(tmp_path)
    assert limit("/kubepods/podx", LIMITS, root)
    pod = root / "kubepods/podx"
    assert text(root / "kubepods/cgroup.subtree_control").startswith("+")
    assert (text(pod / "cpu.weight"), text(pod / "cpu.max")) == ("20", "50000 100000")
    assert (text(pod / "memory.max"), text(pod / "pids.max")) == (str(64 << 20), "100")
    limit("/kubepods/podx", CgroupLimits(cpu_shares=2), root)
    assert (text(pod / "cpu.weight"), text(pod / "cpu.max"), text(pod / "memory.max")) == ("1", "max 100000", "max")


@pytest.mark.parametrize("tree", [v1, v2])
def test_a_resize_first_gives_more_and_takes_less_at_the_end(tmp_path: Path, tree: Any) -> None:
    root = tree(tmp_path)
    memory = root / ("memory/podx/memory.limit_in_bytes" if tree is v1 else "podx/memory.max")
    limit("/podx", LIMITS, root)
    less = CgroupLimits(cpu_shares=256, cpu_quota_us=10_000, memory_bytes=32 << 20)
    limit("/podx", less, root, only_more=True)
    assert text(memory) == str(64 << 20)
    limit("/podx", less, root)
    assert text(memory) == str(32 << 20)
    limit("/podx", LIMITS, root, only_more=True)
    assert text(memory) == str(64 << 20)
    limit("/podx", CgroupLimits(cpu_shares=256), root, only_more=True)
    assert text(memory) == ("-1" if tree is v1 else "max")


def test_slices_are_levels_by_their_dashes(tmp_path: Path) -> None:
    assert slice_path("kubepods-burstable-podu_1.slice") == (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu_1.slice"
    )
    root = v1(tmp_path)
    assert not limit("kubepods-podx.slice", LIMITS, root, make=False), "systemd makes slices"
    (root / "cpu/kubepods.slice/kubepods-podx.slice").mkdir(parents=True)
    assert limit("kubepods-podx.slice", CgroupLimits(cpu_shares=300), root, make=False)
    assert text(root / "cpu/kubepods.slice/kubepods-podx.slice/cpu.shares") == "300"


def test_a_pod_is_limited_where_all_its_containers_are() -> None:
    half = {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "32Mi"}}
    both = pod_limits(a_pod("u", half, half, overhead={"memory": "8Mi"}), pids=7)
    assert both == CgroupLimits(512, 100_000, 100_000, 72 << 20, 7)
    one = pod_limits(a_pod("u", half, {"limits": {"cpu": "1"}}))
    assert (one.memory_bytes, one.cpu_quota_us) == (0, 150_000)
    assert pod_limits(a_pod("u")) == CgroupLimits(cpu_shares=2)


@pytest.mark.anyio
async def test_classes_share_as_their_pods_ask(tmp_path: Path) -> None:
    threads = RealThreads()
    root = v1(tmp_path)
    pods = [a_pod("a", {"requests": {"cpu": "500m"}}), a_pod("b", {"requests": {"cpu": "250m"}}), a_pod("c")]
    node = NodeFacts("n1", memory_bytes=4 << 30, allocatable_nano={"cpu": 4 * 10**9}, cgroup_driver="cgroupfs")
    log = logging.getLogger("edgesite.test")
    groups = PodGroups(
        EdgedSettings(cgroup_driver="systemd", reserved=({"memory": "512Mi", "cpu": "1"}, {"memory": "0.5Gi"})),
        node,
        Isolation.CONTAINER,
        threads,
        lambda: pods,
        log,
        root,
    )
    assert groups.driver == "cgroupfs", "the runtime knows better than the configuration"
    await groups.before_sandbox(pods[1])
    shares = {name: text(root / "cpu/kubepods" / name / "cpu.shares") for name in ("", "burstable", "besteffort")}
    assert shares == {"": "4096", "burstable": "768", "besteffort": "2"}
    assert text(root / "cpu/kubepods/burstable/podb/cpu.shares") == "256"
    assert text(root / "memory/kubepods/memory.limit_in_bytes") == str(3 << 30), "what is reserved no pod gets"
    assert text(root / "memory/kubepods/burstable/memory.limit_in_bytes") == "-1"
    await threads.close()


@pytest.mark.anyio
async def test_a_host_that_lets_nothing_be_written_is_spoken_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    threads = RealThreads()
    log = logging.getLogger("edgesite.test")
    groups = PodGroups(EdgedSettings(), NodeFacts("n1"), Isolation.CONTAINER, threads, lambda: (), log, tmp_path)
    for _ in range(2):
        await groups.before_sandbox(a_pod("a"))
    assert [one.getMessage() for one in caplog.records] == [
        "pods run without cgroup limits of their own: the host does not let edgesite write its cgroups"
    ]
    await threads.close()


def test_containerd_tells_its_driver_among_its_settings() -> None:
    def settings(options: str) -> str:
        return f'{{"containerd": {{"defaultRuntimeName": "runc", "runtimes": {{"runc": {{"options": {options}}}}}}}}}'

    assert cgroup_driver(settings('{"SystemdCgroup": true}')) == "systemd"
    assert cgroup_driver(settings('{"SystemdCgroup": false}')) == cgroup_driver(settings("{}")) == "cgroupfs"
    for unknown in ("", "[]", "{}", settings("null"), "not json"):
        assert cgroup_driver(unknown) == ""


def test_swap_is_given_as_the_configuration_says() -> None:
    burstable = {"name": "c", "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}}
    pod = Pod({"metadata": {"uid": "u"}, "spec": {"containers": [burstable]}})

    def unified(behavior: str, one: Pod = pod) -> str | None:
        rule = SwapRule(behavior, 4 << 30, unified=True)
        return linux_resources(one, one.containers[0], 16 << 30, swap=rule).unified.get("memory.swap.max")

    assert (unified(""), unified("NoSwap"), unified("LimitedSwap")) == (None, "0", str(256 << 20))
    assert unified("LimitedSwap", a_pod("b")) == "0", "of BestEffort pods nothing is known to give by"
    critical = Pod({"metadata": {"uid": "u"}, "spec": {"containers": [burstable], "priority": 2_000_000_000}})
    assert unified("LimitedSwap", critical) == "0"
    first = linux_resources(pod, burstable, 16 << 30, swap=SwapRule("LimitedSwap", 4 << 30))
    assert (first.memory_swap_bytes, first.unified) == (2 << 30, {}), "version 1 cannot tell them apart"
    assert linux_resources(pod, burstable, 16 << 30, swap=SwapRule("NoSwap")).memory_swap_bytes == 0


def test_a_host_whose_systemd_does_not_answer_keeps_an_empty_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kubepods.slice" / "kubepods-podu1.slice").mkdir(parents=True)
    monkeypatch.setattr(podgroups, "SYSTEMD_RUNS", tmp_path)
    for program in (None, "#!/bin/sh\nexec /bin/sleep 60\n"):
        if program is not None:
            monkeypatch.setattr(podgroups, "STOP_S", 0.05)
            (tmp_path / "systemctl").write_text(program)
            (tmp_path / "systemctl").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        podgroups._stop_slices("u1", tmp_path)


def test_huge_pages_of_a_pod_are_limited_where_there_is_the_file(tmp_path: Path) -> None:
    container = {"name": "c", "resources": {"limits": {"hugepages-2Mi": "8Mi"}, "requests": {"hugepages-2Mi": "8Mi"}}}
    limits = pod_limits(Pod({"metadata": {"uid": "x"}, "spec": {"containers": [container]}}), huge_pages=["2Mi", "1Gi"])
    assert limits.huge_pages == (("2MB", 8 << 20), ("1GB", 0))
    (tmp_path / "cgroup.controllers").write_text("cpu memory hugetlb")
    folder = tmp_path / "podx"
    folder.mkdir()
    (folder / "hugetlb.2MB.max").write_text("max")
    assert limit("/podx", limits, tmp_path, make=False)
    assert (folder / "hugetlb.2MB.max").read_text() == str(8 << 20)
    assert not (folder / "hugetlb.1GB.max").exists()
