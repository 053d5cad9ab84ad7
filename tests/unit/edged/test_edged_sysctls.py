"""Kernel parameters of pods."""

from __future__ import annotations

from typing import Any

import pytest

from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.services import NodeFacts
from edgesite.edge.edged.stages.admission import refusal
from edgesite.edge.edged.sysctls import forbidden_sysctl


def a_pod(*names: str, **spec: Any) -> Pod:
    return Pod({"spec": {"securityContext": {"sysctls": [{"name": one, "value": "1"} for one in names]}, **spec}})


@pytest.mark.parametrize(
    ("pod", "allowed", "forbidden"),
    [
        (a_pod(), (), None),
        (a_pod("net.ipv4.tcp_syncookies", "kernel.shm_rmid_forced"), (), None),
        (a_pod("net/ipv4/ping_group_range"), (), None),
        (a_pod("net.core.somaxconn"), (), "net.core.somaxconn"),
        (a_pod("net.core.somaxconn"), ("net.core.*",), None),
        (a_pod("kernel.msgmax"), ("kernel.msg*",), None),
        (a_pod("kernel.msgmax", hostIPC=True), ("kernel.msg*",), "kernel.msgmax"),
        (a_pod("net.ipv4.tcp_syncookies", hostNetwork=True), (), "net.ipv4.tcp_syncookies"),
        (a_pod("vm.swappiness"), ("vm.*",), "vm.swappiness"),
    ],
)
def test_which_a_pod_may_set(pod: Pod, allowed: tuple[str, ...], forbidden: str | None) -> None:
    assert forbidden_sysctl(pod, allowed) == forbidden


def test_a_forbidden_one_refuses_the_pod() -> None:
    found = refusal(a_pod("vm.swappiness"), NodeFacts("edge-1"), [])
    assert found is not None
    assert (found.reason, found.message) == ("SysctlForbidden", 'forbidden sysctl: "vm.swappiness" not allowlisted')
