"""The cloud role on a real cluster: upstream's API server, controllers and scheduler, with least rights, and edges joined to it.

    python -m conformance.external PROGRAMS [--etcd FILE] [--kubectl FILE]... [--only NAME] [--outage SECONDS] [--out FOLDER]

PROGRAMS is a folder with kube-apiserver, kube-controller-manager and kube-scheduler of any version, see README.md. Run it in a
network and a mount namespace of its own (``unshare --net --mount``): firewall rules are written, volumes mounted. Prints a line for each
scenario, and ends with 1 if one failed.

Units   Seconds.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from conformance.cluster import Cluster, Programs
from conformance.external_devices import devices
from conformance.external_site import ADDRESS, Cloud, Edge, Site, deployment
from conformance.programs import Failed, eventually


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
    site.kubectl.apply(secret | {"stringData": {"key": "four"}})
    data = site.edges["edge-1"].data
    eventually(lambda: _holds(data, "word", "three"), "the change reaches the edge's volumes", 120)
    eventually(lambda: _holds(data, "key", "four"), "the new secret reaches the edge's volumes", 120)
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


def restore(site: Site) -> None:
    """etcd is restored from an older snapshot, under a cloud that runs and under one that starts later: edges hold what the API says."""
    cloud = site.cloud()
    edge = site.edge("edge-1", cloud)
    for starts_later in (False, True):
        _make(site, "early", "kept", "changed", "deleted", "replaced")
        backup = site.folder / f"backup-{starts_later}.db"
        site.cluster.snapshot(backup)
        site.kubectl("delete", "pod/deleted", "pod/replaced", "--grace-period=1")
        _make(site, "late", "replaced", "new")
        site.kubectl("label", "pod/changed", "late=yes")
        for _ in range(30):  # the API has to go far before it says what it has said already
            site.kubectl("annotate", "--overwrite", "configmap/kept", f"count={time.monotonic()}")
        eventually(lambda: "late" in edge.stored("configmap", "new")["data"]["word"], "the late state at the edge", 60)
        assert cloud.program is not None
        if starts_later:
            cloud.program.kill()
        site.cluster.restore(backup)
        if starts_later:
            cloud.start()
        site.ready("edge-1", timeout_s=120)
        eventually(lambda: not _differs(site, edge), "API and edge are equal", 120)
        site.kubectl("patch", "configmap/kept", "--patch", '{"data":{"word":"again"}}')
        eventually(lambda: edge.stored("configmap", "kept")["data"]["word"] == "again", "a change after it", 60)
        site.kubectl("delete", "pod,configmap", "-l", "app=past", "--grace-period=1", timeout_s=120)
        backup.unlink()


def _make(site: Site, word: str, *names: str) -> None:
    """Pods on edge-1, each with a ConfigMap of its name; they run on return. Raises Failed."""
    for name in names:
        metadata = {"name": name, "labels": {"app": "past"}}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"word": word}}
        pod = deployment(name, "edge-1", 1)["spec"]["template"]["spec"]
        pod["containers"][0]["envFrom"] = [{"configMapRef": {"name": name}}]
        site.kubectl.apply(config, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
    for name in names:
        site.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s", timeout_s=90)


def _differs(site: Site, edge: Edge) -> list[str]:
    """What the edge stores otherwise than the API has it, and pods that do not run. Raises Failed."""
    found = []
    pods = site.kubectl.json("get", "pods", "-l", "app=past")["items"]
    for pod in pods:
        name, held = pod["metadata"]["name"], edge.stored("pod", pod["metadata"]["name"])
        if (
            held.get("metadata", {}).get("uid") != pod["metadata"]["uid"]
            or held["metadata"].get("labels") != pod["metadata"]["labels"]
        ):
            found.append(f"pod {name}")
        if not any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ())):
            found.append(f"pod {name} is not ready")
        config = site.kubectl.json("get", "configmap", name)
        if edge.stored("configmap", name).get("data") != config["data"]:
            found.append(f"configmap {name}")
    names = {pod["metadata"]["name"] for pod in pods}
    if names != {"kept", "changed", "deleted", "replaced"}:
        found.append(f"the API has {sorted(names)}")
    return found + [f"pod {name} is gone" for name in edge.all_stored("pod") if name not in names]


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
        ["ip", "address", "add", f"{ADDRESS}/24", "dev", "es0"],
        ["ip", "link", "set", "es0", "up"],
    ):
        subprocess.run(command, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance.external", description="The cloud role on a real cluster.")
    parser.add_argument("programs", type=Path, help="folder with kube-apiserver and the others")
    parser.add_argument("--etcd", type=Path, default=Path(shutil.which("etcd") or "/usr/bin/etcd"))
    parser.add_argument(
        "--kubectl", action="append", help="may be repeated: devices are tried with each, the rest with the first"
    )
    parser.add_argument("--only", default="", help="name of one scenario")
    parser.add_argument("--outage", type=float, default=60.0, help="seconds without an API server")
    parser.add_argument("--out", type=Path, help="folder for logs")
    arguments = parser.parse_args()
    for ending in (signal.SIGINT, signal.SIGTERM):  # also in the background all is to be taken down
        signal.signal(ending, signal.default_int_handler)
    _network()
    out: Path = arguments.out or Path(tempfile.mkdtemp(prefix="edgesite-external-"))
    out.mkdir(parents=True, exist_ok=True)

    def ride(site: Site) -> None:
        """The API server is killed and is away for a while; then all goes on, with the same containers."""
        outage(site, arguments.outage)

    scenarios: dict[str, Callable[[Site], None]] = {
        one.__name__: one
        for one in (join, deploy, streams, records, drain, restarts, two_clouds, moves, in_cluster, restore, devices)
    }
    scenarios["outage"] = ride
    failed = 0
    with ExitStack() as stack:
        programs = Programs.in_folder(arguments.programs, arguments.etcd)
        cluster = stack.enter_context(Cluster(programs, out / "cluster"))
        site = Site(cluster, arguments.kubectl or [shutil.which("kubectl") or "kubectl"], out)
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
