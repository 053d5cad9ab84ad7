"""Runs the installed program as its users do: a site in a folder of its own, on free loopback ports, driven with kubectl."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from peers import kubectl as fetched_kubectl

PROGRAM = Path(sys.executable).parent / "edgesite"
START_S = 120.0  #: this and the other deadlines here are bounds for failures: machines may be busy
#: No fixed ports: sites of several tests may run side by side.
NO_PORTS = (
    "--set",
    "modules.edged.tailoredKubeletConfig.readOnlyPort=0",
    "--set",
    "modules.edged.tailoredKubeletConfig.healthzPort=0",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """One edgesite process; its output is kept."""

    def __init__(
        self,
        log: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        program: Path = PROGRAM,
    ) -> None:
        self.log = log
        self._out = log.open("ab")
        self.process = subprocess.Popen(
            [*prefix, str(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._out,
            env={**os.environ, **(env or {})},
        )

    def wait_line(self, pattern: str, timeout_s: float = START_S) -> str:
        """Return the first line on standard output that matches; fails with the log when the process ends before."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        seen = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if selector.select(deadline - time.monotonic()):
                    chunk = os.read(self.process.stdout.fileno(), 65536)
                    seen += chunk
                    for line in seen.decode(errors="replace").splitlines():
                        if re.search(pattern, line):
                            return line
                    if not chunk:
                        break
        raise AssertionError(f"no line like {pattern!r}; output {seen!r}; log:\n{self.log.read_text()[-6000:]}")

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """End it as systemd or a terminal would, and return its exit code."""
        self.process.send_signal(by)
        return self._ended(60)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self._ended(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._out.close()

    def _ended(self, timeout_s: float) -> int:
        code = self.process.wait(timeout_s)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Kubectl:
    """kubectl of one version against one API."""

    def __init__(self, version: str, kubeconfig: Path, home: Path, namespace: str = "") -> None:
        self.version = version
        self.path = fetched_kubectl(version)
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self._home = home
        self._command = [str(self.path), "--kubeconfig", str(kubeconfig), *(["-n", namespace] if namespace else [])]
        self._env = {**os.environ, "HOME": str(home), "KUBECONFIG": "", "KUBE_EDITOR": "", "EDITOR": ""}

    def within(self, namespace: str) -> Kubectl:
        """The same with that namespace in every command."""
        return Kubectl(self.version, self.kubeconfig, self._home, namespace)

    def run(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 120, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**self._env, **(env or {})},
        )

    def __call__(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120, **more: Any) -> str:
        """Run and return standard output; fails with standard error when kubectl does."""
        done = self.run(*arguments, stdin=stdin, timeout_s=timeout_s, **more)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def fails(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120, **more: Any) -> str:
        """Run what must fail and return standard error."""
        done = self.run(*arguments, stdin=stdin, timeout_s=timeout_s, **more)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} should have failed: {done.stdout}"
        return done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))

    def background(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one that goes on (watch, logs -f); the caller ends it."""
        return subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._env,
        )


def eventually(probe: Callable[[], Any], what: str, timeout_s: float = 100.0) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            if last := probe():
                return last
        except AssertionError as exc:
            last = exc
        time.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {timeout_s} s; last: {last}")


class Site:
    """``edgesite up`` on a data folder that outlives it."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        runtime: str = "process",
        node: str = "node1",
        prefix: tuple[str, ...] = (),
        program: Path = PROGRAM,
    ) -> None:
        self.folder = folder
        self._prefix = prefix  # runs the program as another user
        self._program = program
        self.data = folder / "data"
        self.node = node
        self.port = free_port()
        self._arguments = arguments
        self._runtime = runtime
        self.program: Program | None = None

    @property
    def kubeconfig(self) -> Path:
        return self.data / "admin.kubeconfig"

    def start(self, *more: str, env: dict[str, str] | None = None) -> str:
        """Start it and return the line that it says when its nodes are Ready."""
        if self.program is not None:
            self.program.close()
        ports = [one.replace("modules.", "edge.modules.", 1) for one in NO_PORTS]
        self.program = Program(
            self.folder / "log",
            *("up", "--data-dir", str(self.data), "--node-name", self.node, "--api-address", f"127.0.0.1:{self.port}"),
            *("--runtime", self._runtime, "-v", "2", *ports, *self._arguments, *more),
            env=env,
            prefix=self._prefix,
            program=self._program,
        )
        return self.program.wait_line("Ready after")

    def stop(self) -> None:
        assert self.program is not None
        code = self.program.stop()
        assert code == 0, self.log()

    def kill(self) -> None:
        assert self.program is not None
        self.program.kill()

    def kubectl(self, version: str = "1.32") -> Kubectl:
        return Kubectl(version, self.kubeconfig, self.folder)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        """Remove all pods, so that no process or container is left behind, then end the site."""
        try:
            if self.program is not None and self.program.process.poll() is None:
                kubectl = self.kubectl()
                now = ("--wait=false", "--cascade=background", "--grace-period=0", "--force")
                for kind in ("deployments", "daemonsets", "statefulsets", "replicasets", "pods"):
                    kubectl("delete", kind, "--all", "-A", *now)
                eventually(lambda: not self.pods() and not self.workload(), "the end of all pods")
                # Deleted by force they are gone from the API before the node has cleared up after them.
                eventually(lambda: not self.pod_folders(), "the end of all that pods had on their node")
                self.stop()
                eventually(lambda: not self.supervisors(), "the end of the supervisor, which has nothing left to do")
        finally:
            if self.program is not None:
                self.program.close()
            end_workload(self.data)

    def pods(self) -> list[Any]:
        items: list[Any] = self.kubectl().json("get", "pods", "-A")["items"]
        return items

    def pod_folders(self) -> list[Path]:
        return [*self.data.glob("edge/edged/pods/*"), *self.data.glob("nodes/*/edged/pods/*")]

    def supervisors(self) -> list[int]:
        return supervisors_of(self.data)

    def workload(self) -> list[int]:
        """Pids of the host processes that run as this site's containers."""
        return live_children(self.supervisors())


def supervisors_of(data: Path) -> list[int]:
    """Pids of the processes that keep host processes running while the role with that data folder comes and goes."""
    mine = f"{data}/".encode()
    return [
        one.pid
        for one in _processes()
        if b"process.supervisor" in one.command.replace(b"/", b".")
        and any(argument.startswith(mine) for argument in one.command.split(b"\0"))
    ]


def live_children(parents: list[int]) -> list[int]:
    return [one.pid for one in _processes() if one.parent in parents]


def end_workload(data: Path) -> None:
    """End the host processes of the role with that data folder, which has ended itself, and take their volumes away."""
    left = found = supervisors_of(data)
    if not found:
        return  # there were none, or they are containers
    while found := live_children(found):
        left = [*left, *found]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for place in reversed([line.split(" ")[4] for line in lines]):
        if place.startswith(f"{data}/"):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


class _Process(NamedTuple):
    pid: int
    parent: int
    command: bytes


def _processes() -> Iterator[_Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                yield _Process(int(entry.name), int(parent), command)
