"""keadm on two hosts in namespaces: a cloud and an edge set up as users' scripts do it, failures undone, crashes undone by the next command."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_site import eventually
from keadm_hosts import Host, connect, two_hosts

from edgesite.cloud.cloudhub import jointoken

JOIN = ("join", "--cloudcore-ipport=10.9.0.1:10000")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path_factory.mktemp("keadm") / "hosts") as made:
        done = made[0].keadm(
            "init",
            "--advertise-address=10.9.0.1",
            "--kubeedge-version=1.12.1",
            "--set",
            "cloudCore.modules.cloudHub.nodeLimit=7",
        )
        assert done.returncode == 0, done.stderr + made[0].log("cloudcore")
        assert {"CLOUDCORE started", "NAME: cloudcore", "NAMESPACE: kubeedge", "STATUS: deployed"} <= set(
            done.stdout.splitlines()
        )
        assert "--kubeedge-version has no effect" in done.stderr
        yield made


@pytest.fixture(scope="module")
def token(hosts: tuple[Host, Host]) -> str:
    done = hosts[0].keadm("gettoken", "--kube-config=/root/.kube/config")
    assert (done.returncode, done.stdout.count("."), done.stdout.strip()) == (0, 3, done.stdout)
    return done.stdout


@pytest.fixture
def edge(hosts: tuple[Host, Host]) -> Iterator[Host]:
    """The edge host, as it was before keadm."""
    edge = hosts[1]
    before = edge.files()
    yield edge
    edge.keadm("reset", "--force")
    nodes(hosts[0], "DELETE", "edge-host")
    assert {one for one in edge.files() - before if ": b" in one} == set()


PROBE = """
import anyio, json, sys
from pathlib import Path
from edgesite.cli.keadm.apiaccess import ask
async def question(client):
    status, _, body = await client.request(sys.argv[1], "/api/v1/nodes/" + sys.argv[2])
    return status, body
