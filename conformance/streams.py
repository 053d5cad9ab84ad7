"""Logs, exec, attach, port-forward and metrics of an edge through a cluster's own kube-apiserver: the whole road, firewall rules included.

    ip netns add streams && ip netns exec streams python -m conformance.streams BIN FOLDER --kubectl PATH [--kubectl PATH]

BIN holds upstream's programs (`conformance.cluster`); etcd, iptables and ip must be installed. Run in a network namespace of its own, as root:
the roles listen on KubeEdge's ports, and the namespace's firewall is changed. Prints one line a check, and exits 1 if one fails.

Units   Seconds.
State   FOLDER: the cluster, both roles, their logs; left in place.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from conformance.cluster import Cluster, Programs

__all__ = ["main"]

_ADDRESS: Final = "192.0.2.50"
_EDGESITE: Final = [sys.executable, "-m", "edgesite.cli"]
_PORT: Final = 18099
_TALKS: Final = 'while read line; do echo "got $line"; done; exec sleep 3600'
#: Sends back what comes, until its end, then says goodbye: each half of a connection is closed by itself.
_SERVES: Final = f"""
import socket
listener = socket.create_server(("127.0.0.1", {_PORT}))
while True:
    with listener.accept()[0] as one:
        while data := one.recv(65536):
            one.sendall(data)
        one.sendall(b"goodbye")
