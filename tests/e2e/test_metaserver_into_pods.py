"""kubectl on an edge node into the node's own pods: logs, exec, attach, port-forward, cp and top, with and without a link to the cloud."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Kubectl, eventually
from e2e_split import META, SplitSite, split_site

pytestmark = pytest.mark.timeout(240)
VERSIONS = ("1.20", "1.32")
PORT = 18099
SERVES = f"import http.server; http.server.HTTPServer(('127.0.0.1', {PORT}), http.server.SimpleHTTPRequestHandler).serve_forever()"
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).status)"


def pod(name: str, *command: str, **more: Any) -> str:
    container = {"name": "main", "image": "host", "command": list(command), **more}
    spec = {"nodeName": "edge-1", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def with_pods(site: SplitSite) -> None:
    admin = site.kubectl()
    admin(
        "apply", "-f", "-", stdin=pod("talks", "sh", "-c", "n=0; while :; do echo line $n; n=$((n+1)); sleep 0.2; done")
    )
    admin("apply", "-f", "-", stdin=pod("listens", "sh", "-c", "while read x; do echo heard $x; done", stdin=True))
    admin("apply", "-f", "-", stdin=pod("web", sys.executable, "-c", SERVES))
    elsewhere = json.loads(pod("elsewhere", "true"))
    elsewhere["spec"] |= {"nodeName": "edge-2"}
    admin("apply", "-f", "-", stdin=json.dumps(elsewhere))
    for name in ("talks", "listens", "web"):
        admin("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=100s")


def without_pods(site: SplitSite) -> None:
    admin = site.kubectl()
    admin("delete", "pods", "talks", "listens", "web", "--timeout=100s")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SplitSite]:
    with split_site(tmp_path_factory.mktemp("pods")) as made:
        with_pods(made)
        yield made
        without_pods(made)


def into_pods(site: SplitSite, version: str, folder: Path) -> None:
    """All of it, with one kubectl."""
    kubectl = site.on_edge(version, "--server", f"http://{META}", "-n", "default")
    assert kubectl("logs", "talks", "--tail=2").startswith("line ")
    with kubectl.background("logs", "-f", "talks", "--tail=1") as following:
        assert following.stdout is not None
        first, second = (int(following.stdout.readline().split()[1]) for _ in range(2))
        assert second == first + 1
        following.kill()
    assert kubectl("exec", "talks", "--", "sh", "-c", "echo out").strip() == "out"
    done = kubectl.run("exec", "talks", "--", "sh", "-c", "echo err >&2; exit 7")
    assert (done.returncode, "err" in done.stderr) == (7, True)
    assert kubectl("exec", "-i", "talks", "--", "cat", stdin="through\n") == "through\n"
    attaches(kubectl)
    (folder / "there").write_bytes(bytes(range(256)) * 512)
    target = f"{folder}/copied"
    kubectl("cp", str(folder / "there"), f"talks:{target}")
    assert Path(target).read_bytes() == (folder / "there").read_bytes()
    forwards(site, kubectl, version)
    assert "container nope is not valid for pod talks" in kubectl.fails("logs", "talks", "-c", "nope")


def attaches(kubectl: Kubectl) -> None:
    command = [*kubectl._command, "attach", "-i", "listens"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write("you\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "heard you\n"
        attached.kill()


def forwards(site: SplitSite, kubectl: Kubectl, version: str) -> None:
    local = 19000 + int(version[2:])
    with kubectl.background("port-forward", "pod/web", f"{local}:{PORT}") as forwarding:
        assert forwarding.stdout is not None
        assert "Forwarding from" in forwarding.stdout.readline()
        command = [
            "ip",
            "netns",
            "exec",
            site.spaces["edge"],
            sys.executable,
            "-c",
            FETCH,
            f"http://127.0.0.1:{local}/",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.strip() == "200", done.stderr
        forwarding.kill()


@pytest.mark.parametrize("version", VERSIONS)
def test_kubectl_leads_into_pods_of_the_node(site: SplitSite, version: str, tmp_path: Path) -> None:
    into_pods(site, version, tmp_path)
    kubectl = site.on_edge(version)
    assert "is not on node edge-1" in kubectl.fails("exec", "elsewhere", "--", "true")
    assert "edge-1" in kubectl("top", "nodes")
    assert "talks" in eventually(lambda: kubectl.run("top", "pods").stdout, "figures of pods")


def test_and_does_so_without_a_link(site: SplitSite, tmp_path: Path) -> None:
    kubectl = site.on_edge("1.32")
    kubectl("get", "pods")
    kubectl("get", "nodes")
    site.cut()
    try:
        for version in VERSIONS:
            (tmp_path / version).mkdir()
            into_pods(site, version, tmp_path / version)
        assert "edge-1" in kubectl("top", "nodes")
        shown = kubectl("top", "pods")
        assert [name in shown for name in ("talks", "web", "elsewhere")] == [True, True, False]
        assert "is not on node edge-1, which is offline" in kubectl.fails("logs", "elsewhere")
        assert "is not on node edge-1, which is offline" in kubectl.fails("exec", "elsewhere", "--", "true")
    finally:
        site.heal()


ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules:
  - {apiGroups: [""], resources: [pods, pods/log], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: operator, namespace: default}
rules:
  - {apiGroups: [""], resources: [pods, pods/log], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods/exec], verbs: [get, create]}
"""


