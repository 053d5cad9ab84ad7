"""The cloud role on an API server that is not its own: two instances, an edge that knows both, each of them and the API killed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from e2e_site import (
    NO_PORTS,
    PROGRAM,
    Kubectl,
    Program,
    end_workload,
    eventually,
    free_port,
    live_children,
    supervisors_of,
)


class Part:
    """One process of the site, started again with the same arguments."""

    def __init__(self, folder: Path, name: str, ready: str, *arguments: str) -> None:
        self.log = folder / f"{name}.log"
        self.data = folder / name
        self._ready = ready
        self._arguments = (arguments[0], "--data-dir", str(self.data), "-v", "2", *arguments[1:])
        self.program: Program | None = None

    def start(self, *more: str) -> None:
        self.close()
        self.program = Program(self.log, *self._arguments, *more)
        self.program.wait_line(self._ready)

    def close(self) -> None:
        if self.program is not None:
            self.program.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("external")


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(scope="module")
def api(stack: ExitStack, folder: Path) -> Part:
    """An API server with scheduler and controllers; edges do not come here."""
    off = [f"--set=modules.{one}.enable=false" for one in ("cloudHub.websocket", "cloudHub.https", "cloudStream")]
    address = f"127.0.0.1:{free_port()}"
    part = stack.enter_context(closing(Part(folder, "api", "ready after", "cloud", "--api-address", address, *off)))
    part.start()
    return part


@pytest.fixture(scope="module")
def kubectl(api: Part, folder: Path) -> Kubectl:
    return Kubectl("1.32", api.data / "admin.kubeconfig", folder)


class Clouds:
    """Two instances of the cloud role, and the file of an edge that knows both."""

    def __init__(self, stack: ExitStack, folder: Path, api: Part) -> None:
        self.parts: dict[str, Part] = {}
        self._hubs: list[tuple[int, int, int]] = []
        for name in ("one", "two"):
            ports = (free_port(), free_port(), free_port())
            self._hubs.append(ports)
            options = ("--hub-port", "--bootstrap-port", "--tunnel-port")
            given = [text for pair in zip(options, map(str, ports), strict=True) for text in pair]
            more = ("--set=modules.iptablesManager.enable=false", f"--set=modules.cloudStream.streamPort={free_port()}")
            kubeconfig = ("--kubeconfig", str(api.data / "admin.kubeconfig"), "--advertise-address", "127.0.0.1")
            part = Part(folder, name, "ready after", "cloud", *kubeconfig, *given, *more)
            self.parts[name] = stack.enter_context(closing(part))
            part.start()

    def file(self, path: Path) -> Path:
        hub = {
            "websocket": {"server": ",".join(f"127.0.0.1:{port}" for port, _, _ in self._hubs)},
            "httpServer": ",".join(f"https://127.0.0.1:{port}" for _, port, _ in self._hubs),
        }
        stream = {"server": ",".join(f"127.0.0.1:{port}" for _, _, port in self._hubs)}
        config = {"apiVersion": "edgecore.config.kubeedge.io/v1alpha2", "kind": "EdgeCore"}
        path.write_text(json.dumps({**config, "modules": {"edgeHub": hub, "edgeStream": stream}}))
        return path


@pytest.fixture(scope="module")
def clouds(stack: ExitStack, folder: Path, api: Part) -> Clouds:
    return Clouds(stack, folder, api)


@pytest.fixture(scope="module")
def edge(stack: ExitStack, folder: Path, api: Part, clouds: Clouds, kubectl: Kubectl) -> Part:
    command = [str(PROGRAM), "token", "--kubeconfig", str(api.data / "admin.kubeconfig")]
    token = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    file = str(clouds.file(folder / "edge.yaml"))
    ready = "edge role of node e1: ready after"
    part = Part(folder, "edge", ready, "edge", "--config", file, "--node-name", "e1", "--runtime", "process", *NO_PORTS)
    stack.callback(end_workload, part.data)
    stack.enter_context(closing(part))
    part.start("--token", token)
    kubectl("wait", "--for=create", "node/e1", "--timeout=100s")
    kubectl("wait", "--for=condition=Ready", "node/e1", "--timeout=100s")
    return part


def deployment(replicas: int) -> str:
    container = {"name": "main", "image": "host", "command": ["sh", "-c", "sleep 1000 & wait"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {**spec, "nodeSelector": {"kubernetes.io/hostname": "e1"}},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})


def containers(kubectl: Kubectl, count: int) -> set[tuple[str, int]]:
    """Wait for that many Ready pods and no others; gives their containers and how often these were restarted."""

    def look() -> set[tuple[str, int]] | None:
        pods: list[Any] = kubectl.json("get", "pods", "-l", "app=web")["items"]
        found = [one for pod in pods for one in pod["status"].get("containerStatuses") or ()]
        ready = len(pods) == count and len(found) == count and all(one["ready"] for one in found)
        return {(one["containerID"], one["restartCount"]) for one in found} if ready else None

    return set(eventually(look, f"{count} pods", 60))


def test_an_edge_outlives_each_instance_and_the_api(api: Part, clouds: Clouds, edge: Part, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=deployment(2))
    known = containers(kubectl, 2)
    for replicas, name in ((3, "one"), (4, "two")):
        part = clouds.parts[name]
        assert part.program is not None
        part.program.kill()
        kubectl("scale", "deployment/web", f"--replicas={replicas}")
        now = containers(kubectl, replicas)
        assert known <= now, "containers were started anew"
        known = now
        part.start()
    assert api.program is not None
    api.program.kill()
    api.start()
    kubectl("scale", "deployment/web", "--replicas=1")
    assert containers(kubectl, 1) <= known
    for part in (*clouds.parts.values(), edge):
        assert part.program is not None
        assert part.program.process.poll() is None, part.log.read_text()
        assert "Traceback" not in part.log.read_text()
    kubectl("delete", "deployment/web")
    eventually(lambda: not live_children(supervisors_of(edge.data)), "the end of all programs")
