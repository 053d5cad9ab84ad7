"""A Kubernetes cluster of upstream's own programs on loopback, without a kubelet: etcd, API server, controllers, scheduler.

TLS everywhere, authorisation by Node and RBAC, no anonymous access. For trying the cloud role on a cluster that is not its own.

    with Cluster(Programs.in_folder(Path("bin")), Path("/tmp/cluster")) as cluster:
        ...                                  # cluster.admin is the path of an administrator's kubeconfig

Units   Seconds.
Errors  RuntimeError when a part does not come up; the end of its log is in the message.
State   The folder: certificates, etcd's data, logs.
Source  Kubernetes v1.20: options of kube-apiserver, kube-controller-manager and kube-scheduler; user names of their roles.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from edgesite.kube import json
from edgesite.net import pki
from edgesite.net.real import RealClock

__all__ = ["Cluster", "Programs"]

_START_S: Final = 120.0
_END_S: Final = 20.0
_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
_SERVICES: Final = "10.0.0.0/24"


@dataclass(frozen=True, slots=True)
class Programs:
    """Where upstream's programs are; the controllers and the scheduler may be left out."""

    apiserver: Path
    etcd: Path
    controller_manager: Path | None = None
    scheduler: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path, etcd: Path = Path("/usr/bin/etcd")) -> Programs:
        """Take the programs of a folder by their usual names."""
        controllers, scheduler = folder / "kube-controller-manager", folder / "kube-scheduler"
        return cls(
            folder / "kube-apiserver",
            etcd,
            controllers if controllers.exists() else None,
            scheduler if scheduler.exists() else None,
        )


