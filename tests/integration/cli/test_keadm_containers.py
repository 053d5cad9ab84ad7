"""``keadm reset`` on a real containerd: this node's pods go, others' stay; a runtime is asked whether it speaks CRI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.abc
import anyio.from_thread
import pytest

from edgesite.cli.keadm.command import main
from edgesite.cli.keadm.containers import remove_pods, runtime_problem
from edgesite.cli.keadm.host import Host
from edgesite.edge.edged.adoption import LABEL_NODE
from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.edge.edged.runtime import SandboxConfig
from edgesite.net.http import HttpServer
from edgesite.net.real import RealClock, RealNet
from edgesite.testing.containerd import Containerd, containerd
from edgesite.testing.images import build_image
from edgesite.testing.registry import Registry
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


def test_images_are_pulled_from_a_repository(daemon: Containerd, capsys: pytest.CaptureFixture[str]) -> None:
    """As scripts for hosts without the internet do it: from a mirror of their own; what is not there is named."""
    parts = build_image()
    names = ("pause:3.1", "installation-package:v1.12.1")

    async def registry_of(*images: str, task_status: anyio.abc.TaskStatus[str]) -> None:
        registry = Registry({f"mirror/{one}": parts for one in images})
        async with HttpServer(registry.handle, clock=RealClock()) as server:
            listener = await server.listen(RealNet(), "127.0.0.1:0")
            registry.address = listener.address
            task_status.started(listener.address)
            await anyio.sleep_forever()

    with anyio.from_thread.start_blocking_portal() as portal:
        task, address = portal.start_task(registry_of, *names)
        words = ["config", "images", "pull", "--part=edge", f"--image-repository={address}/mirror"]
        words += ["--kubeedge-version=1.12.1", f"--remote-runtime-endpoint={daemon.endpoint}", "-r", "remote"]
        assert main(words) == 1
        said = capsys.readouterr()
        mosquitto = f"{address}/mirror/eclipse-mosquitto:1.6.15"
        assert said.out == f"Pulling {mosquitto} ...\n"
        assert said.err.startswith(f"execute keadm command failed:  pull Images failed: {mosquitto}: ")
        task.cancel()

        task, address = portal.start_task(registry_of, *names, "eclipse-mosquitto:1.6.15")
        words[4] = f"--image-repository={address}/mirror"
        assert main(words) == 0
        assert capsys.readouterr().out.count("Successfully pulled ") == 3
        task.cancel()
    assert main(["config", "images", "pull", "-p", "unix:///run/no/such.sock"]) == 1
    assert "there is no such socket" in capsys.readouterr().err