"""
_BYTES: Final = 3 << 20
_POD: Final = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web"},
    "spec": {
        "nodeName": "edge-1",
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {"name": "app", "image": "host", "command": ["/bin/sh", "-c", "echo started; exec sleep 3600"]},
            {"name": "talks", "image": "host", "stdin": True, "command": ["/bin/sh", "-c", _TALKS]},
            {"name": "serves", "image": "host", "command": [sys.executable, "-c", _SERVES]},
        ],
    },
}


class Stand:
    """The cluster, the roles as processes, and kubectl."""

    def __init__(self, cluster: Cluster, folder: Path, kubectls: Sequence[Path]) -> None:
        self.cluster = cluster
        self.folder = folder
        self.kubectls = kubectls
        self.failed = 0
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        self._started.append(
            subprocess.Popen([*_EDGESITE, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        )

    def stop(self) -> None:
        for one in self._started:
            one.terminate()
        for one in self._started:
            one.wait(20)

    def kubectl(self, *arguments: str, program: int = 0, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [str(self.kubectls[program]), "--kubeconfig", str(self.cluster.admin), *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)

    @contextmanager
    def running(self, *arguments: str, program: int) -> Iterator[subprocess.Popen[bytes]]:
        """kubectl as long as the block lasts."""
        command = [str(self.kubectls[program]), "--kubeconfig", str(self.cluster.admin), *arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
            try:
                yield process
            finally:
                process.kill()

    def check(self, what: str, good: bool, told: str = "") -> None:
        self.failed += not good
        print(f"{'ok    ' if good else 'FAILED'} {what}{'' if good else f': {told.strip()[:300]}'}", flush=True)

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not (found := holds()) and time.monotonic() < deadline:
            time.sleep(0.5)
        self.check(what, found, f"not within {seconds:g} s")


def _run(stand: Stand) -> None:
    admin = str(stand.cluster.admin)
    subprocess.run([*_EDGESITE, "cloud", "--kubeconfig", admin, "--install-crds"], check=True, capture_output=True)
    data = stand.folder / "cloud"
    stand.start("cloud", "cloud", "--kubeconfig", admin, "--data-dir", str(data), "--advertise-address", _ADDRESS)
    token: list[str] = []

    def has_token() -> bool:
        told = subprocess.run([*_EDGESITE, "token", "--kubeconfig", admin], capture_output=True, text=True)
        token[:] = [told.stdout.strip()] if told.returncode == 0 else []
        return bool(token)

    stand.until("the cloud role gives a token", has_token)
    (stand.folder / "token").write_text("".join(token))
    edge = ("--cloud", "127.0.0.1", "--node-name", "edge-1", "--runtime", "process")
    folder, file = str(stand.folder / "edge"), str(stand.folder / "token")
    stand.start("edge", "edge", "--data-dir", folder, "--token-file", file, *edge)
    stand.until("the node is Ready", lambda: " Ready" in stand.kubectl("get", "node", "edge-1").stdout)
    port = "jsonpath={.status.daemonEndpoints.kubeletEndpoint.Port}"
    stand.until(
        "it tells the tunnel port", lambda: stand.kubectl("get", "node", "edge-1", "-o", port).stdout == "10351"
    )
    rule = f"--dport 10351 -j DNAT --to-destination {_ADDRESS}:10003"
    stand.until("the rule leads to the stream server", lambda: rule in _rules())
    (stand.folder / "pod.json").write_text(json.dumps(_POD))
    apply = ("apply", "-f", str(stand.folder / "pod.json"))
    stand.until("the pod is made", lambda: stand.kubectl(*apply).returncode == 0)
    told = stand.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    stand.check("the pod is Ready", told.returncode == 0, told.stderr)
    for number, program in enumerate(stand.kubectls):
        _streams(stand, number, program.name)
    for path in ("stats/summary", "metrics/resource"):
        told = stand.kubectl("get", "--raw", f"/api/v1/nodes/edge-1/proxy/{path}")
        stand.check(path, told.returncode == 0 and bool(told.stdout), told.stderr)


def _streams(stand: Stand, number: int, name: str) -> None:
    told = stand.kubectl("logs", "web", "-c", "app", program=number)
    stand.check(f"{name}: logs", told.stdout == "started\n", told.stderr)
    told = stand.kubectl("exec", "web", "-c", "app", "--", "echo", "hi", program=number)
    stand.check(f"{name}: exec", told.stdout == "hi\n", told.stderr)
    command = ("exec", "-i", "web", "-c", "app", "--", "sh", "-c", "cat; exit 3")
    told = stand.kubectl(*command, program=number, given="to and fro\n")
    stand.check(
        f"{name}: exec -i and its exit code", (told.returncode, told.stdout) == (3, "to and fro\n"), told.stderr
    )

    with stand.running("attach", "-i", "web", "-c", "talks", program=number) as attached:
        assert attached.stdin is not None
        attached.stdin.write(f"hello {number}\n".encode())
        attached.stdin.flush()
        answer = _line(attached, lambda line: line.startswith("got "))
    stand.check(f"{name}: attach -i", answer == f"got hello {number}", answer)
    with stand.running("port-forward", "pod/web", f":{_PORT}", program=number) as forwards:
        said = _line(forwards, lambda line: line.startswith("Forwarding from 127.0.0.1:"))
        port = said.partition("127.0.0.1:")[2].partition(" ")[0]
        came = [_to_and_fro(int(port)) for _ in range(2)] if port.isdigit() else []
    stand.check(f"{name}: port-forward, {_BYTES} bytes to and fro, twice", came == [True, True], said)


def _line(process: subprocess.Popen[bytes], wanted: Callable[[str], bool]) -> str:
    """The first such line that a program prints, or the last of all."""
    assert process.stdout is not None
    timer = threading.Timer(30, process.kill)
    timer.start()
    line = ""
    try:
        for data in process.stdout:
            line = data.decode().strip()
            if wanted(line):
                break
    finally:
        timer.cancel()
    return line


def _to_and_fro(port: int) -> bool:
    """Whether what is sent comes back whole, and the end of what is sent is told without ending the rest."""
    sent = os.urandom(_BYTES)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:

        def send() -> None:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        came = bytearray()
        while len(came) < len(sent) + len(b"goodbye") and (data := connection.recv(65536)):
            came += data
        sender.join()
    return bytes(came) == sent + b"goodbye"


def _rules() -> str:
    return subprocess.run(["iptables", "-t", "nat", "-S"], capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Run the checks; returns the exit code."""
    parser = argparse.ArgumentParser(description="logs, exec and metrics through a cluster's kube-apiserver")
    parser.add_argument("programs", type=Path, help="folder of upstream's programs")
    parser.add_argument("folder", type=Path, help="empty folder to work in")
    parser.add_argument("--kubectl", type=Path, action="append", required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for command in ("link set lo up", f"addr replace {_ADDRESS}/24 dev lo", "route replace default dev lo"):
        subprocess.run(["ip", *command.split()], check=True)
    with Cluster(Programs.in_folder(arguments.programs), arguments.folder / "cluster") as cluster:
        stand = Stand(cluster, arguments.folder, arguments.kubectl)
        try:
            _run(stand)
        finally:
            stand.stop()
    print(f"{stand.failed} failed")
    return 1 if stand.failed else 0


if __name__ == "__main__":
    sys.exit(main())