class Cluster:
    """``port`` is the API server's; `stop_api` and `start_api` are for fault tests."""

    def __init__(self, programs: Programs, folder: Path, *, kubelet_ca: Path | None = None) -> None:
        self._programs = programs
        self.folder = folder
        self._kubelet_ca = kubelet_ca
        self._etcd_port, self._peer_port, self.port, *self._ports = _free_ports(5)
        self.url = f"https://127.0.0.1:{self.port}"
        self.admin = folder / "admin.kubeconfig"
        self.ca = folder / "ca.crt"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Cluster:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack.callback(self._end)
        try:
            anyio.run(self._certificates)
            self._start_etcd()
            self.start_api()
            self._start_controllers()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()

    # -- parts ---------------------------------------------------------------------------------------------------

    def start_api(self) -> None:
        """Start the API server and wait until it is ready. Raises RuntimeError."""
        folder = self.folder
        kubelet = [f"--kubelet-certificate-authority={self._kubelet_ca}"] if self._kubelet_ca else []
        self._start(
            "kube-apiserver",
            [
                *(str(self._programs.apiserver), f"--etcd-servers=http://127.0.0.1:{self._etcd_port}"),
                *("--bind-address=127.0.0.1", f"--secure-port={self.port}", "--advertise-address=127.0.0.1"),
                *(f"--tls-cert-file={folder}/api.crt", f"--tls-private-key-file={folder}/api.key"),
                *(f"--client-ca-file={self.ca}", "--anonymous-auth=false", "--authorization-mode=Node,RBAC"),
                *("--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"),
                *(f"--service-account-key-file={folder}/accounts.key", f"--service-account-issuer={_ISSUER}"),
                *(f"--service-account-signing-key-file={folder}/accounts.key", f"--api-audiences={_ISSUER}"),
                f"--service-cluster-ip-range={_SERVICES}",
                *(f"--kubelet-client-certificate={folder}/kubelet-client.crt", *kubelet),
                *(f"--kubelet-client-key={folder}/kubelet-client.key", "--endpoint-reconciler-type=none"),
                "--kubelet-preferred-address-types=InternalIP,Hostname",
            ],
        )
        self._wait("kube-apiserver", f"{self.url}/readyz")

    def kill_api(self) -> None:
        """End the API server at once."""
        program = self._running.pop("kube-apiserver")
        program.kill()
        program.wait(_END_S)

    def snapshot(self, path: Path) -> None:
        """Back etcd up, as its administrator does. Raises CalledProcessError."""
        self._etcdctl("snapshot", "save", str(path))

    def restore(self, path: Path) -> None:
        """Bring etcd back as it was backed up: the API server and etcd end, and start on that. The controllers start anew, too, as
        upstream advises. Raises CalledProcessError, RuntimeError."""
        self.kill_api()
        for name in ("etcd", "kube-controller-manager", "kube-scheduler"):
            if (program := self._running.pop(name, None)) is not None:
                program.kill()
                program.wait(_END_S)
        shutil.rmtree(self.folder / "etcd")
        peer = f"http://127.0.0.1:{self._peer_port}"
        words = ("--initial-cluster", f"default={peer}", "--initial-advertise-peer-urls", peer)
        self._etcdctl("snapshot", "restore", str(path), "--data-dir", str(self.folder / "etcd"), *words)
        self._start_etcd()
        self.start_api()
        self._start_controllers()

    def _etcdctl(self, *words: str) -> None:
        program = (
            shutil.which("etcdctl", path=f"{self._programs.etcd.parent}:{os.environ.get('PATH', '')}") or "etcdctl"
        )
        endpoint = f"--endpoints=http://127.0.0.1:{self._etcd_port}"
        subprocess.run(
            [program, endpoint, *words], check=True, capture_output=True, env={**os.environ, "ETCDCTL_API": "3"}
        )

    def _start_etcd(self) -> None:
        address, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        self._start(
            "etcd",
            [
                *(str(self._programs.etcd), "--data-dir", str(self.folder / "etcd"), "--logger", "zap"),
                *("--listen-client-urls", address, "--advertise-client-urls", address),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"default={peer}"),
            ],
        )
        self._wait("etcd", f"{address}/health")

    def _start_controllers(self) -> None:
        folder = self.folder
        if self._programs.controller_manager is not None:
            self._start(
                "kube-controller-manager",
                [
                    *(str(self._programs.controller_manager), f"--kubeconfig={folder}/controllers.kubeconfig"),
                    *("--bind-address=127.0.0.1", f"--secure-port={self._ports[0]}", "--port=0"),
                    *("--use-service-account-credentials=true", f"--root-ca-file={self.ca}"),
                    f"--service-account-private-key-file={folder}/accounts.key",
                    *(f"--cluster-signing-cert-file={self.ca}", f"--cluster-signing-key-file={folder}/ca.key"),
                    "--leader-elect=false",
                ],
            )
        if self._programs.scheduler is not None:
            self._start(
                "kube-scheduler",
                [
                    *(str(self._programs.scheduler), f"--kubeconfig={folder}/scheduler.kubeconfig"),
                    *("--bind-address=127.0.0.1", f"--secure-port={self._ports[1]}", "--port=0"),
                    "--leader-elect=false",
                ],
            )

    # -- identities ----------------------------------------------------------------------------------------------

    async def _certificates(self) -> None:
        made = {
            "kubelet-client": ("kube-apiserver-kubelet-client", ["system:masters"]),
            "admin": ("admin", ["system:masters"]),
            "controllers": ("system:kube-controller-manager", []),
            "scheduler": ("system:kube-scheduler", []),
        }
        async with pki.RealPki(RealClock()).session() as keeper:
            ca = await keeper.make_ca("kubernetes")
            self._write("ca", ca)
            names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            self._write("api", await keeper.issue(ca, "kube-apiserver", dns_names=names, ips=["127.0.0.1", "10.0.0.1"]))
            self._write("accounts", await keeper.issue(ca, "service-accounts", usages=pki.BOTH))
            for name, (common_name, organizations) in made.items():
                pair = await keeper.issue(ca, common_name, organizations=organizations, usages=pki.CLIENT)
                self._write(name, pair)
                self.write_kubeconfig(self.folder / f"{name}.kubeconfig", pair)

    def write_kubeconfig(self, path: Path, user: pki.KeyPair | str) -> Path:
        """Write a kubeconfig for who has that certificate or that token."""
        if isinstance(user, str):
            shown = {"token": user}
        else:
            encoded = [base64.b64encode(one).decode() for one in (user.certificate, user.key)]
            shown = dict(zip(("client-certificate-data", "client-key-data"), encoded, strict=True))
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "u", "user": shown}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path.write_bytes(json.dumps(config))
        path.chmod(0o600)
        return path

    def _write(self, name: str, pair: pki.KeyPair) -> None:
        (self.folder / f"{name}.crt").write_bytes(pair.certificate)
        key = self.folder / f"{name}.key"
        key.write_bytes(pair.key)
        key.chmod(0o600)

    # -- processes -----------------------------------------------------------------------------------------------

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _wait(self, name: str, url: str) -> None:
        context = None
        if url.startswith("https"):
            context = ssl.create_default_context(cafile=str(self.ca))
            context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        deadline = time.monotonic() + _START_S
        while True:
            try:
                urllib.request.urlopen(url, timeout=5, context=context).close()
            except OSError as exc:
                ended = self._running[name].poll() is not None
                if ended or time.monotonic() > deadline:
                    log = (self.folder / f"{name}.log").read_text()[-3000:]
                    raise RuntimeError(f"{name} does not come up: {exc}\n{log}") from exc
                time.sleep(0.2)
            else:
                return

    def _end(self) -> None:
        for program in reversed(self._running.values()):
            program.terminate()
            try:
                program.wait(_END_S)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main() -> int:
    """Run a cluster in the given folder until interrupted: ``python -m conformance.cluster PROGRAMS FOLDER``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Cluster(Programs.in_folder(Path(sys.argv[1])), Path(sys.argv[2])) as cluster:
        print(f"{cluster.url} is ready; kubeconfig: {cluster.admin}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
