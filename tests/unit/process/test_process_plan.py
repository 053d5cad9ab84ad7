"""Plans of host processes: what they carry, and what is refused."""

from __future__ import annotations

import resource
import signal
from typing import Any

import pytest

from edgesite.edge.edged.process.cgroups import Cgroup
from edgesite.edge.edged.process.plan import Host, check, plan
from edgesite.edge.edged.runtime import (
    Capabilities,
    ContainerConfig,
    ContainerSecurity,
    Device,
    LinuxResources,
    Mount,
    Propagation,
    RuntimeFault,
    SandboxConfig,
)

ROOT = Host(0, 0, "root")
USER = Host(1000, 1000, "user")
BARE = Host(1000, 1000, "")
SANDBOX = SandboxConfig("web-0", "default", "uid", hostname="web-0")


def config(**more: Any) -> ContainerConfig:
    return ContainerConfig("main", "host", **({"command": ("/bin/app",)} | more))


def planned(container: ContainerConfig, host: Host = ROOT, cgroup: Cgroup | None = None) -> dict[str, Any]:
    check(container, host)
    return plan(container, SANDBOX, "c1", "/data/c1/work", "/log/0.log", cgroup, host)


def test_a_plain_program() -> None:
    made = planned(config(args=("--x",), envs=(("A", "1"), ("HOME", "/home/a"))))
    assert made["argv"] == ["/bin/app", "--x"]
    assert made["env"]["A"] == "1"
    assert made["env"]["HOME"] == "/home/a"
    assert made["env"]["HOSTNAME"] == "web-0"
    assert made["env"]["EDGESITE_CONTAINER"] == "c1"
    assert made["cwd"] == "/data/c1/work"
    assert (made["uid"], made["gid"], made["groups"]) == (None, None, None)
    assert made["stop_signal"] == signal.SIGTERM


def test_a_pod_may_not_pose_as_another_container() -> None:
    assert planned(config(envs=(("EDGESITE_CONTAINER", "c2"),)))["env"]["EDGESITE_CONTAINER"] == "c1"


def test_names_that_no_environment_can_hold_are_left_out() -> None:
    env = planned(config(envs=(("A=B", "1"), ("", "2"), ("N", "a\0b"), ("OK", "3"))))["env"]
    assert not {"A=B", "", "N"} & env.keys()
    assert env["OK"] == "3"


def test_identity() -> None:
    made = planned(config(security=ContainerSecurity(user=12, groups=(5,))))
    assert (made["uid"], made["gid"], made["groups"]) == (12, 0, [5])
    made = planned(config(security=ContainerSecurity(user=12, group=7)))
    assert (made["uid"], made["gid"], made["groups"]) == (12, 7, [])
    made = planned(config(security=ContainerSecurity(user=1000)), USER)
    assert (made["uid"], made["gid"], made["groups"]) == (None, None, None)


def test_mounts_and_devices() -> None:
    mounts = (
        Mount("/a", "/h/a", readonly=True),
        Mount("/same", "/same"),
        Mount("/b", "/h/b", propagation=Propagation.BIDIRECTIONAL),
    )
    made = planned(config(mounts=mounts, devices=(Device("/dev/x", "/dev/y"), Device("/dev/z", "/dev/z"))))
    assert made["mounts"] == [
        {"source": "/h/a", "target": "/a", "readonly": True, "shared": False},
        {"source": "/h/b", "target": "/b", "readonly": False, "shared": True},
        {"source": "/dev/y", "target": "/dev/x", "readonly": False, "shared": False},
    ]


def test_where_nothing_can_be_mounted_the_pods_own_files_are_named_in_the_environment() -> None:
    made = planned(config(mounts=(Mount("/etc/hosts", "/h/hosts"), Mount("/dev/termination-log", "/h/last"))), BARE)
    assert made["mounts"] == []
    assert made["env"]["EDGESITE_MOUNTS"] == "/etc/hosts=/h/hosts\n/dev/termination-log=/h/last"


def test_limits_go_to_the_control_group_or_to_each_process() -> None:
    limited = config(resources=LinuxResources(memory_bytes=1 << 20, oom_score_adj=999))
    group = Cgroup(2, ("/sys/fs/cgroup/edgesite/c1",))
    assert planned(limited, ROOT, group)["rlimits"] == []
    assert planned(limited, ROOT, group)["cgroups"] == ["/sys/fs/cgroup/edgesite/c1/cgroup.procs"]
    assert planned(limited, ROOT, group)["oom"] == "/sys/fs/cgroup/edgesite/c1/memory.events"
    assert planned(limited)["rlimits"] == [[resource.RLIMIT_DATA, 1 << 20, 1 << 20]]
    assert planned(limited)["oom_score_adj"] == 999


def test_capabilities() -> None:
    def dropped(**more: Any) -> list[int]:
        found: list[int] = planned(config(security=ContainerSecurity(**more)))["drop_capabilities"]
        return found

    assert dropped(capabilities=Capabilities(drop=("KILL", "CAP_CHOWN"))) == [0, 5]
    every = dropped(capabilities=Capabilities(drop=("ALL",), add=("NET_BIND_SERVICE",)))
    assert len(every) == 40
    assert 10 not in every
    assert dropped(capabilities=Capabilities(drop=("ALL",)), privileged=True) == []


def test_stop_signals() -> None:
    assert planned(config(stop_signal="SIGUSR1"))["stop_signal"] == signal.SIGUSR1
    assert planned(config(stop_signal="SIGRTMIN+3"))["stop_signal"] == signal.SIGRTMIN + 3
    with pytest.raises(RuntimeFault, match="unknown stop signal SIGNOPE"):
        planned(config(stop_signal="SIGNOPE"))


@pytest.mark.parametrize(
    ("container", "host", "why"),
    [
        (config(command=(), args=("x",)), ROOT, "no command specified"),
        (config(security=ContainerSecurity(user=5)), USER, "cannot run as user 5: edgesite itself runs as user 1000"),
        (config(security=ContainerSecurity(group=5)), USER, "cannot run as group 5"),
        (config(security=ContainerSecurity(username="www")), ROOT, "needs a number"),
        (config(security=ContainerSecurity(readonly_rootfs=True)), ROOT, "readOnlyRootFilesystem"),
        (config(mounts=(Mount("/data", "/h"),)), BARE, "cannot show a volume at /data"),
    ],
)
def test_what_a_host_process_cannot_have_is_refused(container: ContainerConfig, host: Host, why: str) -> None:
    with pytest.raises(RuntimeFault, match=why):
        check(container, host)