status, body = ask(Path("/var/lib/kubeedge/cloudcore/admin.kubeconfig"), question)
print(json.dumps([status, json.loads(body)]))
"""


def nodes(cloud: Host, method: str, name: str) -> tuple[int, dict[str, object]]:
    """Ask the API of the cloud host for a node."""
    done = cloud.run(sys.executable, "-c", PROBE, method, name)
    assert done.returncode == 0, done.stderr
    status, body = json.loads(done.stdout)
    return status, body


def is_ready(node: dict[str, object]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])  # type: ignore[index]


def test_an_edge_joins_is_ready_and_is_reset(hosts: tuple[Host, Host], token: str, edge: Host) -> None:
    done = edge.keadm(
        *JOIN, f"--token={token}", "--labels=rack=a,zone=b", "--with-mqtt=false", "--certPath=/etc/kubeedge/certs"
    )
    assert done.returncode == 0, done.stderr + edge.log("edgecore")
    assert "node edge-host is Ready" in done.stdout
    assert "KubeEdge edgecore is running, For logs visit: journalctl -u edgecore.service -xe" in done.stdout
    status, node = nodes(hosts[0], "GET", "edge-host")
    assert (status, is_ready(node)) == (200, True)
    labels = node["metadata"]["labels"]  # type: ignore[index]
    assert (labels["rack"], labels["zone"]) == ("a", "b")
    assert token not in edge.path("/etc/kubeedge/config/edgecore.yaml").read_text()
    assert edge.path("/run/units/edgecore.enabled").exists()
    again = edge.keadm(*JOIN, f"--token={token}")
    assert again.returncode == 1
    assert (
        "execute keadm command failed:  EdgeCore is already running on this node, please run reset to clean up first"
        in again.stderr
    )

    refused = edge.keadm("reset", stdin="n\n")
    assert (refused.returncode, "aborted reset operation" in refused.stderr) == (1, True)
    done = edge.keadm("reset", stdin="y\n")
    assert done.returncode == 0
    assert "Are you sure you want to proceed? [y/N]" in done.stdout
    assert "edgecore is stopped" in done.stdout
    assert not edge.path("/run/units/edgecore.enabled").exists()
    assert edge.keadm("reset", "--force").stdout == "None of KubeEdge components are running in this host, exit\n"


def test_nothing_changes_where_a_check_fails(hosts: tuple[Host, Host], token: str, edge: Host) -> None:
    before = edge.files()
    ca = jointoken.make(b"another CA", b"key", int(time.time()) + 3600)
    over = jointoken.make(b"another CA", b"key", int(time.time()) - 3600)
    taken = edge.start("python3", "-m", "http.server", "10350")
    try:
        eventually(lambda: "10350" in edge.run("ss", "-ltn").stdout, "a listener at kubelet's port")
        for arguments, said in (
            ((*JOIN, f"--token={ca}"), "port 10350 (kubelet's API) is taken"),
            ((*JOIN, f"--token={over}"), "the token expired at"),
            ((*JOIN, "--token=nonsense"), "token credentials are in the wrong format"),
            ((*JOIN, f"--token={token}", "--cgroupdriver=none"), "unsupported CGroupDriver: none"),
            ((*JOIN, f"--token={token}", "--runtimetype=rkt"), "unsupport CRI runtime: rkt"),
            ((*JOIN, f"--token={token}", "-p", "unix:///run/none.sock"), "there is no such socket"),
            ((*JOIN, f"--token={token}", "--labels=a b=c"), "is no label"),
            ((*JOIN, f"--token={token}", "--edgenode-name=Edge"), "--edgenode-name Edge"),
            (("join", f"--token={token}"), 'required flag(s) "cloudcore-ipport" not set'),
            ((*JOIN, "--no-such-flag"), "unrecognized arguments: --no-such-flag"),
        ):
            done = edge.keadm(*arguments)
            assert (done.returncode, "execute keadm command failed:  " in done.stderr, said in done.stderr) == (
                1,
                True,
                True,
            ), done.stderr
    finally:
        edge.kill(taken)
    edge.run("sh", "-c", "cp /bin/sleep /run/kubelet")
    kubelet = edge.start("/run/kubelet", "60")
    try:
        eventually(lambda: "kubelet" in edge.run("ps", "-eo", "comm").stdout, "a kubelet")
        done = edge.keadm(*JOIN, f"--token={token}")
        assert "kubelet" in done.stderr
        assert "should not running on edge node when running edgecore" in done.stderr
    finally:
        edge.kill(kubelet)
    mute = edge.start(
        sys.executable,
        "-c",
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/run/mute.sock'); time.sleep(60)",
    )
    try:
        eventually(
            lambda: edge.run("test", "-S", "/run/mute.sock").returncode == 0, "a socket where no runtime answers"
        )
        done = edge.keadm(
            *JOIN, f"--token={token}", "--runtimetype=remote", "--remote-runtime-endpoint=unix:///run/mute.sock"
        )
        assert "the container runtime at unix:///run/mute.sock does not answer by CRI v1" in done.stderr
    finally:
        edge.kill(mute)
    done = edge.keadm(*JOIN, f"--token={ca}")
    assert "failed to validate CA certificate. tokenCAhash" in done.stderr
    done = edge.keadm("join", "--cloudcore-ipport=10.9.0.7:10000", f"--token={token}")
    assert "failed to get CA certificate, err: Get" in done.stderr
    dry = edge.keadm(*JOIN, f"--token={token}", "--dry-run")
    assert dry.returncode == 0
    assert "would write /etc/kubeedge/config/edgecore.yaml" in dry.stdout
    assert "would enable and start edgecore.service" in dry.stdout
    assert edge.files() == before


def test_a_failure_undoes_everything(hosts: tuple[Host, Host], token: str, edge: Host) -> None:
    """The unit does not come up: what was there before is back to the byte."""
    own = edge.path("/etc/kubeedge/config/edgecore.yaml")
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("# mine\nmodules: {edged: {maxPerPodContainerCount: 3}}\n")
    before = edge.files()
    done = edge.keadm(*JOIN, f"--token={token}", "--set", "modules.edgeHub.websocket.server=10.9.0.1:1", "--wait=4")
    assert done.returncode == 1
    assert "the node has not been registered within 4 s" in done.stderr
    assert "failed; what was changed is undone" in done.stderr
    assert {one for one in edge.files() - before if ": b" in one} == set()
    assert before <= edge.files()
    assert edge.run("systemctl", "is-active", "edgecore").stdout == "inactive\n"
    assert edge.run("systemctl", "is-enabled", "edgecore").stdout == "disabled\n"
    done = edge.keadm(*JOIN, f"--token={token}")
    assert done.returncode == 0, done.stderr
    assert "maxPerPodContainerCount: 3" in own.read_text()


def test_after_a_kill_the_next_command_undoes_and_goes_on(hosts: tuple[Host, Host], token: str, edge: Host) -> None:
    join = edge.start("keadm", *JOIN, f"--token={token}", "--set=modules.edgeHub.websocket.server=10.9.0.1:1")
    eventually(lambda: edge.run("systemctl", "is-active", "edgecore").stdout == "active\n", "the start of the unit")
    assert edge.path("/var/lib/keadm/journal").exists()
    edge.kill(join)
    again = edge.keadm(*JOIN, f"--token={token}")
    assert again.returncode == 0, again.stderr
    assert "an earlier keadm was cut short; what it had changed is undone first" in again.stderr
    assert "node edge-host is Ready" in again.stdout


def test_the_name_of_a_node_is_not_taken_twice(hosts: tuple[Host, Host], token: str, edge: Host) -> None:
    assert edge.keadm(*JOIN, f"--token={token}").returncode == 0
    assert edge.keadm("reset", "--force").returncode == 0
    before = edge.files()
    done = edge.keadm(*JOIN, f"--token={token}")
    assert (done.returncode, "node edge-host exists in the cloud" in done.stderr) == (1, True)
    assert edge.files() == before
    bound = hosts[0].keadm("gettoken", "--node=edge-host").stdout
    done = edge.keadm(*JOIN, f"--token={bound}")
    assert done.returncode == 0, done.stderr


def test_where_no_systemd_runs_the_command_is_printed(tmp_path: Path) -> None:
    host = Host(tmp_path / "bare", "bare", systemd=False)
    try:
        done = host.keadm("init", "--advertise-address=192.0.2.1")
        assert done.returncode == 0, done.stderr
        assert (
            done.stdout
            == "systemd does not run here: start the cloud side with\n  /usr/local/bin/cloudcore --data-dir /var/lib/kubeedge/cloudcore\n"
        )
        assert "192.0.2.1" in host.path("/etc/kubeedge/config/cloudcore.yaml").read_text()
        assert "cloudcore" not in host.run("ps", "-eo", "comm").stdout
        assert host.keadm("reset", "--force").returncode == 0
        assert not host.path("/etc/kubeedge/config/cloudcore.yaml").exists()
    finally:
        host.close()


def test_init_on_a_cluster(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    """The first host's API is the cluster of another host's cloudcore: its kubeconfig is copied, the custom resources are made."""
    cluster, cloud = Host(tmp_path / "cluster", "cluster"), Host(tmp_path / "cloud", "cloud")
    try:
        connect(cluster, cloud)
        api = cluster.start(
            "edgesite",
            "cloud",
            "--api-address=10.9.0.1:6443",
            "--advertise-address=10.9.0.1",
            "--set=modules.cloudHub.enable=false",
        )
        kubeconfig = cluster.path("/var/lib/kubeedge/admin.kubeconfig")
        eventually(kubeconfig.exists, "the cluster's kubeconfig")
        (cloud.folder / "etc" / "admin.conf").write_text(kubeconfig.read_text())
        done = cloud.keadm(
            "init", "--kube-config=/etc/admin.conf", "--advertise-address=10.9.0.2", "--profile=iptablesmgr=external"
        )
        assert done.returncode == 0, done.stderr + cloud.log("cloudcore")
        assert done.stdout.startswith(
            "Kubernetes version verification passed, KubeEdge installation will start...\nCLOUDCORE started\n"
        )
        copied = cloud.path("/etc/kubeedge/config/cloudcore.kubeconfig")
        assert (copied.stat().st_mode & 0o777, "client-key-data" in copied.read_text()) == (0o600, True)
        assert "mode: external" in cloud.path("/etc/kubeedge/config/cloudcore.yaml").read_text()
        assert not cloud.path("/var/lib/kubeedge/cloudcore/admin.kubeconfig").exists()
        assert cloud.keadm("gettoken", "--kube-config=/etc/admin.conf").stdout.count(".") == 3
        assert cloud.keadm("reset", "--force").returncode == 0
        gone = cloud.keadm("gettoken", "--kube-config=/etc/admin.conf")
        assert (gone.returncode, "failed to get token, err is" in gone.stderr) == (1, True)
        cluster.kill(api)
    finally:
        cluster.close()
        cloud.close()
