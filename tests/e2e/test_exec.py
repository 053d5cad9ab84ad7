"""kubectl exec, attach, port-forward and cp, with both versions of kubectl (SPDY and WebSocket) and both runtimes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from e2e_roles import Cloud, Edge
from e2e_site import Kubectl, Site, eventually

from edgesite.testing.containerd import BUSYBOX, Containerd

LARGE = 50 << 20
PYTHON_CLIENT = """
import sys
from kubernetes import client, config, stream

config.load_kube_config(sys.argv[1])
talk = stream.stream(
    client.CoreV1Api().connect_get_namespaced_pod_exec,
    "box",
    "streams",
    command=["sh", "-c", "read x; echo got $x; echo err >&2; exit 5"],
    stdin=True,
    stdout=True,
    stderr=True,
    _preload_content=False,
)
talk.write_stdin("one\\n")
talk.run_forever(timeout=20)
print(talk.read_stdout(), talk.read_stderr(), talk.returncode, sep="|", end="")
"""
PORT = 18080


class Apart:
    """The two roles as processes of their own, over TLS; host processes as containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cloud = Cloud(folder)
        self.edge = Edge(folder, self.cloud, "node1")

    def start(self) -> None:
        self.cloud.start()
        self.edge.start(self.cloud.token())
        self.kubectl()("wait", "--for=create", "node/node1", "--timeout=100s")

    def kubectl(self, version: str = "1.32") -> Kubectl:
        return Kubectl(version, self.cloud.data / "admin.kubeconfig", self.folder)

    def close(self) -> None:
        self.edge.close()
        self.cloud.close()


def prepared(site: Site | Apart) -> None:
    """Start it, with a pod that streams lead into."""
    site.start()
    kubectl = site.kubectl()
    kubectl("create", "namespace", "streams")
    kubectl("-n", "streams", "apply", "-f", "-", stdin=json.dumps(pod("box")))
    eventually(lambda: kubectl("-n", "streams", "exec", "box", "--", "echo", "x") == "x\n", "the pod's start")


@pytest.fixture(scope="module", params=["cri", "process", "apart"])
def exec_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site | Apart]:
    folder = tmp_path_factory.mktemp(request.param)
    made: Site | Apart
    if request.param == "cri":
        daemon: Containerd = request.getfixturevalue("daemon")
        made = Site(folder, "--cri-endpoint", daemon.endpoint, runtime="cri")
    else:
        made = Site(folder) if request.param == "process" else Apart(folder)
    with closing(made) as site:
        prepared(site)
        yield site


@pytest.fixture(params=["1.20", "1.32"])
def kubectl(request: pytest.FixtureRequest, exec_site: Site | Apart) -> Kubectl:
    return exec_site.kubectl(request.param).within("streams")


def pod(name: str, *, script: str = "sleep 100000", **more: Any) -> dict[str, Any]:
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script], **more}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def phase(kubectl: Kubectl, name: str) -> str:
    return str(kubectl.json("-n", "streams", "get", "pod", name)["status"].get("phase"))


def command(kubectl: Kubectl, *arguments: str) -> list[str]:
    return [str(kubectl.path), "--kubeconfig", str(kubectl.kubeconfig), "-n", "streams", *arguments]


def run(kubectl: Kubectl, *arguments: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(command(kubectl, *arguments), input=stdin, capture_output=True, timeout=100, check=False)
    assert done.returncode == code, done
    return done


def test_output_and_exit_codes(kubectl: Kubectl) -> None:
    done = run(kubectl, "exec", "box", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    done = run(kubectl, "exec", "box", "--", "sh", "-c", "exit 42", code=42)
    assert b"terminated with exit code 42" in done.stderr
    run(kubectl, "exec", "box", "--", "true")
    missing = command(kubectl, "exec", "box", "--", "/no/such/program")
    done = subprocess.run(missing, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert b"/no/such/program" in done.stderr


def test_refusals_say_what_is_wrong(kubectl: Kubectl) -> None:
    assert b'pods "gone" not found' in run(kubectl, "exec", "gone", "--", "true", code=1).stderr
    assert b"container nope is not valid" in run(kubectl, "exec", "box", "-c", "nope", "--", "true", code=1).stderr


def test_stdin_ends_by_itself(kubectl: Kubectl) -> None:
    assert run(kubectl, "exec", "-i", "box", "--", "cat", stdin=b"one\ntwo\n").stdout == b"one\ntwo\n"
    assert run(kubectl, "exec", "-i", "box", "--", "wc", "-c", stdin=b"").stdout.strip() == b"0"


def test_large_binary_streams_are_exact(kubectl: Kubectl) -> None:
    data = random.Random(4).randbytes(LARGE)
    digest = hashlib.sha256(data).hexdigest().encode()
    assert run(kubectl, "exec", "-i", "box", "--", "sha256sum", stdin=data).stdout.split()[0] == digest
    out = run(kubectl, "exec", "-i", "box", "--", "cat", stdin=data).stdout
    assert (len(out), hashlib.sha256(out).hexdigest().encode()) == (LARGE, digest)


def test_copying_both_ways(kubectl: Kubectl, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(3 << 20)
    (tmp_path / "there").write_bytes(data)
    target = f"/tmp/streams-{os.getpid()}"
    run(kubectl, "cp", str(tmp_path / "there"), f"box:{target}")
    run(kubectl, "cp", f"box:{target}", str(tmp_path / "back"))
    run(kubectl, "exec", "box", "--", "rm", target)
    assert (tmp_path / "back").read_bytes() == data


class Terminal:
    """kubectl on a terminal of its own."""

    def __init__(self, *arguments: str, rows: int = 33, columns: int = 99) -> None:
        self.fd, far = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(arguments, stdin=far, stdout=far, stderr=far, start_new_session=True)
        os.close(far)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGWINCH)

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def until(self, pattern: bytes, timeout_s: float = 20) -> re.Match[bytes]:
        deadline = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.seen)) is None:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.fd, 4096)
        self.seen = self.seen[found.end() :]
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        os.close(self.fd)


