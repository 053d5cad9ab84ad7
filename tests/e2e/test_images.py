"""The container images: built of the frozen bundle, run by containerd, installed with Helm on an API server that runs them itself."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from e2e_bundle import frozen_bundle
from e2e_site import NO_PORTS, Kubectl, Program, Site, end_workload, eventually
from peers import helm

import edgesite
from edgesite.testing.containerd import Containerd

pytestmark = pytest.mark.timeout(600)  # the program may have to be frozen first
PROJECT = Path(__file__).resolve().parents[2]
CHART = PROJECT / "packaging" / "helm" / "cloudcore"
TAG = f"v1.12.7-edgesite.{edgesite.__version__}"
NAMES = [f"kubeedge/{one}:{TAG}" for one in ("cloudcore", "iptables-manager", "edgecore")]
WAIT_S = 90


def build(bundle: Path, out: Path) -> Path:
    command = [sys.executable, str(PROJECT / "packaging" / "oci"), "--bundle", str(bundle), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = out.glob("*.tar")
    return archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(frozen_bundle(), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def loaded(archive: Path, daemon: Containerd) -> Containerd:
    """containerd with the images."""
    command = ["ctr", "-a", str(daemon.socket), "-n", "k8s.io", "images", "import", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return daemon


def read(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_the_archive_is_an_oci_layout_and_what_docker_saves(archive: Path) -> None:
    index = json.loads(read(archive, "index.json"))
    saved = json.loads(read(archive, "manifest.json"))
    assert [one["RepoTags"] for one in saved] == [[name] for name in NAMES]
    for listed, docker, name in zip(index["manifests"], saved, NAMES, strict=True):
        assert listed["annotations"]["io.containerd.image.name"] == f"docker.io/{name}"
        manifest = json.loads(read(archive, f"blobs/{listed['digest'].replace(':', '/')}"))
        assert docker["Config"] == f"blobs/{manifest['config']['digest'].replace(':', '/')}"
        config = json.loads(read(archive, docker["Config"]))
        assert config["config"]["Entrypoint"] == [name.partition("/")[2].partition(":")[0]]
        assert config["config"]["User"] == ("65532:65532" if "cloudcore" in name else "0:0")
        assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == 2
    ports = json.loads(read(archive, saved[0]["Config"]))["config"]["ExposedPorts"]
    assert sorted(ports) == ["10000/tcp", "10001/udp", "10002/tcp", "10003/tcp", "10004/tcp"]


def test_the_layers_hold_no_shell_and_nothing_that_others_may_write(archive: Path) -> None:
    names: set[str] = set()
    manifest = json.loads(read(archive, "manifest.json"))[0]
    with tarfile.open(archive) as outer:
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(layer), mode="r:gz") as inner:
                for one in inner:
                    assert one.issym() or not one.mode & 0o6022 or one.name == "tmp", one.name
                    names.add(one.name)
    assert {"usr/local/bin/cloudcore", "usr/lib/kubeedge/edgesite", "usr/sbin/iptables"} <= names
    assert not {"usr/bin/sh", "usr/bin/bash", "usr/bin/dash", "usr/bin/busybox", "usr/bin/apt"} & names
    assert "var/lib/dpkg/status.d/libc6" in names
    assert "usr/share/doc/libc6/copyright" in names


def test_the_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    bundle = tmp_path / "lib" / "kubeedge"
    bundle.mkdir(parents=True)
    (tmp_path / "BUILDINFO.json").write_text(json.dumps({"commit": "c0ffee", "source_date_epoch": 1790000000}))
    (bundle / "edgesite").write_text("a program")
    (bundle / "edgesite").chmod(0o700)
    (bundle / "cloudcore").symlink_to("edgesite")
    archive = build(bundle, tmp_path / "one")
    os.utime(bundle / "edgesite", (1, 1))
    assert build(bundle, tmp_path / "two").read_bytes() == archive.read_bytes()
    config = json.loads(read(archive, json.loads(read(archive, "manifest.json"))[0]["Config"]))
    assert config["created"] == "2026-09-21T14:13:20Z"
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == "c0ffee"


def test_packages_are_taken_from_whom_debian_signs_for_alone(archive: Path, tmp_path: Path) -> None:
    """A mirror that changes what the archive's keys have signed, as the build of the images has fetched it."""
    sys.path[:0] = [str(PROJECT / "packaging" / one) for one in ("oci", "freeze")]
    try:
        from binaries import Release
        from command import BuildFailed
    finally:
        del sys.path[:2]
    signed = (PROJECT / ".cache" / "dist" / "debian" / "InRelease-bookworm").read_bytes()
    (folder := tmp_path / "dists" / "bookworm").mkdir(parents=True)
    release = Release("amd64", tmp_path / "cache", [(tmp_path.as_uri(), "bookworm")])
    (folder / "InRelease").write_bytes(signed.replace(b"Origin: Debian", b"Origin: Nobody", 1))
    with pytest.raises(BuildFailed, match="not signed by the archive's keys"):
        release.newest("libc6")
    (folder / "InRelease").write_bytes(signed)
    with pytest.raises(BuildFailed, match="by-hash"):  # signed, but the mirror does not have what it lists
        release.newest("libc6")


