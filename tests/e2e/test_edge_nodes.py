"""Several edge roles in one process: each a node of its own, and the scheduler's choices among them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from e2e_site import Kubectl, Site, eventually

NODES = {"node1", "node1-2", "node1-3"}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with closing(Site(tmp_path_factory.mktemp("three"), "--edge-nodes", "3")) as site:
        said = site.start()
        assert "nodes node1, node1-2, node1-3 Ready after" in said
        yield site


@pytest.fixture
def kube(three: Site, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own."""
    kubectl = three.kubectl()
    name = request.node.name.replace("_", "-")[:50].rstrip("-")
    kubectl("create", "namespace", name)
    yield kubectl.within(name)
    kubectl("delete", "namespace", name)


def deployment(name: str, replicas: int, **spec: Any) -> str:
    labels = {"app": name}
    container = {"name": "main", "image": "host", "command": ["sleep", "1000"]}
    template = {
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }
    whole = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": whole})


def run(kube: Kubectl, name: str, replicas: int, **spec: Any) -> list[str]:
    """Make a deployment and return the nodes of its pods."""
    kube("apply", "-f", "-", stdin=deployment(name, replicas, **spec))
    kube("rollout", "status", f"deployment/{name}", "--timeout=100s")
    return nodes(kube, name)


def nodes(kube: Kubectl, name: str) -> list[str]:
    items = kube.json("get", "pods", "-l", f"app={name}")["items"]
    return sorted(one["spec"].get("nodeName", "") for one in items if "deletionTimestamp" not in one["metadata"])


def test_three_nodes_are_ready(kube: Kubectl) -> None:
    found = {one["metadata"]["name"]: one for one in kube.json("get", "nodes")["items"]}
    assert set(found) == NODES
    for name, node in found.items():
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == name
        assert {one["type"]: one["status"] for one in node["status"]["conditions"]}["Ready"] == "True"


def test_all_nodes_share_one_inotify_instance(three: Site) -> None:
    """Hosts allow each user 128, and containerd needs some of them."""
    assert three.program is not None
    files = [os.readlink(one) for one in Path(f"/proc/{three.program.process.pid}/fd").iterdir()]
    assert files.count("anon_inode:inotify") == 1


def test_pods_are_spread(kube: Kubectl) -> None:
    assert run(kube, "spread", 6) == sorted([*NODES, *NODES])


def test_node_selector(kube: Kubectl) -> None:
    kube("label", "node", "node1-3", "disk=fast")
    try:
        assert run(kube, "choosy", 3, nodeSelector={"disk": "fast"}) == ["node1-3"] * 3
    finally:
        kube("label", "node", "node1-3", "disk-")


def test_taints_and_tolerations(kube: Kubectl) -> None:
    kube("taint", "node", "node1", "node1-2", "own=x:NoSchedule")
    try:
        assert run(kube, "shy", 3) == ["node1-3"] * 3
        toleration = {"key": "own", "operator": "Equal", "value": "x", "effect": "NoSchedule"}
        assert set(run(kube, "bold", 6, tolerations=[toleration])) == NODES
        kube("taint", "node", "node1-3", "out=now:NoExecute")
        eventually(lambda: set(nodes(kube, "shy")) == {""}, "eviction by the taint")
    finally:
        kube("taint", "node", "node1", "node1-2", "own-")
        kube.run("taint", "node", "node1-3", "out-")


def test_affinity(kube: Kubectl) -> None:
    apart = {"labelSelector": {"matchLabels": {"app": "apart"}}, "topologyKey": "kubernetes.io/hostname"}
    anti = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
    assert run(kube, "apart", 3, affinity=anti) == sorted(NODES)
    wanted = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1-2"]}]}
    near = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [wanted]}}}
    assert run(kube, "near", 2, affinity=near) == ["node1-2"] * 2
    beside = {"labelSelector": {"matchLabels": {"app": "near"}}, "topologyKey": "kubernetes.io/hostname"}
    with_it = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}}
    assert run(kube, "with", 2, affinity=with_it) == ["node1-2"] * 2


def test_resources_are_counted(kube: Kubectl) -> None:
    cpus = int(kube("get", "node", "node1", "-o", "jsonpath={.status.allocatable.cpu}"))
    container = {"name": "main", "image": "host", "command": ["sleep", "1000"]}
    big = [{**container, "resources": {"requests": {"cpu": str(cpus * 0.6)}}}]
    kube("apply", "-f", "-", stdin=deployment("big", 4, containers=big))
    eventually(lambda: nodes(kube, "big") == ["", *sorted(NODES)], "one pod too many stays pending")
    eventually(lambda: "Insufficient cpu" in kube("get", "events"), "an event that says why")


def test_a_node_is_drained(kube: Kubectl) -> None:
    run(kube, "moved", 6)
    try:
        kube("drain", "node1-2", "--force", "--ignore-daemonsets", "--pod-selector=app=moved", "--timeout=100s")
        kube("rollout", "status", "deployment/moved", "--timeout=100s")
        eventually(lambda: len(found := nodes(kube, "moved")) == 6 and set(found) == {"node1", "node1-3"}, "a move")
    finally:
        kube("uncordon", "node1-2")


def test_logs_come_from_each_node(kube: Kubectl) -> None:
    container = {"name": "main", "image": "host", "command": ["sh", "-c", "echo $NODE; sleep 1000 & wait"]}
    container["env"] = [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]  # type: ignore[assignment]
    spread = {"labelSelector": {"matchLabels": {"app": "says"}}, "topologyKey": "kubernetes.io/hostname"}
    anti = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [spread]}}
    run(kube, "says", 3, containers=[container], affinity=anti)
    eventually(lambda: set(kube("logs", "-l", "app=says").split()) == NODES, "a line from each node")
