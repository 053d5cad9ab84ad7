"""The two roles as processes of their own, over TLS on loopback: joining, losing the cloud in every way, coming back."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jwt
import pytest
from e2e_roles import Cloud, Edge, ready
from e2e_site import Kubectl, eventually, supervisors_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("apart")


@pytest.fixture(scope="module")
def cloud(folder: Path) -> Iterator[Cloud]:
    with closing(Cloud(folder)) as made:
        made.start()
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def joined(stack: ExitStack, folder: Path, cloud: Cloud, node: str) -> Edge:
    edge = stack.enter_context(closing(Edge(folder, cloud, node)))
    edge.start(cloud.token())
    ready(cloud, node)
    return edge


def pod(node: str, name: str, script: str) -> str:
    container = {"name": "main", "image": "host", "command": ["sh", "-c", script]}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def status(kubectl: Kubectl, name: str) -> dict[str, Any]:
    (one,) = kubectl.json("get", "pod", name)["status"].get("containerStatuses") or [{}]
    return dict(one)


def run(kubectl: Kubectl, node: str, name: str, script: str) -> dict[str, Any]:
    kubectl("create", "-f", "-", stdin=pod(node, name, script))
    return dict(eventually(lambda: (one := status(kubectl, name)).get("ready") and one, f"pod {name} ready"))


def children(edge: Edge, marker: str) -> list[int]:
    return [pid for pid in edge.workload() if marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_two_edges_join_and_their_logs_come_through_the_tunnel(stack: ExitStack, folder: Path, cloud: Cloud) -> None:
    kubectl = cloud.kubectl()
    for node in ("a1", "a2"):
        joined(stack, folder, cloud, node)
    for node in ("a1", "a2"):
        run(kubectl, node, f"says-{node}", f"echo I am {node}; sleep 1000 & wait")
        # The tunnel comes up a moment after the node: until then logs are refused with that reason.
        eventually(lambda n=node: kubectl("logs", f"says-{n}") == f"I am {n}\n", f"the log of {node}")  # type: ignore[misc]
    follower = kubectl.background("logs", "-f", "says-a1")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "I am a1\n"
    kubectl("delete", "pod", "says-a1", "says-a2")
    _, said = follower.communicate(timeout=60)
    assert follower.returncode == 0, said


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_edge_goes_on_without_the_cloud(stack: ExitStack, folder: Path, cloud: Cloud, how: signal.Signals) -> None:
    node = f"b-{how.name.lower()}"
    edge, kubectl = joined(stack, folder, cloud, node), cloud.kubectl()
    stays, dies, goes = f"{node}-stays", f"{node}-dies", f"{node}-goes"
    before = run(kubectl, node, stays, f": {stays}; sleep 1000 & wait")
    run(kubectl, node, dies, f": {dies}; sleep 1000 & wait")
    cloud.end(how)
    try:
        (first,) = children(edge, dies)
        os.kill(first, signal.SIGKILL)
        eventually(lambda: children(edge, dies) not in ([], [first]), "a restart without the cloud")
        (running,) = children(edge, stays)
        assert edge.program is not None
        edge.program.kill()
        assert children(edge, stays) == [running]
        edge.start()
        assert children(edge, stays) == [running]
        assert edge.program.stop() == 0
    finally:
        cloud.start()
    edge.start()
    eventually(lambda: status(kubectl, dies).get("restartCount") == 1, "the restart is reported")
    after = status(kubectl, stays)
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    run(kubectl, node, goes, "sleep 1000 & wait")
    kubectl("delete", "pod", stays, dies, goes)
    eventually(lambda: not edge.workload(), "the end of all programs")


def test_pods_start_from_disk_and_deletions_arrive_later(stack: ExitStack, folder: Path, cloud: Cloud) -> None:
    edge, kubectl = joined(stack, folder, cloud, "c"), cloud.kubectl()
    run(kubectl, "c", "kept", ": kept; sleep 1000 & wait")
    run(kubectl, "c", "doomed", ": doomed; sleep 1000 & wait")
    assert edge.program is not None
    edge.program.kill()
    kubectl("delete", "pod", "doomed", "--wait=false")  # the edge is away and hears of it later
    cloud.end(signal.SIGKILL)
    for pid in [*supervisors_of(edge.data), *edge.workload()]:  # as after a reboot of the edge
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not edge.workload() and not supervisors_of(edge.data), "the end of all programs")
    try:
        edge.start()
        eventually(lambda: children(edge, "kept"), "a start from disk")
    finally:
        cloud.start()
    eventually(lambda: "NotFound" in kubectl.run("get", "pod", "doomed").stderr, "the deletion takes effect", 60)
    eventually(lambda: status(kubectl, "kept").get("ready"), "the pod is reported")
    assert not children(edge, "doomed")
    kubectl("delete", "pod", "kept")
    assert edge.program.stop() == 0


def signed_again(token: str, cloud: Cloud, expires: float) -> str:
    """The cloud's token with another end, signed with the key that only the cloud's operator can read."""
    secret = cloud.kubectl().json("-n", "kubeedge", "get", "secret", "casecret")["data"]
    key = base64.b64decode(secret["cakeydata"])
    return f"{token.partition('.')[0]}.{jwt.encode({'exp': expires}, key, algorithm='HS256')}"


def test_tokens_that_are_refused(stack: ExitStack, folder: Path, cloud: Cloud) -> None:
    token = cloud.token()
    ca, _, rest = token.partition(".")
    wrong = {
        "d-signature": (f"{token[:-6]}AAAAAA", "refused the token"),
        "d-hash": (f"{'0' * len(ca)}.{rest}", "not the one that the token names"),
        "d-expired": (signed_again(token, cloud, time.time() - 60), "refused the token"),
        "d-nonsense": ("nonsense", "no join token"),
        "d-none": ("", "no join token"),
    }
    for node, (given, reason) in wrong.items():
        edge = stack.enter_context(closing(Edge(folder, cloud, node)))
        edge.start(given)
        edge.said(reason)
        assert not list(edge.data.rglob("server.crt"))
        assert edge.program is not None
        assert edge.program.stop() == 0
    edge = stack.enter_context(closing(Edge(folder, cloud, "d-none")))
    edge.start(signed_again(token, cloud, time.time() + 600))  # the right token lets the same node in
    ready(cloud, "d-none")
    assert set(cloud.kubectl()("get", "nodes", "-o", "name").split()).isdisjoint(
        {f"node/{one}" for one in wrong} - {"node/d-none"}
    )


def test_an_edge_started_before_its_cloud_joins_once_there_is_one(stack: ExitStack, folder: Path, cloud: Cloud) -> None:
    token = cloud.token()
    cloud.end(signal.SIGTERM)
    edge = stack.enter_context(closing(Edge(folder, cloud, "early")))
    try:
        edge.start(token)
        edge.said("no connection to the cloud")
    finally:
        cloud.start()
    ready(cloud, "early")
