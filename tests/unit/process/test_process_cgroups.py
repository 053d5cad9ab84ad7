"""Control groups, on a directory that stands in for the kernel's file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesite.edge.edged.process.cgroups import Cgroups
from edgesite.edge.edged.runtime import LinuxResources

LIMITS = LinuxResources(cpu_period_us=100_000, cpu_quota_us=50_000, cpu_shares=1024, memory_bytes=1 << 20)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    for place in (tmp_path, tmp_path / "edgesite", tmp_path / "edgesite" / "c1"):
        place.mkdir(exist_ok=True)
        (place / "cgroup.controllers").write_text("cpuset cpu memory\n")
        (place / "cgroup.procs").touch()
    return tmp_path


def test_version_2(second: Path) -> None:
    group = Cgroups(second).make("", "c1", LIMITS)
    assert group is not None
    place = second / "edgesite" / "c1"
    assert group.procs == [str(place / "cgroup.procs")]
    assert group.oom_file == str(place / "memory.events")
    assert (second / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (second / "edgesite" / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (place / "cpu.weight").read_text() == "39"
    assert (place / "cpu.max").read_text() == "50000 100000"
    assert (place / "memory.max").read_text() == "1048576"
    (place / "cpu.stat").write_text("usage_usec 5\nuser_usec 3\n")
    (place / "memory.current").write_text("1000\n")
    (place / "memory.stat").write_text("anon 300\ninactive_file 400\n")
    use = group.use()
    assert use is not None
    assert (use.cpu_ns, use.memory_bytes, use.working_set_bytes, use.rss_bytes) == (5000, 1000, 600, 300)


def test_version_1(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory", "devices"):
        (tmp_path / name / "kubepods" / "c1").mkdir(parents=True)
        (tmp_path / name / "kubepods" / "c1" / "cgroup.procs").touch()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    group = Cgroups(tmp_path).make("/kubepods", "c1", LIMITS)
    assert group is not None
    both, memory = tmp_path / "cpu,cpuacct" / "kubepods" / "c1", tmp_path / "memory" / "kubepods" / "c1"
    assert group.procs == [f"{both}/cgroup.procs", f"{memory}/cgroup.procs"]
    assert group.oom_file == f"{memory}/memory.oom_control"
    assert (both / "cpu.shares").read_text() == "1024"
    assert (both / "cpu.cfs_quota_us").read_text() == "50000"
    assert (memory / "memory.limit_in_bytes").read_text() == "1048576"
    (both / "cpuacct.usage").write_text("77\n")
    (memory / "memory.usage_in_bytes").write_text("1000\n")
    (memory / "memory.stat").write_text("total_rss 300\ntotal_inactive_file 1400\n")
    use = group.use()
    assert use is not None
    assert (use.cpu_ns, use.working_set_bytes, use.rss_bytes) == (77, 0, 300)


def test_a_host_without_control_groups_gives_none(tmp_path: Path) -> None:
    assert Cgroups(tmp_path / "absent").make("", "c1", LIMITS) is None
    (tmp_path / "cgroup.controllers").write_text("")
    assert Cgroups(tmp_path).make("", "c1", LIMITS) is None, "nobody can join: there is no cgroup.procs"


def test_groups_are_found_and_removed_with_what_stood_above(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("")
    cgroups = Cgroups(tmp_path)
    assert cgroups.find("/a/b", "c1") is None
    (tmp_path / "a" / "b" / "c1").mkdir(parents=True)
    group = cgroups.find("/a/b", "c1")
    assert group is not None
    assert cgroups.remove(group)
    assert cgroups.remove(group)
    cgroups.remove_parent("/a/b")
    assert not (tmp_path / "a").exists()
    assert tmp_path.exists()
