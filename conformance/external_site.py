"""What `conformance.external` stands on: a cluster with the cloud role's rights, clouds and edges on it.

Units   Seconds.
Errors  Failed.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

from conformance.cluster import Cluster
from conformance.programs import EDGESITE, Failed, Kubectl, Program, eventually, free_ports

__all__ = ["ADDRESS", "Cloud", "Edge", "Site", "deployment", "kill_pods"]

_RIGHTS: Final = Path(__file__).resolve().parent.parent / "packaging" / "kubernetes" / "cloud-rbac.yaml"
ADDRESS: Final = "10.201.0.1"


class Site:
    """A cluster with the cloud role's rights, and what the scenarios start on it."""

    def __init__(self, cluster: Cluster, kubectls: Sequence[str], folder: Path) -> None:
        """``kubectls``: the programs of all releases that are tried; the first is the one that scenarios use."""
        self.cluster = cluster
        self.folder = folder
        self.kubectls = kubectls
        self.kubectl = Kubectl(kubectls[0], cluster.admin)
        self.settings: dict[str, dict[str, Any]] = {}  #: further modules of edges, by name
        self.kubeconfig = folder / "cloud.kubeconfig"
        self.clouds: dict[str, Cloud] = {}
        self.edges: dict[str, Edge] = {}

    def prepare(self) -> None:
        """Install the custom resources as an administrator, and give the cloud role its own account. Raises Failed."""
        done = subprocess.run(
            [EDGESITE, "cloud", "--kubeconfig", self.cluster.admin, "--install-crds"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failed(done.stderr)
        self.kubectl("apply", "-f", str(_RIGHTS))
        self.cluster.write_kubeconfig(self.kubeconfig, self.account_token())

    def account_token(self) -> str:
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 86400},
        }
        path = "/api/v1/namespaces/kubeedge/serviceaccounts/cloudcore/token"
        answer = self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(request))
        return str(json.loads(answer)["status"]["token"])

    def join_token(self) -> str:
        def read() -> str:
            done = subprocess.run(
                [EDGESITE, "token", "--kubeconfig", self.cluster.admin], capture_output=True, text=True, check=False
            )
            return done.stdout.strip()

        return str(eventually(read, "a join token", 30))

    def cloud(self, name: str = "cloud") -> Cloud:
        """The cloud role of that name, running."""
        if name not in self.clouds:
            self.clouds[name] = Cloud(self, name)
            self.clouds[name].start()
        return self.clouds[name]

    def edge(self, name: str, *clouds: Cloud) -> Edge:
        """The edge of that name, joined and Ready."""
        if name not in self.edges:
            edge = self.edges[name] = Edge(self, name, clouds)
            edge.start(self.join_token())
            self.ready(name)
        return self.edges[name]

    def ready(self, node: str, status: str = "True", timeout_s: float = 60) -> None:
        eventually(lambda: self.node_ready(node) == status, f"{node} Ready={status}", timeout_s)

    def node_ready(self, node: str) -> str:
        conditions = self.kubectl.json("get", "node", node)["status"].get("conditions") or ()
        return next((str(one["status"]) for one in conditions if one["type"] == "Ready"), "")

    def pods(self, app: str) -> list[Any]:
        found: list[Any] = self.kubectl.json("get", "pods", "-l", f"app={app}")["items"]
        return found

    def running(self, app: str, count: int, timeout_s: float = 60) -> list[Any]:
        """Wait for that many Ready pods and no others. Raises Failed."""

        def found() -> list[Any] | None:
            pods = self.pods(app)
            ready = [one for one in pods if _is_ready(one)]
            return pods if len(ready) == len(pods) == count else None

        pods: list[Any] = eventually(found, f"{count} pods of {app}", timeout_s)
        return pods

    def close(self) -> None:
        for edge in self.edges.values():
            edge.close()
        for cloud in self.clouds.values():
            cloud.close()


