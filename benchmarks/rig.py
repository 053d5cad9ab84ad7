"""What the benchmarks stand on: the installed program as a process of its own, its API over TLS, and what the system says of the process.

Units   Seconds, bytes; memory from /proc in bytes.
Errors  BenchmarkFailed when the program does not do what is measured; its log is in the message.
State   Folders and processes live as long as the ``with`` block that made them.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import yaml

import edgesite.testing.containerd
from benchmarks import leftovers
from edgesite.testing.containerd import Containerd

__all__ = [
    "Api",
    "BenchmarkFailed",
    "Program",
    "Usage",
    "conditions",
    "containerd",
    "folder",
    "free_port",
    "line",
    "site",
    "usage",
]

PROGRAM: Final = Path(sys.executable).parent / "edgesite"
START_S: Final = 60.0
_DEVELOPERS_OWN: Final = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH")
#: No fixed ports: a site that runs already is not in the way.
_EDGED: Final = "modules.edged.tailoredKubeletConfig"
EDGE_PORTS: Final = ("--set", f"{_EDGED}.readOnlyPort=0", "--set", f"{_EDGED}.healthzPort=0")
UP_PORTS: Final = tuple(one.replace("modules.", "edge.modules.", 1) for one in EDGE_PORTS)


class BenchmarkFailed(RuntimeError):
    """What was to be measured did not happen."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder on the disk of the current one, gone at the end, also when it comes by SIGINT or SIGTERM. What others left goes first."""
    leftovers.remove_abandoned(Path.cwd())
    with _orderly_end(), tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=leftovers.PREFIX) as path:
        leftovers.claim(Path(path))
        try:
            yield Path(path)
        finally:
            leftovers.unmount_below(Path(path))


@contextlib.contextmanager
def containerd(folder: Path) -> Iterator[Containerd]:
    """A containerd of one's own, of which a note in ``folder`` tells. Raises RuntimeError."""
    with edgesite.testing.containerd.containerd(note=folder / leftovers.CONTAINERD) as daemon:
        yield daemon


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end what is inside as an exception does; another one does not cut that off."""
    in_charge = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGINT, signal.SIGTERM) if in_charge else ()

    def end(number: int, _: object) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    before = [(one, signal.signal(one, end)) for one in signals]
    try:
        yield
    finally:
        for one, handler in before:
            if signal.getsignal(one) is end:
                signal.signal(one, handler)


def conditions() -> str:
    """One line that says what the figures were measured on."""
    cpu = "unknown CPU"
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            cpu = text.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return f"python {sys.version.split()[0]}, {os.cpu_count()} × {cpu}, load {load:.1f}"


def line(what: str, measured: str, target: str = "") -> None:
    """Print one figure."""
    print(f"{what:<58} {measured:>14}" + (f"   target {target}" if target else ""), flush=True)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has and has used since its start."""

    rss: int
    pss: int
    threads: int
    written: int  #: bytes that it caused to be sent to disk
    voluntary: int  #: context switches: each is a wake-up
    cpu_s: float