def test_with_tokens_only_who_may_is_led_into_pods(tmp_path: Path) -> None:
    with split_site(tmp_path, gate=True, offlineTokenMinutes="10") as site:
        with_pods(site)
        admin = site.kubectl()
        admin("apply", "-f", "-", stdin=ROLE)
        users: dict[str, Kubectl] = {}
        ca = str(next(site.cloud_data.rglob("pki/ca.crt")))
        for account in ("reader", "operator"):
            admin("create", "serviceaccount", account)
            admin("create", "rolebinding", account, f"--role={account}", f"--serviceaccount=default:{account}")
            token = admin("create", "token", account).strip()
            words = ("--server", f"https://{META}", "--certificate-authority", ca, "--token", token)
            users[account] = site.on_edge("1.32", *words)
        nobody = site.on_edge("1.32", "--server", f"https://{META}", "--certificate-authority", ca, "--token", "x.y.z")
        eventually(lambda: users["reader"].run("logs", "talks", "--tail=1").stdout, "MetaServer serves")

        def check() -> None:
            for one in users.values():
                assert one("logs", "talks", "--tail=1").startswith("line")
            assert users["operator"]("exec", "talks", "--", "echo", "x").strip() == "x"
            assert "forbidden" in users["reader"].fails("exec", "talks", "--", "echo", "x").lower()
            assert nobody.run("exec", "talks", "--", "echo", "x").returncode != 0

        check()
        site.cut()
        began = time.monotonic()
        check()
        assert time.monotonic() - began < 60
        site.heal()
        without_pods(site)


def test_what_was_read_is_whole_after_a_kill_without_a_link(site: SplitSite) -> None:
    admin, kubectl = site.kubectl(), site.on_edge()
    for n in range(20):
        admin("create", "configmap", f"kept-{n}", f"--from-literal=n={n}")
    seen = kubectl.json("get", "configmaps")
    time.sleep(1.5)  # what was read a moment before a crash may be read again
    site.cut()
    try:
        assert site.edge is not None
        site.edge.kill()
        site.start_edge()
        after = eventually(lambda: kubectl.json("get", "configmaps"), "the answer of the next run", 30)
        assert after["items"] == seen["items"]
        pods = json.loads(kubectl("get", "pods", "-o", "json"))["items"]
        assert {"talks", "listens", "web"} <= {one["metadata"]["name"] for one in pods}
        assert eventually(lambda: kubectl.run("logs", "talks", "--tail=1").stdout, "the log", 40).startswith("line")
        assert kubectl("exec", "talks", "--", "echo", "still").strip() == "still"
    finally:
        site.heal()