@pytest.mark.parametrize("name", NAMES)
def test_each_image_starts_its_program(name: str, loaded: Containerd) -> None:
    program = name.partition("/")[2].partition(":")[0]
    ctr = ["ctr", "-a", str(loaded.socket), "-n", "k8s.io", "run", "--rm", "--read-only", "--runc-binary", loaded.oci]
    command = [*ctr, f"docker.io/{name}", f"try-{program}", program, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"KubeEdge {TAG}\n"


class Cluster(NamedTuple):
    """A site whose node runs containers, and whose API pods reach by the gateway of their network."""

    site: Site
    gateway: str
    home: Path

    def helm(self, *arguments: str) -> str:
        env = {**os.environ, "HOME": str(self.home), "KUBECONFIG": str(self.site.kubeconfig)}
        done = subprocess.run(
            [str(helm()), *arguments], capture_output=True, text=True, check=False, timeout=WAIT_S + 20, env=env
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{self._state()}"
        return done.stdout

    def put_kubeconfig(self, name: str) -> None:
        """Make a Secret of a kubeconfig by which pods reach the API."""
        config = yaml.safe_load(self.site.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://{self.gateway}:{self.site.port}"
        (file := self.home / "kubeconfig").write_text(json.dumps(config))
        self.site.kubectl()("create", "secret", "generic", name, "-n", "kubeedge", f"--from-file=kubeconfig={file}")

    def _state(self) -> str:
        kubectl = self.site.kubectl()
        return (
            kubectl("describe", "pods", "-n", "kubeedge")
            + kubectl.run("logs", "-n", "kubeedge", "deployment/cloudcore").stdout
        )


@pytest.fixture(scope="module")
def cluster(loaded: Containerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    gateway, folder = str(loaded.subnet[1]), tmp_path_factory.mktemp("cluster")
    with closing(Site(folder, "--cri-endpoint", loaded.endpoint, runtime="cri")) as site:
        site.start("--api-address", f"0.0.0.0:{site.port}", "--set", f"api.certSANs=[{gateway}]")
        yield Cluster(site, gateway, folder)


def test_helm_installs_the_cloud_role_and_an_edge_joins_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.put_kubeconfig("api")  # nobody translates the address of the API's service here
    each = ("hostNetWork=false", "affinity=null", "kubeconfigSecret=api")
    wanted = [f"{part}.{one}" for part in ("cloudCore", "iptablesManager") for one in each]
    wanted += ["cloudCore.modules.cloudHub.dnsNames[0]=cloud.test", "iptablesManager.mode=external"]
    wanted += [r"iptablesManager.nodeSelector.kubernetes\.io/hostname=node1"]  # not on the edge that joins
    values = [word for one in wanted for word in ("--set", one)]
    wait = ("--wait", f"--timeout={WAIT_S}s")
    cluster.helm("install", "cloudcore", str(CHART), "-n", "kubeedge", *values, *wait)

    kubectl = cluster.site.kubectl().within("kubeedge")
    (pod,) = kubectl.json("get", "pods", "-l", "kubeedge=cloudcore")["items"]
    address = pod["status"]["podIP"]
    assert TAG in kubectl("exec", "deployment/cloudcore", "--", "cloudcore", "--version")
    trusted = ssl.DER_cert_to_PEM_cert(base64.b64decode(kubectl.json("get", "secret", "casecret")["data"]["cadata"]))
    assert "cloud.test" in str(_certificate(address, 10002, trusted)["subjectAltName"])

    with closing(Joined(kubectl, address, tmp_path)) as edge:
        edge.program.wait_line("edge role of node e1: ready after")
        kubectl("wait", "--for=create", "node/e1", "--timeout=100s")
        kubectl("wait", "--for=condition=Ready", "node/e1", "--timeout=100s")
        recorded = kubectl.json("get", "configmap", "tunnelport")["metadata"]["annotations"][
            "tunnelportrecord.kubeedge.io"
        ]
        port = json.loads(recorded)["ipTunnelPort"][address]
        rule = f" -p tcp -m tcp --dport {port} -j DNAT --to-destination {address}:10003"
        list_rules = ("exec", "daemonset/cloud-iptables-manager", "--", "iptables", "-t", "nat", "-S")
        eventually(lambda: rule in kubectl(*list_rules), "the rule of the tunnel port")
    for one in kubectl.json("get", "pods")["items"]:
        assert [status["restartCount"] for status in one["status"]["containerStatuses"]] == [0], one
        assert "Traceback" not in kubectl("logs", one["metadata"]["name"])
    cluster.helm("uninstall", "cloudcore", "-n", "kubeedge", *wait)
    eventually(lambda: not kubectl.json("get", "pods")["items"], "the end of the pods")
    assert kubectl.json("get", "secret", "casecret")["data"]["cakeydata"], "the site's CA is gone with the release"


class Joined:
    """An edge that joined the cloud role in the pod."""

    def __init__(self, kubectl: Kubectl, address: str, folder: Path) -> None:
        self._kubectl = kubectl
        self._data = folder / "e1"
        token = base64.b64decode(kubectl.json("get", "secret", "tokensecret")["data"]["tokendata"]).decode()
        where = ("--data-dir", str(self._data), "--node-name", "e1", "--cloud", address, "--token", token)
        self.program = Program(folder / "e1.log", "edge", *where, "--runtime", "process", "-v", "2", *NO_PORTS)

    def close(self) -> None:
        self.program.close()
        end_workload(self._data)
        self._kubectl.run("delete", "node", "e1", "--wait=false")


def _certificate(host: str, port: int, trusted: str) -> dict[str, Any]:
    """What a listener shows, verified."""
    context = ssl.create_default_context(cadata=trusted)
    context.check_hostname = False
    with socket.create_connection((host, port), timeout=10) as plain, context.wrap_socket(plain) as secure:
        return dict(secure.getpeercert() or {})
