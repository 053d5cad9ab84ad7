"""A pod on containerd that calls the API with the official Python client and nothing but what it finds in its volume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from e2e_roles import Cloud, Edge, joined_on, mounts
from e2e_site import Kubectl, eventually

from edgesite.testing.containerd import BUSYBOX, Containerd

SCRIPT = """
import json, os, time
from kubernetes import client, config
from kubernetes.client.rest import ApiException

FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount/"
while True:
    said = {"pid": os.getpid(), "token": open(FOLDER + "token").read(), "namespace": open(FOLDER + "namespace").read()}
    try:
        config.load_incluster_config()
        core = client.CoreV1Api()
        said["pods"] = [one.metadata.name for one in core.list_namespaced_pod(said["namespace"]).items]
        core.list_namespaced_secret(said["namespace"])
    except ApiException as error:
        said["refused"] = [error.status, json.loads(error.body)["message"]]
    except Exception as error:
        said["failed"] = type(error).__name__
    with open("/said/lines", "a") as file:
        file.write(json.dumps(said) + "\\n")
    time.sleep(0.3)
"""
REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"


@pytest.fixture
def roles(tmp_path: Path, daemon: Containerd) -> Iterator[tuple[Cloud, Edge]]:
    with joined_on(daemon, tmp_path, "accounts") as joined:
        yield joined


def pod(name: str, said: Path, cloud: Cloud) -> str:
    """Python and its libraries are those of this host."""
    folders = {"/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix}
    shown = sorted(one for one in folders if Path(one).is_dir())
    shown = [one for one in shown if one == "/usr" or not one.startswith("/usr/")]
    volumes: list[dict[str, Any]] = [{"name": f"v{at}", "hostPath": {"path": one}} for at, one in enumerate(shown)]
    mounted = [{"name": f"v{at}", "mountPath": one, "readOnly": True} for at, one in enumerate(shown)]
    said.mkdir()
    volumes.append({"name": "said", "hostPath": {"path": str(said)}})
    mounted.append({"name": "said", "mountPath": "/said"})
    api = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cloud.api)}
    container = {
        "name": "main",
        "image": BUSYBOX,
        "command": [sys.executable, "-c", SCRIPT],
        "env": [{"name": key, "value": value} for key, value in api.items()],
        "volumeMounts": mounted,
    }
    spec = {
        "serviceAccountName": "robot",
        "nodeName": "accounts",
        "hostNetwork": True,
        "containers": [container],
        "volumes": volumes,
        "terminationGracePeriodSeconds": 1,
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def lines(said: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in (said / "lines").read_text().splitlines()]
    except FileNotFoundError:
        return []


def last(said: Path) -> dict[str, Any]:
    found = lines(said)
    return found[-1] if found else {}


def review(kubectl: Kubectl, token: str) -> dict[str, Any]:
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = json.loads(kubectl("create", "--raw", REVIEW, "-f", "-", stdin=json.dumps(asked)))
    return answer["status"]  # type: ignore[no-any-return]


def end_container(daemon: Containerd, name: str) -> None:
    """As the kernel would when memory is short."""
    ctr = ("ctr", "-a", str(daemon.root / "containerd.sock"), "-n", "k8s.io")
    wanted = f'labels."io.kubernetes.pod.name"=={name},labels."io.kubernetes.container.name"==main'
    found = subprocess.run([*ctr, "containers", "ls", "-q", wanted], capture_output=True, text=True, check=True)
    for one in found.stdout.split():
        subprocess.run([*ctr, "tasks", "kill", "-s", "KILL", one], check=False, capture_output=True)


def test_a_pod_calls_the_api_with_its_own_rights(roles: tuple[Cloud, Edge], daemon: Containerd, tmp_path: Path) -> None:
    cloud, edge = roles
    kubectl = cloud.kubectl()
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    said = tmp_path / "said"
    kubectl("apply", "-f", "-", stdin=pod("user", said, cloud))
    first = eventually(lambda: last(said), "the first words of the pod", 60)
    assert first["namespace"] == "default"
    assert first["refused"] == [
        403,
        'pods is forbidden: User "system:serviceaccount:default:robot" cannot list resource "pods" in API group "" in the '
        'namespace "default"',
    ]
    kubectl("create", "rolebinding", "robot", "--role=reader", "--serviceaccount=default:robot")
    now = eventually(lambda: last(said).get("pods") and last(said), "the pod's list of pods")
    assert now["pods"] == ["user"]
    assert "secrets is forbidden" in now["refused"][1]
    extra = review(kubectl, first["token"])["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-name"] == ["user"]
    assert extra["authentication.kubernetes.io/node-name"] == ["accounts"]

    # Offline: the edge starts anew and the container, too; the token is the one on the edge's disk.
    cloud.end(signal.SIGKILL)
    assert edge.program is not None
    edge.program.kill()
    for one in mounts(edge.data):
        if "kube-api-access" in one:
            subprocess.run(["umount", "-l", one], check=True)  # memory that a reboot has cleared
    end_container(daemon, "user")
    count = len(lines(said))
    edge.start()
    again = eventually(lambda: lines(said)[count:], "the pod's return", 60)[-1]
    assert again["token"] == first["token"]
    assert "failed" in again

    # Another cloud process gives tokens of a short life: they are renewed while the pod runs.
    cloud.start("--set", "api.serviceAccountMaxTokenExpiration=12s")
    eventually(lambda: last(said).get("pods"), "the pod's answers from the new cloud", 60)
    short = tmp_path / "short"
    eventually(lambda: kubectl.run("apply", "-f", "-", stdin=pod("short", short, cloud)).returncode == 0, "a pod")
    started = eventually(lambda: last(short).get("pods") and last(short), "the words of the second pod", 60)
    renewed = eventually(
        lambda: last(short)["token"] != started["token"] and last(short).get("pods") and last(short), "a new token", 40
    )
    assert renewed["pid"] == started["pid"]
    assert not any(one.get("refused", [0])[0] == 401 for one in lines(short))
    eventually(lambda: not review(kubectl, started["token"]).get("authenticated"), "the end of the first token")

    # The pod's end is its tokens' end, in the cloud and on the edge's disk.
    kubectl("delete", "pod", "user", "short", "--timeout=100s")
    assert "gone" in review(kubectl, first["token"])["error"]
    assert stored_tokens(edge.data) == 0


def stored_tokens(data: Path) -> int:
    import apsw

    found = [path for path in data.rglob("edgecore.db") if os.path.getsize(path)]
    with closing(apsw.Connection(str(found[0]), flags=apsw.SQLITE_OPEN_READONLY)) as database:
        (count,) = next(iter(database.execute("SELECT count(*) FROM meta WHERE type = 'serviceaccounttoken'")))
        return int(count)