def test_a_terminal_with_its_size_signals_and_exit_code(kubectl: Kubectl) -> None:
    with closing(Terminal(*command(kubectl, "exec", "-it", "box", "--", "sh"))) as terminal:
        terminal.type(b"stty size; echo begin-$((6*7))\r")
        terminal.until(rb"33 99\s+begin-42")
        terminal.resize(21, 77)

        def resized() -> bool:
            terminal.type(b"stty size\r")
            return terminal.until(rb"\n(\d+ \d+)\r")[1] == b"21 77"

        eventually(resized, "the new size")
        terminal.type(b"cat\r")

        def running() -> object:
            terminal.type(b"back\r")
            return terminal.until(rb"back\s+back", 2)  # the terminal's echo, then cat's

        eventually(running, "the start of cat")
        terminal.type(b"\x03")
        terminal.until(rb"[#$] ")  # the prompt: what was typed before it may be dropped
        terminal.type(b"echo after-$((1+1))\r")
        terminal.until(rb"after-2")
        terminal.type(b"exit 7\r")
        assert terminal.process.wait(20) == 7


@contextlib.contextmanager
def forwarded(kubectl: Kubectl, target: str, port: int) -> Iterator[int]:
    """A local port that leads to one of a pod."""
    process = subprocess.Popen(
        command(kubectl, "port-forward", target, f":{port}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+) -> ", line)
        assert found is not None, line + process.stdout.read()
        yield int(found[1])
    finally:
        process.kill()
        process.communicate(timeout=60)


def answer(port: int, data: bytes) -> bytes:
    """Send, end our side, and take all that comes."""
    with socket.create_connection(("127.0.0.1", port), 30) as conn:

        def send() -> None:
            conn.sendall(data)
            conn.shutdown(socket.SHUT_WR)

        sender = Thread(target=send)
        sender.start()
        parts = []
        while part := conn.recv(65536):
            parts.append(part)
        sender.join()
    return b"".join(parts)


def test_ports_are_forwarded(kubectl: Kubectl, exec_site: Site | Apart) -> None:
    name = f"echo-{kubectl.version.replace('.', '-')}"
    port = PORT + int(kubectl.version[-2:])
    netcat = "nc" if exec_site.folder.name.startswith("cri") else "busybox nc"
    serve = f"{netcat} -ll -p {port} -e cat"
    kubectl("apply", "-f", "-", stdin=json.dumps(pod(name, script=serve)))
    eventually(lambda: phase(kubectl, name) == "Running", "the pod's start")
    probe = ("exec", name, "--", "sh", "-c", f"echo x | {netcat} 127.0.0.1 {port}")
    eventually(lambda: kubectl(*probe) == "x\n", "the echo")
    data = random.Random(6).randbytes(4 << 20)
    with forwarded(kubectl, f"pod/{name}", port) as local:
        assert answer(local, data) == data
        results: list[bytes] = []
        together = [Thread(target=lambda: results.append(answer(local, data[:200_000]))) for _ in range(5)]
        for one in together:
            one.start()
        for one in together:
            one.join(60)
        assert results == [data[:200_000]] * 5
    kubectl("delete", "pod", name, "--wait=false")


def test_attach(kubectl: Kubectl) -> None:
    name = f"attach-{kubectl.version.replace('.', '-')}"
    script = "while read line; do echo got $line; done; echo over; sleep 1000"
    made = pod(name, script=script, stdin=True, stdinOnce=True)
    kubectl("apply", "-f", "-", stdin=json.dumps(made))
    eventually(lambda: phase(kubectl, name) == "Running", "the pod's start")
    attach = command(kubectl, "attach", "-i", name)
    with subprocess.Popen(attach, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"one\n")
            process.stdin.flush()
            while (line := process.stdout.readline()) != b"got one\n":
                assert line, process.stderr
            process.stdin.close()
            eventually(lambda: "over" in kubectl("logs", name), "the end of stdin")
        finally:
            process.kill()
    kubectl("delete", "pod", name, "--wait=false")


def test_running_a_shell_interactively(kubectl: Kubectl) -> None:
    """`kubectl run -it --rm`: create, attach to the terminal, exit code, delete."""
    name = f"run-{kubectl.version.replace('.', '-')}"
    arguments = command(kubectl, "run", name, "-it", "--rm", "--restart=Never", f"--image={BUSYBOX}", "--command")
    with closing(Terminal(*arguments, "--", "sh")) as terminal:

        def answering() -> object:
            terminal.type(b"echo here-$((6*7))\r")
            return terminal.until(rb"here-42", 2)

        eventually(answering, "the shell")
        terminal.until(rb"[#$] ")
        terminal.type(b"stty size\r")
        terminal.until(rb"33 99")
        terminal.until(rb"[#$] ")
        terminal.type(b"exit 3\r")
        assert terminal.process.wait(30) == 3
    assert "not found" in kubectl.fails("get", "pod", name)


def test_what_node_and_pods_use(kubectl: Kubectl) -> None:
    proxy = "/api/v1/nodes/node1/proxy"
    summary = json.loads(kubectl("get", "--raw", f"{proxy}/stats/summary"))
    assert summary["node"]["nodeName"] == "node1"
    assert summary["node"]["memory"]["workingSetBytes"] > 0
    (box,) = [one for one in summary["pods"] if one["podRef"]["name"] == "box"]
    (main,) = box["containers"]
    assert main["name"] == "main"
    assert main["cpu"]["usageCoreNanoSeconds"] > 0
    assert main["memory"]["workingSetBytes"] > 0
    assert 'container_memory_working_set_bytes{container="main",namespace="streams",pod="box"}' in kubectl(
        "get", "--raw", f"{proxy}/metrics/resource"
    )
    assert "container_cpu_usage_seconds_total{" in kubectl("get", "--raw", f"{proxy}/metrics/cadvisor")
    assert re.search(r"^node1 +\d+m +\d+% +\d+Mi +\d+%", kubectl("top", "node"), re.MULTILINE)
    assert re.search(r"^box +\d+m +\d+Mi", kubectl("top", "pod"), re.MULTILINE)
    assert re.search(r"^box +main +\d+m +\d+Mi", kubectl("top", "pod", "box", "--containers"), re.MULTILINE)
    assert "not found" in kubectl.fails("top", "pod", "gone")


def test_a_port_that_nobody_serves_is_told(kubectl: Kubectl) -> None:
    forward = command(kubectl, "port-forward", "pod/box", ":1")
    with subprocess.Popen(forward, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+) -> ", process.stdout.readline())
            assert found is not None
            assert answer(int(found[1]), b"") == b""
            said = ""
            while "onnection refused" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            assert "an error occurred forwarding" in said
        finally:
            process.kill()


def test_the_python_client_runs_commands(exec_site: Site | Apart) -> None:
    """In a process of its own: the client leaves its sockets to the garbage collector."""
    arguments = [sys.executable, "-c", PYTHON_CLIENT, str(exec_site.kubectl().kubeconfig)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("got one\n|err\n|5", 0), done.stderr


@pytest.mark.parametrize(("exec_site", "kubectl"), [("cri", "1.32")], indirect=True)  # 1.20 speaks an older form of it
def test_debugging_with_a_container_beside_the_others(kubectl: Kubectl) -> None:
    name = f"debug-{kubectl.version.replace('.', '-')}"
    kubectl("apply", "-f", "-", stdin=json.dumps(pod(name)))
    eventually(lambda: phase(kubectl, name) == "Running", "the pod's start")
    arguments = command(kubectl, "debug", "-it", name, f"--image={BUSYBOX}", "--target=main", "--", "sh")
    with closing(Terminal(*arguments)) as terminal:

        def answering() -> object:
            terminal.type(b"echo here-$((6*7))\r")
            return terminal.until(rb"here-42", 2)

        eventually(answering, "the shell")
        terminal.type(b"exit\r")
        terminal.process.wait(20)
    kubectl("delete", "pod", name, "--wait=false")


def test_streams_end_when_either_role_dies(tmp_path: Path) -> None:
    """kubectl is told, and what it left running on the node finds its streams closed; all works again afterwards."""
    with closing(Apart(tmp_path)) as site:
        prepared(site)
        kubectl = site.kubectl().within("streams")
        waiting = command(kubectl, "exec", "-i", "box", "--", "sh", "-c", f"echo ready; cat; echo > {tmp_path}/ended")
        for victim in (site.edge, site.cloud):
            with subprocess.Popen(
                waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as one:
                assert one.stdout is not None
                assert one.stdout.readline() == b"ready\n"
                assert victim.program is not None
                victim.program.kill()
                assert one.wait(30) != 0
            eventually((tmp_path / "ended").exists, "the end of the command")
            (tmp_path / "ended").unlink()
            victim.start()
            eventually(lambda: kubectl("exec", "box", "--", "echo", "x") == "x\n", "a new stream")
