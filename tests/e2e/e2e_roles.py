"""The two roles as processes of their own, over TLS on loopback, and what must not stay mounted after them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

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

from edgesite.testing.containerd import Containerd


class Cloud:
    """``edgesite cloud`` on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "cloud"
        self.api, self.hub, self.bootstrap, self.tunnel = (free_port() for _ in range(4))
        self.program: Program | None = None

    def start(self, *more: str) -> None:
        """``more`` are further arguments."""
        self.close()
        ports = (
            "--hub-port",
            str(self.hub),
            "--bootstrap-port",
            str(self.bootstrap),
            "--tunnel-port",
            str(self.tunnel),
        )
        self.program = Program(
            self.folder / "cloud.log",
            *("cloud", "--data-dir", str(self.data), "--api-address", f"127.0.0.1:{self.api}"),
            *("--advertise-address", "127.0.0.1", "-v", "2", *ports, *more),
        )
        self.program.wait_line("cloud role: ready after")

    def end(self, how: signal.Signals) -> None:
        assert self.program is not None
        if how is signal.SIGKILL:
            self.program.kill()
        else:
            assert self.program.stop() == 0

    def token(self) -> str:
        command = [str(PROGRAM), "token", "--data-dir", str(self.data)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    def kubectl(self) -> Kubectl:
        return Kubectl("1.32", self.data / "admin.kubeconfig", self.folder)

    def close(self) -> None:
        if self.program is not None:
            self.program.close()


class Edge:
    """``edgesite edge`` of one node."""

    def __init__(self, folder: Path, cloud: Cloud, node: str, *runtime: str) -> None:
        """``runtime`` are options; host processes if there are none."""
        self.node = node
        self._runtime = runtime or ("--runtime", "process")
        self.log = folder / f"{node}.log"
        self.data = folder / node
        self._cloud = cloud
        self.program: Program | None = None

    def start(self, token: str = "") -> None:
        if self.program is not None:
            self.program.close()
        ports = ("--hub-port", str(self._cloud.hub), "--bootstrap-port", str(self._cloud.bootstrap))
        self.program = Program(
            self.log,
            *(
                "edge",
                "--data-dir",
                str(self.data),
                "--cloud",
                "127.0.0.1",
                "--node-name",
                self.node,
                *self._runtime,
            ),
            *("--tunnel-port", str(self._cloud.tunnel), "-v", "2", *ports, *NO_PORTS),
            *(("--token", token) if token else ()),
        )
        self.program.wait_line(f"edge role of node {self.node}: ready after")

    def said(self, text: str) -> None:
        eventually(lambda: text in self.log.read_text(), f"{text!r} in the log of {self.node}")

    def workload(self) -> list[int]:
        return live_children(supervisors_of(self.data))

    def close(self) -> None:
        if self.program is not None:
            self.program.close()
        end_workload(self.data)


def ready(cloud: Cloud, node: str) -> None:
    kubectl = cloud.kubectl()
    kubectl("wait", "--for=create", f"node/{node}", "--timeout=100s")
    kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=100s")


@contextmanager
def joined_on(daemon: Containerd, folder: Path, node: str) -> Iterator[tuple[Cloud, Edge]]:
    """Both roles, joined, the edge on containerd; nothing is mounted below their folders when they have ended."""
    with nothing_mounted(folder), closing(Cloud(folder)) as cloud:
        cloud.start()
        with closing(Edge(folder, cloud, node, "--runtime", "cri", "--cri-endpoint", daemon.endpoint)) as edge:
            edge.start(cloud.token())
            ready(cloud, node)
            yield cloud, edge


@contextmanager
def nothing_mounted(below: Path) -> Iterator[None]:
    """Checks that after the block; what is there all the same is unmounted for the tests that follow."""
    yield
    left = mounts(below)
    for one in reversed(left):
        subprocess.run(["umount", one], check=False)
    assert left == []


def mounts(below: Path) -> list[str]:
    places = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [one for one in places if one.startswith(f"{below}/")]
