"""Programs on an edge node with kubectl and the official Python client, while the cable to the cloud is pulled and put back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from e2e_site import Kubectl, eventually
from e2e_split import META, SplitSite, rows_of, split_site

pytestmark = pytest.mark.timeout(240)

DUMMY = "169.254.30.10"

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {nodeSelector: {none: here}, containers: [{name: web, image: web}]}
"""
CUSTOM = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gateways.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {plural: gateways, singular: gateway, kind: Gateway}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
      additionalPrinterColumns:
        - {name: Spec-A, type: integer, jsonPath: .spec.a}
        - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
"""

GATEWAY = """
apiVersion: example.org/v1
kind: Gateway
metadata: {name: front}
spec: {a: 1}
"""


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SplitSite]:
    with split_site(tmp_path_factory.mktemp("split")) as site:
        yield site


@pytest.mark.parametrize("version", ["1.20", "1.32"])
def test_kubectl_works_on_the_node(open_site: SplitSite, version: str) -> None:
    kubectl = open_site.on_edge(version)
    kubectl("create", "namespace", f"k{version[2:]}")
    kubectl = open_site.on_edge(version, "--server", f"http://{META}", "-n", f"k{version[2:]}")
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT % 2)
    kubectl("apply", "-f", "-", stdin=DEPLOYMENT % 3)
    kubectl("scale", "deployment/web", "--replicas=4")
    kubectl("patch", "deployment", "web", "-p", '{"metadata":{"labels":{"x":"y"}}}')
    (_, row) = rows_of(kubectl("get", "deployment", "-o", "wide", "--show-labels"))
    assert (row[0], row[1], row[-1]) == ("web", "0/4", "x=y")
    assert "nodeName" in kubectl("explain", "pod.spec.nodeName")
    assert "deployments" in kubectl("api-resources")
    assert "Server Version" in kubectl("version")
    with kubectl.background("get", "configmaps", "-w", "--no-headers") as watching:
        kubectl("create", "configmap", "seen", "--from-literal=n=1")
        assert watching.stdout is not None
        while not watching.stdout.readline().startswith("seen"):
            assert watching.poll() is None
        watching.kill()
    kubectl("delete", "deployment", "web")
    assert "not found" in kubectl.fails("get", "deployment", "web")


def test_custom_kinds_with_odd_plurals_are_served_offline(open_site: SplitSite) -> None:
    kubectl = open_site.on_edge()
    kubectl("apply", "-f", "-", stdin=CUSTOM)
    kubectl("wait", "--for=condition=Established", "crd/gateways.example.org")
    kubectl("apply", "-f", "-", stdin=GATEWAY)
    assert kubectl.json("get", "gateways", "front")["spec"] == {"a": 1}
    assert [one["metadata"]["name"] for one in kubectl.json("get", "gateways")["items"]] == ["front"]
    open_site.cut()
    try:
        assert kubectl.json("get", "gateways", "front")["spec"] == {"a": 1}
        done = kubectl.run("get", "gateways", "-v", "0")
        assert "front" in done.stdout
        assert "Warning: node edge-1 is offline" in done.stderr
        head, row = rows_of(done.stdout)
        assert (head, row[:2]) == (["NAME", "SPEC-A", "AGE"], ["front", "1"])
        with kubectl.background("get", "gateways", "-w") as watching:
            assert watching.stdout is not None
            shown = [watching.stdout.readline().split() for _ in range(2)]
            watching.kill()
        assert shown[1][:2] == ["front", "1"]
        assert "node edge-1 is offline" in kubectl.fails("delete", "gateway", "front")
    finally:
        open_site.heal()


def test_an_informer_sees_each_change_once_over_a_cut(open_site: SplitSite) -> None:
    admin = open_site.kubectl()
    admin("create", "configmap", "counted", "--from-literal=n=0")
    program = open_site.start_on_edge("metaserver_informer.py", f"http://{META}")
    try:
        seen: list[str] = []
        assert program.stdout is not None

        def reads(line: str) -> None:
            while line not in seen:
                got = program.stdout.readline()  # type: ignore[union-attr]
                assert got, seen
                seen.append(got.strip())

        reads("ADDED counted 0")
        set_to(admin, 1)
        reads("MODIFIED counted 1")
        open_site.cut()
        for n in (2, 3, 4):
            set_to(admin, n)
        admin("create", "configmap", "meanwhile", "--from-literal=n=9")
        open_site.heal()
        reads("ADDED meanwhile 9")
        counted = [line for line in seen if " counted " in line]
        assert counted == ["ADDED counted 0", *(f"MODIFIED counted {n}" for n in (1, 2, 3, 4))]
    finally:
        program.kill()
        program.communicate()
        admin("delete", "configmap", "counted", "meanwhile")


def set_to(kubectl: Kubectl, n: int) -> None:
    kubectl("patch", "configmap", "counted", "--type=merge", "-p", json.dumps({"data": {"n": str(n)}}))


# -- tokens

ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: worker, namespace: default}
rules:
  - {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create, patch, delete]}
"""
READS = ("get", "list", "watch")
WRITES = ("create", "patch", "delete")


