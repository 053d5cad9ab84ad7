"""``keadm reset`` on a real containerd: this node's pods go, others' stay; a runtime is asked whether it speaks CRI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from edgesite.cli.keadm.containers import remove_pods, runtime_problem
from edgesite.cli.keadm.host import Host
from edgesite.edge.edged.adoption import LABEL_NODE
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.runtime import SandboxConfig
from edgesite.testing.containerd import Containerd, containerd
from edgesite.testing.runtime import running


@pytest.fixture
def daemon() -> Iterator[Containerd]:
    with containerd() as started:
        yield started


def test_only_this_nodes_pods_are_removed(daemon: Containerd, tmp_path: Path) -> None:
    async def nodes(*make: str) -> set[str]:
        async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:
            for node in make:
                labels = {LABEL_NODE: node} if node else {}
                logs = tmp_path / f"logs-{node}"
                logs.mkdir()
                config = SandboxConfig(f"pod-{node}", "default", f"uid-{node}", log_directory=str(logs), labels=labels)
                await runtime.run_sandbox(config)
            return {one.labels.get(LABEL_NODE, "") for one in await runtime.list_sandboxes()}

    host = Host()
    assert runtime_problem(host, daemon.endpoint) == ""
    assert anyio.run(nodes, "mine", "other", "") == {"mine", "other", ""}
    remove_pods(host, daemon.endpoint, "mine")
    assert anyio.run(nodes) == {"other", ""}
    remove_pods(host, daemon.endpoint, "")  # a node without a name is nobody's
    remove_pods(host, f"unix://{tmp_path}/none.sock", "other")
    assert anyio.run(nodes) == {"other", ""}
