"""keadm with the packages on two machines that systemd runs, RPMs on the cloud side and debs at the edge, without any other network.

As an openEuler or Debian user does it: install, init, gettoken, join, run a pod, upgrade and downgrade under it, reset, join again, remove.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from e2e_machine import Machine, connect
from e2e_packages import NEWER, OLDER, Packages, dnf
from e2e_site import eventually
from peers import kubectl

pytestmark = pytest.mark.timeout(600)
STATE = "/var/lib/kubeedge/cloudcore"
JOIN = ("keadm", "join", "--cloudcore-ipport=10.9.0.1:10000", "--kubeedge-version=1.12.7", "--tarballpath=/packages")
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "works"},
    "spec": {
        "nodeName": "edge2",
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {"name": "main", "image": "host", "command": ["sh", "-c", "echo hello; exec sleep 987653"]},
        ],
    },
}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, packages: Packages) -> Iterator[tuple[Machine, Machine]]:
    """The cloud side with RPMs that dnf has installed, the edge with debs."""
    with ExitStack() as stack:

        def make(name: str, binds: dict[Path, str]) -> Machine:
            folder = tmp_path_factory.mktemp(name)
            return stack.enter_context(closing(Machine(folder, binds, name=name)))

        places = {packages.older: "/packages/older", packages.newer: "/packages/newer"}
        cloud = make("cloud1", {**places, kubectl("1.32"): "/usr/local/bin/kubectl"})
        dnf(cloud.root, packages, "install", "kubeedge-keadm")
        edge = make("edge2", {packages.debs: "/packages", packages.newer_debs: "/newer"})
        for one in (cloud, edge):
            one.boot()
        connect(cloud, edge)
        edge("sh", "-c", "exec dpkg -i /packages/*.deb")
        yield cloud, edge


def kube(cloud: Machine, *arguments: str, stdin: str | None = None) -> str:
    return cloud("kubectl", f"--kubeconfig={STATE}/admin.kubeconfig", *arguments, stdin=stdin)


def is_ready(cloud: Machine) -> bool:
    path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    return kube(cloud, "get", "node", "edge2", "-o", path) == "True"


def unit(machine: Machine, name: str) -> tuple[str, str]:
    return tuple(machine.run("systemctl", verb, name).stdout.strip() for verb in ("is-enabled", "is-active"))  # type: ignore[return-value]


def run_pod(cloud: Machine) -> None:
    kube(cloud, "apply", "-f", "-", stdin=json.dumps(POD))
    kube(cloud, "wait", "pod", "works", "--for=condition=Ready", "--timeout=100s")


def pod_process(edge: Machine) -> str:
    return edge("pgrep", "-fx", "sleep 987653").strip()


def test_a_site_from_packages_through_its_life(machines: tuple[Machine, Machine]) -> None:
    cloud, edge = machines
    assert unit(cloud, "cloudcore") == ("disabled", "inactive")
    said = cloud("keadm", "init", "--advertise-address=10.9.0.1", "--kubeedge-version=1.12.7", timeout_s=150)
    assert "CLOUDCORE started" in said
    assert unit(cloud, "cloudcore") == ("enabled", "active")
    assert cloud.property("cloudcore", "FragmentPath").startswith(
        ("/usr/lib/systemd", "/lib/systemd")
    )  # the package's own
    assert cloud("ps", "-o", "user=", "-p", cloud.property("cloudcore", "MainPID")).strip() == "kubeedge"
    token = cloud("keadm", "gettoken")
    said = edge(*JOIN, f"--token={token}", "--labels=rack=a", timeout_s=200)
    assert "node edge2 is Ready" in said
    assert unit(edge, "edgecore") == ("enabled", "active")
    assert "edge2" in kube(cloud, "get", "nodes", "-l", "rack=a,node-role.kubernetes.io/edge=", "--no-headers")
    run_pod(cloud)
    assert kube(cloud, "logs", "works") == "hello\n"

    process = pod_process(edge)
    for folder, release, flags in (("newer", NEWER, ""), ("older", OLDER, "--oldpackage ")):
        before = cloud.property("cloudcore", "MainPID")
        cloud("sh", "-c", f"exec rpm -F {flags}/packages/{folder}/*.rpm")
        assert cloud.property("cloudcore", "MainPID") != before
        assert f"-{release}/" in cloud("readlink", f"/proc/{cloud.property('cloudcore', 'MainPID')}/exe")
        eventually(lambda: kube(cloud, "exec", "works", "--", "echo", "still") == "still\n", "the edge's tunnel", 60)
        assert is_ready(cloud)
    assert "advertiseAddress:\n    - 10.9.0.1" in cloud("cat", "/etc/kubeedge/config/cloudcore.yaml")
    edge("systemctl", "restart", "edgecore")
    eventually(lambda: is_ready(cloud), "Ready")
    assert pod_process(edge) == process

    (edge_file, example) = (f"/etc/kubeedge/config/edgecore{one}.yaml" for one in ("", ".example"))
    for path in (edge_file, example):
        edge("sh", "-c", f"echo '# ours' >> {path}")
    for folder, release in (("newer", NEWER), ("packages", OLDER)):
        before = edge.property("edgecore", "MainPID")
        edge("sh", "-c", f"exec dpkg -i /{folder}/*.deb")
        assert edge.property("edgecore", "MainPID") != before
        assert f"-{release}/" in edge("readlink", f"/proc/{edge.property('edgecore', 'MainPID')}/exe")
        assert len(edge("sh", "-c", "ls -d /usr/lib/kubeedge/edgesite-*").split()) == 1
        eventually(lambda: kube(cloud, "exec", "works", "--", "echo", "still") == "still\n", "the edge", 60)
        assert unit(edge, "edgecore") == ("enabled", "active")
        assert (pod_process(edge), is_ready(cloud)) == (process, True)
    assert [edge("tail", "-n1", path) for path in (edge_file, example)] == ["# ours\n"] * 2

    assert "edgecore is stopped" in edge("keadm", "reset", "--force", timeout_s=60)
    assert unit(edge, "edgecore") == ("disabled", "inactive")
    assert edge.run("pgrep", "-fx", "sleep 987653").returncode == 1
    packaged = ["cloudcore.example.yaml", "edgecore.example.yaml", "edgesite.yaml"]
    assert edge("sh", "-c", "ls -A /var/lib/kubeedge; ls /etc/kubeedge/config").split() == packaged
    again = edge.run(*JOIN, f"--token={token}")
    assert (again.returncode, "node edge2 exists in the cloud" in again.stderr) == (1, True)
    kube(cloud, "delete", "node", "edge2")
    edge("sh", "-c", "printf 'touch $0-was-run; exit 1' | tee /run/before > /run/after")
    refused = edge.run(*JOIN, f"--token={token}", "--pre-run=/run/before", "--post-run=/run/after")
    assert "--pre-run: /run/before ended with exit code 1" in refused.stderr
    edge("test", "!", "-e", edge_file)
    edge("sh", "-c", "echo 'touch $0-was-run' > /run/before")
    said = edge(*JOIN, f"--token={token}", "--pre-run=/run/before", "--post-run=/run/after", timeout_s=200)
    assert "node edge2 is Ready" in said  # though the last script failed
    edge("ls", "/run/before-was-run", "/run/after-was-run")
    run_pod(cloud)
    process = pod_process(edge)

    packages = "$(dpkg-query -W -f '${Package} ' 'kubeedge*')"
    edge("sh", "-c", f"exec dpkg --remove {packages}")
    assert unit(edge, "edgecore")[1] == "inactive"
    assert edge("tail", "-n1", example) == "# ours\n"
    assert edge.run("sh", "-c", "ls -d /usr/lib/kubeedge/edgesite-* /usr/bin/edgecore").stdout == ""
    assert pod_process(edge) == process
    edge(
        "sh", "-c", "exec dpkg -i /newer/*.deb"
    )  # the same node again, by the configuration and certificate that stayed
    assert edge("tail", "-n1", example) == "# ours\n"
    edge("systemctl", "start", "edgecore")
    eventually(lambda: is_ready(cloud), "Ready")
    assert kube(cloud, "exec", "works", "--", "echo", "again") == "again\n"
    assert pod_process(edge) == process
    edge("sh", "-c", f"exec dpkg --purge {packages}")
    assert edge.run("ls", example).returncode == 2
    for path in (edge_file, "/var/lib/kubeedge/edgecore.db", "/etc/kubeedge/certs/server.key"):
        edge("test", "-e", path)  # what is not the packages' own
    cloud("keadm", "reset", "--force", timeout_s=60)
    cloud("sh", "-c", "exec rpm -e $(rpm -qa | grep ^kubeedge)")
    assert cloud.run(
        "sh", "-c", "ls -A /var/lib/kubeedge /usr/lib/kubeedge /etc/kubeedge/config 2>/dev/null"
    ).stdout.split() in ([], ["plugins"])
