"""The look for other agents on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgesite.edge.edged.hostcheck import ForeignAgent, check_host, is_wanted


def processes(folder: Path, *names: str) -> Path:
    (folder / "self").mkdir()
    (folder / "99").mkdir()  # ended between the two looks at it
    for number, name in enumerate(names):
        (folder / str(number + 1)).mkdir()
        (folder / str(number + 1) / "comm").write_text(f"{name}\n")
    return folder


def test_a_host_of_ones_own(tmp_path: Path) -> None:
    check_host(processes(tmp_path, "systemd", "containerd", "kubelet-exporter", "edgecore"))


@pytest.mark.parametrize("name", ["kubelet", "kube-proxy"])
def test_another_agent_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ForeignAgent, match=f"{name} should not running on edge node .*process 2"):
        check_host(processes(tmp_path, "systemd", name))


@pytest.mark.parametrize(
    ("modules", "environment", "wanted"),
    [
        ({}, {}, True),
        ({}, {"CHECK_EDGECORE_ENVIRONMENT": "true"}, True),
        ({}, {"CHECK_EDGECORE_ENVIRONMENT": "false"}, False),
        ({"metaManager": {"metaServer": {"enable": True}}}, {}, False),
        ({"metaManager": {"metaServer": {"enable": False}}}, {}, True),
    ],
)
def test_when_it_looks(modules: dict[str, Any], environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(modules, environment) is wanted
