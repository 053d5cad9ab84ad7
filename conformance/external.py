"""The cloud role on a real cluster: upstream's API server, controllers and scheduler, with least rights, and edges joined to it.

    python -m conformance.external PROGRAMS [--etcd FILE] [--kubectl FILE] [--only NAME] [--outage SECONDS] [--out FOLDER]

PROGRAMS is a folder with kube-apiserver, kube-controller-manager and kube-scheduler of any version, see README.md. Run it in a
network and a mount namespace of its own (``unshare --net --mount``): firewall rules are written, volumes mounted. Prints a line for each
scenario, and ends with 1 if one failed.

Units   Seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from conformance.cluster import Cluster, Programs
from conformance.programs import EDGESITE, Failed, Kubectl, Program, eventually, free_ports

_RIGHTS: Final = Path(__file__).resolve().parent.parent / "packaging" / "kubernetes" / "cloud-rbac.yaml"
_ADDRESS: Final = "10.201.0.1"


class Site:
    """A cluster with the cloud role's rights, and what the scenarios start on it."""

    def __init__(self, cluster: Cluster, kubectl: str, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.kubectl = Kubectl(kubectl, cluster.admin)
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
        self.hub, self.bootstrap, self.tunnel, self.stream = free_ports(4)
        self.program: Program | None = None

    def start(self, *access: str, env: dict[str, str] | None = None) -> None:
        """Raises Failed."""
        access = access or ("--kubeconfig", str(self.site.kubeconfig))
        command = [
            *(str(EDGESITE), "cloud", "--data-dir", str(self.site.folder / self.name), *access, "-v", "2"),
            *("--advertise-address", _ADDRESS, "--hub-port", str(self.hub), "--bootstrap-port", str(self.bootstrap)),
            *("--tunnel-port", str(self.tunnel), "--set", f"modules.cloudStream.streamPort={self.stream}"),
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
            "websocket": {"server": ",".join(f"{_ADDRESS}:{one.hub}" for one in self.clouds)},
            "httpServer": ",".join(f"https://{_ADDRESS}:{one.bootstrap}" for one in self.clouds),
        }
        stream = {"server": ",".join(f"{_ADDRESS}:{one.tunnel}" for one in self.clouds)}
        modules = {"edgeHub": hub, "edgeStream": stream, "edged": {"tailoredKubeletConfig": kubelet}}
        config = {"apiVersion": "edgecore.config.kubeedge.io/v1alpha2", "kind": "EdgeCore", "modules": modules}
        path = self.site.folder / f"{self.name}.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    def close(self) -> None:
        if self.program is not None:
            self.program.kill()
        mark = f"{self.data}/".encode()
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


# -- scenarios ---------------------------------------------------------------------------------------------------


def join(site: Site) -> None:
    """An edge joins by token; Node, lease and conditions are there; nothing was asked that is forbidden."""
    site.edge("edge-1", site.cloud())
    node = site.kubectl.json("get", "node", "edge-1")
    if "node-role.kubernetes.io/edge" not in node["metadata"]["labels"]:
        raise Failed(f"labels {node['metadata']['labels']}")
    first = site.kubectl.json("-n", "kube-node-lease", "get", "lease", "edge-1")["spec"]["renewTime"]

    def renewed() -> bool:
        lease = site.kubectl.json("-n", "kube-node-lease", "get", "lease", "edge-1")
        return bool(lease["spec"]["renewTime"] != first)

    eventually(renewed, "the lease is renewed", 60)
    forbidden = [line for line in site.cloud().log.read_text().splitlines() if "forbidden" in line.lower()]
    if forbidden:
        raise Failed("\n".join(forbidden[:5]))


def deploy(site: Site) -> None:
    """A Deployment with a nodeSelector, ConfigMap and Secret; their changes reach the pod; then it is scaled and deleted."""
    site.edge("edge-1", site.cloud())
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}}
    config_one, config_three = config | {"data": {"word": "one"}}, config | {"data": {"word": "three"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web"}, "stringData": {"key": "two"}}
    volumes = [
        {"name": "config", "configMap": {"name": "web"}},
        {"name": "secret", "secret": {"secretName": "web"}},
    ]
    marks = [{"name": "config", "mountPath": "/etc/web"}, {"name": "secret", "mountPath": "/etc/web-secret"}]
    made = deployment("web", "edge-1", 2, volumes=volumes, container={"volumeMounts": marks})
    site.kubectl.apply(config_one, secret, made)
    site.running("web", 2)
    site.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    site.kubectl.apply(config_three)
    data = site.edges["edge-1"].data
    eventually(lambda: _holds(data, "word", "three"), "the change reaches the edge's volumes", 120)
    site.kubectl("scale", "deployment/web", "--replicas=5")
    site.running("web", 5)
    site.kubectl("delete", "deployment/web", "configmap/web", "secret/web")
    eventually(lambda: not site.pods("web"), "the end of the pods", 60)


def _holds(folder: Path, name: str, text: str) -> bool:
    files = [one for one in folder.rglob(name) if "volumes" in one.parts and not one.is_dir()]
    return bool(files) and all(one.read_text() == text for one in files if "..data" in one.parts or one.is_symlink())


def streams(site: Site) -> None:
    """Logs and commands through the cluster's API server: it dials the node, and the rules lead to the stream server."""
    site.edge("edge-1", site.cloud())
    site.kubectl.apply(deployment("talk", "edge-1", 1, "echo hello; exec sleep 1000000"))
    (pod,) = site.running("talk", 1)
    name = pod["metadata"]["name"]
    eventually(lambda: site.kubectl.run("logs", name).stdout == "hello\n", "the log", 60)
    said = site.kubectl("exec", name, "--", "sh", "-c", "echo from inside; exit 0")
    if said != "from inside\n":
        raise Failed(f"exec said {said!r}")
    code = site.kubectl.run("exec", name, "--", "sh", "-c", "exit 7").returncode
    if code != 7:
        raise Failed(f"exit code {code}")
    site.kubectl("delete", "deployment/talk")


def records(site: Site) -> None:
    """ObjectSyncs are written for each pod in batches, follow versions, and go with the objects."""
    site.edge("edge-1", site.cloud())
    site.kubectl.apply(deployment("kept", "edge-1", 10))
    pods = site.running("kept", 10, 120)
    uids = {pod["metadata"]["uid"] for pod in pods}

    def recorded() -> bool:
        syncs = site.kubectl.json("get", "objectsyncs.reliablesyncs.kubeedge.io")["items"]
        found = {one["metadata"]["name"].rpartition(".")[2] for one in syncs if one.get("status")}
        return uids <= found

    eventually(recorded, "records of all pods", 60)
    site.kubectl("delete", "deployment/kept")

    def gone() -> bool:
        syncs = site.kubectl.json("get", "objectsyncs.reliablesyncs.kubeedge.io")["items"]
        return not uids & {one["metadata"]["name"].rpartition(".")[2] for one in syncs}

    eventually(gone, "the end of the records", 90)


def drain(site: Site) -> None:
    """kubectl drain moves pods away; a deleted node is gone, and does not come back with its certificate."""
    cloud = site.cloud()
    site.edge("edge-1", cloud)
    leaves = site.edge("edge-2", cloud)
    made = deployment("moves", "edge-1", 3)
    made["spec"]["template"]["spec"]["nodeSelector"] = {"node-role.kubernetes.io/edge": ""}
    site.kubectl.apply(made)
    site.running("moves", 3, 90)
    site.kubectl("drain", "edge-2", "--ignore-daemonsets", "--force", "--timeout=60s", timeout_s=90)
    pods = site.running("moves", 3, 90)
    if any(pod["spec"]["nodeName"] == "edge-2" for pod in pods):
        raise Failed("a pod is still on the drained node")
    site.kubectl("delete", "deployment/moves")
    site.kubectl("delete", "node", "edge-2")
    time.sleep(5)
    if site.kubectl.run("get", "node", "edge-2").returncode == 0:
        raise Failed("the deleted node came back")
    leaves.close()
    del site.edges["edge-2"]


def restarts(site: Site) -> None:
    """Each end is killed and started again; pods go on, and what changed meanwhile arrives."""
    cloud = site.cloud()
    edge = site.edge("edge-1", cloud)
    site.kubectl.apply(deployment("stays", "edge-1", 2))
    before = _containers(site.running("stays", 2))
    assert cloud.program is not None
    assert edge.program is not None
    cloud.program.kill()
    site.kubectl("scale", "deployment/stays", "--replicas=3")
    cloud.start()
    after = _containers(site.running("stays", 3, 120))
    edge.program.kill()
    site.kubectl("scale", "deployment/stays", "--replicas=2")
    edge.start()
    last = _containers(site.running("stays", 2, 120))
    if not before <= after or not last <= after:
        raise Failed(f"containers were started anew: {before} {after} {last}")
    cloud.program.stop()
    edge.program.stop()
    cloud.start()
    edge.start()
    site.ready("edge-1")
    if _containers(site.running("stays", 2, 120)) != last:
        raise Failed("containers were started anew")
    site.kubectl("delete", "deployment/stays")


def _containers(pods: list[Any]) -> set[tuple[str, int]]:
    return {(one["containerID"], one["restartCount"]) for pod in pods for one in pod["status"]["containerStatuses"]}


def outage(site: Site, seconds: float) -> None:
    edge = site.edge("edge-1", site.cloud())
    site.kubectl.apply(deployment("rides", "edge-1", 3))
    before = _containers(site.running("rides", 3))
    site.cluster.kill_api()
    time.sleep(seconds)
    site.cluster.start_api()
    site.ready("edge-1", timeout_s=90)
    site.kubectl("scale", "deployment/rides", "--replicas=4")
    after = _containers(site.running("rides", 4, 120))
    if not before <= after:
        raise Failed(f"containers were started anew: {before} {after}")
    for program in (site.cloud().program, edge.program):
        if program is None or program.process.poll() is not None:
            raise Failed("a role ended")
    site.kubectl("delete", "deployment/rides")


def two_clouds(site: Site) -> None:
    """An edge knows two instances: the one that it uses is killed, and it moves; then back. Nothing is lost or started twice."""
    one, two = site.cloud("one"), site.cloud("two")
    edge = site.edge("edge-3", one, two)
    site.kubectl.apply(deployment("both", "edge-3", 3))
    known = _containers(site.running("both", 3))
    for number, (dead, alive) in enumerate(((one, two), (two, one)), start=1):
        assert dead.program is not None
        dead.program.kill()
        site.kubectl("scale", "deployment/both", f"--replicas={3 + number}")
        now = _containers(site.running("both", 3 + number, 120))
        if not known <= now:
            raise Failed(f"containers were started anew: {known} {now}")
        known = now
        eventually(_has_connected(alive, "edge-3"), "the node has moved", 60)
        dead.start()
    if edge.log.read_text().count("Traceback"):
        raise Failed("the edge's log has a traceback")
    site.kubectl("scale", "deployment/both", "--replicas=1")
    last = _containers(site.running("both", 1, 120))
    if not last <= known:
        raise Failed("a container was started anew")
    site.kubectl("delete", "deployment/both")
    eventually(lambda: not site.pods("both"), "the end of the pods", 60)


def moves(site: Site) -> None:
    """With two instances alive an edge changes from one to the other and back; what each has told it is not told again."""
    one, two = site.cloud("one"), site.cloud("two")
    edge = site.edge("edge-5", one, two)
    site.kubectl.apply(deployment("wander", "edge-5", 2))
    known = _containers(site.running("wander", 2))
    for replicas in (3, 2, 4, 3):
        assert edge.program is not None
        edge.program.kill()
        edge.clouds = edge.clouds[::-1]
        site.kubectl("scale", "deployment/wander", f"--replicas={replicas}")
        edge.start()
        now = _containers(site.running("wander", replicas, 120))
        if not (known <= now or now <= known):
            raise Failed(f"containers were started anew: {known} {now}")
        known = now
    site.kubectl("delete", "deployment/wander")
    eventually(lambda: not site.pods("wander"), "the end of the pods", 60)


def _has_connected(cloud: Cloud, node: str) -> Callable[[], bool]:
    return lambda: f"node {node} connected" in cloud.log.read_text()


def in_cluster(site: Site) -> None:
    """The cloud role finds the API as a pod does: by environment and the files of a service account."""
    folder = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    if folder.exists():
        raise Failed(f"{folder} is there already")
    folder.mkdir(parents=True)
    try:
        (folder / "token").write_text(site.account_token())
        shutil.copy(site.cluster.ca, folder / "ca.crt")
        (folder / "namespace").write_text("kubeedge")
        cloud = site.clouds["pod"] = Cloud(site, "pod")
        host = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(site.cluster.port)}
        cloud.start("--in-cluster", env=host)
        site.edge("edge-4", cloud)
        site.kubectl.apply(deployment("inside", "edge-4", 1))
        site.running("inside", 1)
        site.kubectl("delete", "deployment/inside")
    finally:
        shutil.rmtree(folder.parent)


def _network() -> None:
    """An address that is not loopback's, in this network namespace."""
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", "es0", "type", "bridge"],
        ["ip", "address", "add", f"{_ADDRESS}/24", "dev", "es0"],
        ["ip", "link", "set", "es0", "up"],
    ):
        subprocess.run(command, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance.external", description="The cloud role on a real cluster.")
    parser.add_argument("programs", type=Path, help="folder with kube-apiserver and the others")
    parser.add_argument("--etcd", type=Path, default=Path(shutil.which("etcd") or "/usr/bin/etcd"))
    parser.add_argument("--kubectl", default=shutil.which("kubectl") or "kubectl")
    parser.add_argument("--only", default="", help="name of one scenario")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds without an API server")
    parser.add_argument("--out", type=Path, help="folder for logs")
    arguments = parser.parse_args()
    _network()
    out: Path = arguments.out or Path(tempfile.mkdtemp(prefix="edgesite-external-"))
    out.mkdir(parents=True, exist_ok=True)

    def ride(site: Site) -> None:
        """The API server is killed and is away for a while; then all goes on, with the same containers."""
        outage(site, arguments.outage)

    scenarios: dict[str, Callable[[Site], None]] = {
        one.__name__: one for one in (join, deploy, streams, records, drain, restarts, two_clouds, moves, in_cluster)
    }
    scenarios["outage"] = ride
    failed = 0
    with ExitStack() as stack:
        programs = Programs.in_folder(arguments.programs, arguments.etcd)
        cluster = stack.enter_context(Cluster(programs, out / "cluster"))
        site = Site(cluster, arguments.kubectl, out)
        stack.callback(site.close)
        site.prepare()
        for name, scenario in scenarios.items():
            if arguments.only in ("", name):
                failed += not _play(name, scenario, site)
    print(f"{failed} failed; logs in {out}")
    return 1 if failed else 0


def _play(name: str, scenario: Callable[[Site], None], site: Site) -> bool:
    started = time.monotonic()
    try:
        scenario(site)
    except Failed as exc:
        print(f"FAIL {name}: {exc}", flush=True)
        return False
    except Exception:
        print(f"FAIL {name}:\n{traceback.format_exc()}", flush=True)
        return False
    print(f"ok   {name:10} {time.monotonic() - started:6.1f} s  {(scenario.__doc__ or '').strip()}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