def tokens_of(site: SplitSite) -> dict[str, str]:
    kubectl = site.kubectl()
    kubectl("create", "configmap", "seen", "--from-literal=n=1")
    kubectl("apply", "-f", "-", stdin=ROLE)
    for account in ("worker", "nobody", "removed"):
        kubectl("create", "serviceaccount", account)
    for account in ("worker", "removed"):
        kubectl("create", "rolebinding", account, "--role=worker", f"--serviceaccount=default:{account}")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gone"}}
    pod["spec"] = {
        "serviceAccountName": "worker",
        "nodeSelector": {"no": "where"},
        "containers": [{"name": "a", "image": "a"}],
    }
    kubectl("create", "-f", "-", stdin=json.dumps(pod))
    good = kubectl("create", "token", "worker").strip()
    made = {
        "worker": good,
        "without rights": kubectl("create", "token", "nobody").strip(),
        "none": "",
        "garbage": "abc",
        "forged": good[:-8] + "AAAAAAAA",
        "expired": resigned(site, good, exp=int(time.time()) - 60, iat=int(time.time()) - 3600, nbf=0),
        "other audience": kubectl("create", "token", "worker", "--audience=vault").strip(),
        "account deleted": kubectl("create", "token", "removed").strip(),
        "pod deleted": kubectl(
            "create", "token", "worker", "--bound-object-kind=Pod", "--bound-object-name=gone"
        ).strip(),
    }
    kubectl("delete", "serviceaccount", "removed")
    kubectl("delete", "pod", "gone", "--grace-period=0", "--force")
    return made


def resigned(site: SplitSite, token: str, **claims: int) -> str:
    key = (
        (site.cloud_data / "cloud" / "pki" / "sa.key")
        if (site.cloud_data / "cloud").exists()
        else site.cloud_data / "pki" / "sa.key"
    )
    header = jwt.get_unverified_header(token)
    known = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(
        {**known, **claims}, key.read_bytes(), algorithm=header["alg"], headers={"kid": header.get("kid")}
    )


IN_CLUSTER = """
from kubernetes import client, config
config.load_incluster_config()
host = client.Configuration.get_default_copy().host
found = client.CoreV1Api().list_namespaced_config_map("default")
print("in cluster", host, [one.metadata.name for one in found.items], flush=True)
"""


def check_dummy(site: SplitSite, token: str) -> None:
    """The address that pods are told is served, too: of the dummy interface, or of lo."""
    assert DUMMY in ip_says(site)
    ca = str(next(site.cloud_data.rglob("pki/ca.crt")))
    words = ("--server", f"https://{DUMMY}:10550", "--certificate-authority", ca, "--token", token)
    kubectl = site.on_edge("1.32", *words)
    assert "seen" in eventually(lambda: kubectl.run("get", "configmaps", "-o", "name").stdout, "its answer")


