"""A site whose cloud and edge are in network namespaces of their own, with one cable between them that can be pulled."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e_site import PROGRAM, Kubectl, Program, end_workload, eventually

CLOUD, EDGE = "10.98.0.1", "10.98.0.2"
META = "127.0.0.1:10550"
_NUMBERS = itertools.count()


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=20)


class InEdge(Kubectl):
    """kubectl on the edge's machine, against its MetaServer."""

    def __init__(self, version: str, space: str, home: Path, *more: str) -> None:
        super().__init__(version, home / "none", home)
        self._command = ["ip", "netns", "exec", space, str(self.path), *(more or ("--server", f"http://{META}"))]


class SplitSite:
    """Needs root and iproute2."""

    def __init__(self, folder: Path, *, gate: bool = False, **meta_server: Any) -> None:
        """``meta_server`` are settings of the edge's metaServer."""
        self.folder = folder
        self.cloud_data, self.edge_data = folder / "cloud", folder / "edge"
        word = f"{os.getpid()}-{next(_NUMBERS)}"
        self.spaces = {"cloud": f"esc{word}", "edge": f"ese{word}"}
        self.edge: Program | None = None
        self.cloud: Program | None = None
        self._gate = ("--set", "featureGates.requireAuthorization=true") if gate else ()
        self._settings = {"enable": "true", **meta_server}

    def open(self) -> None:
        for space in self.spaces.values():
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        cloud, edge = self.spaces["cloud"], self.spaces["edge"]
        ip("link", "add", "cable", "netns", cloud, "type", "veth", "peer", "name", "cable", "netns", edge)
        for space, address in ((cloud, CLOUD), (edge, EDGE)):
            ip("-n", space, "address", "add", f"{address}/24", "dev", "cable")
            ip("-n", space, "link", "set", "cable", "up")
        self.start_cloud()
        self.start_edge(self.token())
        kubectl = self.kubectl()
        kubectl("wait", "--for=create", "node/edge-1", "--timeout=100s")
        kubectl("wait", "--for=condition=Ready", "node/edge-1", "--timeout=100s")

    def start_cloud(self) -> None:
        self.cloud = Program(
            self.folder / "cloud.log",
            *("cloud", "--data-dir", str(self.cloud_data), "--api-address", "0.0.0.0:6443"),
            *("--advertise-address", CLOUD, "-v", "2", "--set", "modules.dynamicController.enable=true", *self._gate),
            prefix=("ip", "netns", "exec", self.spaces["cloud"]),
        )
        self.cloud.wait_line("cloud role: ready after")

    def start_edge(self, token: str = "", **settings: str) -> None:
        if self.edge is not None:
            self.edge.close()
        chosen = {**self._settings, **settings}
        words = [
            word
            for name, value in chosen.items()
            for word in ("--set", f"modules.metaManager.metaServer.{name}={value}")
        ]
        self.edge = Program(
            self.folder / "edge.log",
            *("edge", "--data-dir", str(self.edge_data), "--cloud", CLOUD, "--node-name", "edge-1", "-v", "2"),
            *("--runtime", "process", "--set", "modules.edgeHub.heartbeat=1", *words, *self._gate),
            *(("--token", token) if token else ()),
            prefix=("ip", "netns", "exec", self.spaces["edge"]),
        )
        self.edge.wait_line("edge role of node edge-1: ready after")

    def token(self) -> str:
        command = ["ip", "netns", "exec", self.spaces["cloud"], str(PROGRAM), "token"]
        command += ["--data-dir", str(self.cloud_data)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    # -- the link

    def cut(self) -> None:
        """Pull the cable, and wait until the edge has noticed."""
        before = self._said("the connection to the cloud ended")
        ip("-n", self.spaces["edge"], "link", "set", "cable", "down")
        eventually(lambda: self._said("the connection to the cloud ended") > before, "the loss is noticed")

    def heal(self) -> None:
        before = self._said("connected to the cloud")
        ip("-n", self.spaces["edge"], "link", "set", "cable", "up")
        eventually(lambda: self._said("connected to the cloud") > before, "the link is back", 60)

    def _said(self, text: str) -> int:
        return (self.folder / "edge.log").read_text().count(text)

    # -- who works there

    def kubectl(self, version: str = "1.32") -> Kubectl:
        """On the cloud's machine, as administrator."""
        made = Kubectl(version, self.cloud_data / "admin.kubeconfig", self.folder)
        made._command = ["ip", "netns", "exec", self.spaces["cloud"], *made._command]
        return made

    def on_edge(self, version: str = "1.32", *more: str) -> InEdge:
        return InEdge(version, self.spaces["edge"], self.folder, *more)

    def run_on_edge(self, script: str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a Python program of ours on the edge's machine."""
        path = Path(__file__).parent / script
        command = ["ip", "netns", "exec", self.spaces["edge"], sys.executable, str(path), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)

    def start_on_edge(self, script: str, *words: str) -> subprocess.Popen[str]:
        path = Path(__file__).parent / script
        command = ["ip", "netns", "exec", self.spaces["edge"], sys.executable, "-u", str(path), *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def close(self) -> None:
        for program in (self.edge, self.cloud):
            if program is not None:
                program.close()
        end_workload(self.edge_data)
        for space in self.spaces.values():
            ip("netns", "del", space, check=False)


@contextmanager
def split_site(folder: Path, **settings: Any) -> Iterator[SplitSite]:
    made = SplitSite(folder, **settings)
    try:
        made.open()
        yield made
    finally:
        made.close()


def rows_of(text: str) -> list[list[str]]:
    """The cells of a table that kubectl printed."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]