class Cloud:
    """``edgesite cloud`` on the cluster."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.name = name
        self.log = site.folder / f"{name}.log"
        self.hub, self.bootstrap, self.tunnel, self.stream, self.webhooks = free_ports(5)
        self.program: Program | None = None

    def start(self, *access: str, env: dict[str, str] | None = None) -> None:
        """Raises Failed."""
        access = access or ("--kubeconfig", str(self.site.kubeconfig))
        command = [
            *(str(EDGESITE), "cloud", "--data-dir", str(self.site.folder / self.name), *access, "-v", "2"),
            *("--advertise-address", ADDRESS, "--hub-port", str(self.hub), "--bootstrap-port", str(self.bootstrap)),
            *("--tunnel-port", str(self.tunnel), "--set", f"modules.cloudStream.streamPort={self.stream}"),
            *("--set", f"modules.admission.port={self.webhooks}"),
        ]
        self.program = Program(self.log, command, env)
        self.program.wait_line("cloud role: ready after")

    def close(self) -> None:
        if self.program is not None:
            self.program.kill()


class Edge:
    """``edgesite edge`` with host processes as containers."""

    def __init__(self, site: Site, name: str, clouds: tuple[Cloud, ...]) -> None:
        self.site = site
        self.name = name
        self.log = site.folder / f"{name}.log"
        self.data = site.folder / name
        self.clouds = clouds
        self.program: Program | None = None

    def start(self, token: str = "") -> None:
        """Raises Failed."""
        command = [
            *(str(EDGESITE), "edge", "--data-dir", str(self.data), "--node-name", self.name, "--runtime", "process"),
            *("--config", str(self._config()), "-v", "2"),
            *(("--token", token) if token else ()),
        ]
        self.program = Program(self.log, command)
        self.program.wait_line(f"edge role of node {self.name}: ready after")

    def _config(self) -> Path:
        """A file that names all clouds."""
        kubelet = {"readOnlyPort": 0, "healthzPort": 0}
        hub = {
            "websocket": {"server": ",".join(f"{ADDRESS}:{one.hub}" for one in self.clouds)},
            "httpServer": ",".join(f"https://{ADDRESS}:{one.bootstrap}" for one in self.clouds),
        }
        stream = {"server": ",".join(f"{ADDRESS}:{one.tunnel}" for one in self.clouds)}
        modules = {"edgeHub": hub, "edgeStream": stream, "edged": {"tailoredKubeletConfig": kubelet}}
        modules |= self.site.settings.get(self.name, {})
        config = {"apiVersion": "edgecore.config.kubeedge.io/v1alpha2", "kind": "EdgeCore", "modules": modules}
        path = self.site.folder / f"{self.name}.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    def stored(self, type_: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """An object in its database; {} if there is none."""
        return self.all_stored(type_, namespace).get(name, {})

    def all_stored(self, type_: str, namespace: str = "default") -> dict[str, dict[str, Any]]:
        """The objects of a type in its database, by name."""
        path, prefix = self.data / "edge" / "edgecore.db", f"{namespace}/{type_}/"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            rows = database.execute("SELECT key, value FROM meta WHERE type = ?", (type_,)).fetchall()
        return {key.removeprefix(prefix): json.loads(value) for key, value in rows if key.startswith(prefix)}

    def close(self) -> None:
        if self.program is not None:
            self.program.kill()
        kill_pods(self.data)


def kill_pods(data: Path) -> None:
    """End the host processes of an edge's pods, and what supervises them; both outlive the edge."""
    mark = f"{data}/".encode()
    supervisors = [one for one in _processes() if b"supervisor.py" in one[2] and mark in one[2]]
    parents = {one[0] for one in supervisors}
    for pid, _, _ in [*(one for one in _processes() if one[1] in parents), *supervisors]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes() -> list[tuple[int, int, bytes]]:
    """Pid, parent and command line of all processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found.append((int(entry.name), parent, (entry / "cmdline").read_bytes()))
    return found


def _is_ready(pod: Any) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True" for one in pod.get("status", {}).get("conditions", ())
    )


def deployment(name: str, node: str, replicas: int, script: str = "exec sleep 1000000", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "host", "command": ["sh", "-c", script], **spec.pop("container", {})}
    pod_spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        **spec,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec},
        },
    }