def ip_says(site: SplitSite) -> str:
    command = ["ip", "-n", site.spaces["edge"], "address", "show"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def check_pod(site: SplitSite) -> None:
    """An in-cluster client in a pod needs no change: host, CA and token lead to the node's MetaServer."""
    kubectl = site.kubectl()
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"}}
    container = {"name": "main", "image": "host", "command": [sys.executable, "-c", IN_CLUSTER]}
    pod["spec"] = {
        "serviceAccountName": "worker",
        "nodeName": "edge-1",
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    kubectl("create", "-f", "-", stdin=json.dumps(pod))
    told = eventually(
        lambda: (text := kubectl("logs", "client")).startswith("in cluster") and text, "the pod's word", 60
    )
    assert f"https://{META}" in told
    assert "'seen'" in told
    ca = str(next(site.cloud_data.rglob("pki/ca.crt")))
    token = kubectl("create", "token", "worker").strip()
    words = ("--server", f"https://{META}", "--certificate-authority", ca, "--token", token)
    assert "seen" in site.on_edge("1.32", *words)("get", "configmaps", "-o", "wide")


def matrix(site: SplitSite, tokens: dict[str, str], word: str) -> dict[str, dict[str, int]]:
    ca = next(site.cloud_data.rglob("pki/ca.crt"))
    path = site.folder / "tokens.json"
    path.write_text(json.dumps(tokens))
    done = site.run_on_edge("metaserver_matrix.py", str(ca), str(path), word)
    assert done.returncode == 0, done.stderr
    rows: dict[str, dict[str, int]] = json.loads(done.stdout)
    return rows


def shown(title: str, rows: dict[str, dict[str, int]]) -> str:
    head = next(iter(rows.values()))
    lines = [f"{title:<28}" + "".join(f"{verb:>9}" for verb in head)]
    lines += [f"  {kind:<26}" + "".join(f"{code:>9}" for code in codes.values()) for kind, codes in rows.items()]
    return "\n".join(lines)


def test_the_matrix_of_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with split_site(tmp_path, gate=True, podServer=META) as site:
        tokens = tokens_of(site)
        check_pod(site)
        check_dummy(site, tokens["worker"])
        eventually(lambda: matrix(site, {"none": ""}, "up")["none"]["get"] == 401, "MetaServer serves")
        online = matrix(site, tokens, "on")
        site.cut()
        offline = matrix(site, tokens, "off")
        site.heal()
        # No interface has a name as long as this one: the address is put on lo, and taken from there in the end.
        site.start_edge(offlineTokenMinutes="10", dummyInterface="edge-dummy0-of-too-long-a-name")
        check_dummy(site, tokens["worker"])
        assert "is put on lo" in (site.folder / "edge.log").read_text()
        eventually(lambda: matrix(site, {"w": tokens["worker"]}, "again")["w"]["list"] == 200, "it serves again")
        matrix(site, tokens, "warm")
        site.cut()
        trusted = matrix(site, tokens, "kept")
        assert site.edge is not None
        assert site.edge.stop() == 0
        assert not [one for one in (DUMMY, "edge-dummy0") if one in ip_says(site)]
        with capsys.disabled():
            for title, rows in (("online", online), ("offline", offline), ("offline, 10 minutes", trusted)):
                print("\n" + shown(title, rows))
    check_online(online)
    for codes in offline.values():
        assert set(codes.values()) <= {401, 503}, "nothing is served offline by default"
    assert {trusted["worker"][verb] for verb in READS} == {200}
    assert {trusted["worker"][verb] for verb in WRITES} == {503}
    for kind, codes in trusted.items():
        if kind != "worker":
            assert set(codes.values()) <= {401, 403, 503}, kind


def check_online(rows: dict[str, dict[str, Any]]) -> None:
    assert {rows["worker"][verb] for verb in (*READS, "patch", "delete")} == {200}
    assert rows["worker"]["create"] == 201
    assert rows["worker"]["secrets"] == 403
    assert set(rows["without rights"].values()) == {403}
    for kind in ("none", "garbage", "forged", "expired", "other audience", "account deleted", "pod deleted"):
        assert set(rows[kind].values()) == {401}, kind