def usage(pid: int) -> Usage:
    """Ask the system. Raises OSError when the process is gone."""
    proc = Path(f"/proc/{pid}")
    smaps = _fields((proc / "smaps_rollup").read_text())
    switches = 0
    for task in (proc / "task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            switches += int(_fields((task / "status").read_text())["voluntary_ctxt_switches"])
    ticks = (proc / "stat").read_text().rpartition(")")[2].split()
    return Usage(
        rss=int(smaps["Rss"].split()[0]) * 1024,
        pss=int(smaps["Pss"].split()[0]) * 1024,
        threads=len(list((proc / "task").iterdir())),
        written=int(_fields((proc / "io").read_text())["write_bytes"]),
        voluntary=switches,
        cpu_s=(int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"),
    )


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (one.partition(":") for one in text.splitlines())}


def _environment() -> dict[str, str]:
    """As a user has it: compiled modules may be kept, and nothing is unbuffered."""
    return {name: value for name, value in os.environ.items() if name not in _DEVELOPERS_OWN}


class Program:
    """One edgesite process; both of its outputs are kept with the time at which each line came."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None, program: Path = PROGRAM) -> None:
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [str(program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment() | (env or {}),
            process_group=0,  # what a terminal tells us is not for it: we end it when its place is gone
        )
        self.pid = self.process.pid
        self.lines: list[tuple[float, str]] = []  #: seconds since the start, text
        self._news = threading.Condition()
        self._ended = False
        # A thread, so that a program with much to say never waits for its reader.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.stop()
        self._reader.join()

    def wait_line(self, pattern: str, timeout_s: float = START_S) -> tuple[float, str]:
        """Return the first line that matches and when it came. Raises BenchmarkFailed."""
        deadline, looked_at = time.perf_counter() + timeout_s, 0
        with self._news:
            while True:
                for at, text in self.lines[looked_at:]:
                    if re.search(pattern, text):
                        return at, text
                looked_at = len(self.lines)
                if self._ended or not self._news.wait(deadline - time.perf_counter()):
                    log = "\n".join(text for _, text in self.lines[-60:])
                    raise BenchmarkFailed(f"no line like {pattern!r}; the log:\n{log}")

    def stop(self) -> None:
        """End it as a service manager would."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            for raw in out:
                with self._news:
                    self.lines.append((time.perf_counter() - self.started, raw.decode(errors="replace").rstrip("\n")))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


class Api:
    """The API server's HTTP interface with the administrator's certificate. One caller at a time; close it, or use ``with``."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile(suffix=".pem") as pem:
            for name in ("client-certificate-data", "client-key-data"):
                pem.write(base64.b64decode(user[name]))
            pem.flush()
            self._tls.load_cert_chain(pem.name)
        self._address = cluster["server"].removeprefix("https://")
        self._connection = self.connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._address, context=self._tls, timeout=60)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer. Raises BenchmarkFailed for anything but success."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise BenchmarkFailed(f"{method} {path}: {answer.status} {data[:500]!r}")
        return json.loads(data)

    @contextlib.contextmanager
    def watch(self, path: str) -> Iterator[Iterator[dict[str, Any]]]:
        """Events: first what there is, then what happens."""
        connection = self.connection()
        connection.request("GET", f"{path}?watch=true&allowWatchBookmarks=false")
        answer = connection.getresponse()
        try:
            yield (json.loads(text) for text in iter(answer.readline, b""))
        finally:
            connection.close()


def pod(name: str, image: str, command: list[str], **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def wait_running(api: Api, count: int, timeout_s: float = 60.0) -> None:
    """Wait until so many pods of namespace default are Running. Raises BenchmarkFailed."""
    running: set[str] = set()
    deadline = time.monotonic() + timeout_s
    with api.watch("/api/v1/namespaces/default/pods") as events:
        for event in events:
            if event["object"].get("status", {}).get("phase") == "Running":
                running.add(event["object"]["metadata"]["name"])
            if len(running) >= count:
                return
            if time.monotonic() > deadline:
                break
    raise BenchmarkFailed(f"{len(running)} of {count} pods are Running")


@contextlib.contextmanager
def site(data: Path, *arguments: str, runtime: str = "process", env: dict[str, str] | None = None) -> Iterator[Program]:
    """A whole site, its node Ready. Host processes of its pods end with it; containers are left to whoever ends their runtime."""
    address = f"127.0.0.1:{free_port()}"
    where = ("--data-dir", str(data), "--node-name", "node1", "--api-address", address)
    with Program("up", *where, "--runtime", runtime, *UP_PORTS, *arguments, env=env) as program:
        program.wait_line("Ready after")
        try:
            yield program
        finally:
            if runtime == "process":
                with Api(data / "admin.kubeconfig") as api:
                    remove_pods(api)


def remove_pods(api: Api) -> None:
    """Delete the pods of namespace default and wait until they are gone. Raises BenchmarkFailed."""
    path = "/api/v1/namespaces/default/pods"
    api.call("DELETE", path)
    deadline = time.monotonic() + 60
    while api.call("GET", path)["items"]:
        if time.monotonic() > deadline:
            raise BenchmarkFailed("pods do not end")
        time.sleep(0.1)
