"""kubectl logs, with every flag that users know, through the API server, the tunnel and the kubelet API of the node."""

from __future__ import annotations

import json

from e2e_site import Kubectl, eventually

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "talk"},
    "spec": {
        "containers": [
            {
                "name": "count",
                "image": "host",
                "command": ["sh", "-c", "n=0; while n=$((n+1)); do echo line $n; sleep 0.2; done"],
            },
            {"name": "dies", "image": "host", "command": ["sh", "-c", "echo last words; exit 3"]},
        ],
        "terminationGracePeriodSeconds": 1,
    },
}


def started(kubectl: Kubectl, namespace: str) -> None:
    kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(POD))
    eventually(
        lambda: len(kubectl("-n", namespace, "logs", "talk", "-c", "count").splitlines()) >= 5, "lines of the log"
    )


def test_logs_with_their_flags(kubectl: Kubectl, namespace: str) -> None:
    started(kubectl, namespace)
    logs = ("-n", namespace, "logs", "talk")
    lines = kubectl(*logs, "-c", "count").splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]
    (last,) = kubectl(*logs, "-c", "count", "--tail=1").splitlines()
    assert last.startswith("line ")
    assert kubectl(*logs, "-c", "count", "--tail=0") == ""
    stamp, _, text = kubectl(*logs, "-c", "count", "--timestamps").splitlines()[0].partition(" ")
    assert text == "line 1"
    assert stamp.endswith("Z")
    assert kubectl(*logs, "-c", "count", "--limit-bytes=10") == "line 1\nlin"
    assert "line 1\n" in kubectl(*logs, "-c", "count", "--since=1h")
    assert "line 1\n" in kubectl(*logs, "-c", "count", f"--since-time={stamp}")
    assert "line 1\n" not in kubectl(*logs, "-c", "count", "--since-time=2100-01-01T00:00:00Z")
    eventually(lambda: kubectl(*logs, "-c", "dies", "--previous") == "last words\n", "the log of the attempt before")


def test_following_shows_lines_as_they_come_and_ends_with_the_pod(kubectl: Kubectl, namespace: str) -> None:
    started(kubectl, namespace)
    follower = kubectl.background("-n", namespace, "logs", "-f", "talk", "-c", "count", "--tail=1")
    try:
        assert follower.stdout is not None
        first = int(follower.stdout.readline().split()[1])
        assert [int(follower.stdout.readline().split()[1]) for _ in range(3)] == [first + 1, first + 2, first + 3]
        kubectl("-n", namespace, "delete", "pod", "talk")
        rest, said = follower.communicate(timeout=60)
        assert follower.returncode == 0, said
        numbers = [int(line.split()[1]) for line in rest.splitlines()]
        assert numbers == list(range(first + 4, first + 4 + len(numbers)))
    finally:
        follower.kill()


def test_refusals_say_what_is_wrong(kubectl: Kubectl, namespace: str) -> None:
    started(kubectl, namespace)
    assert '"gone" not found' in kubectl.fails("-n", namespace, "logs", "gone")
    assert "is not valid for pod talk" in kubectl.fails("-n", namespace, "logs", "talk", "-c", "nope")
    assert 'previous terminated container "count" in pod "talk" not found' in kubectl.fails(
        "-n", namespace, "logs", "talk", "-c", "count", "--previous"
    )


def test_the_kubelet_api_is_reached_through_the_node_s_proxy(kubectl: Kubectl) -> None:
    node = kubectl.json("get", "nodes")["items"][0]["metadata"]["name"]
    healthz = f"/api/v1/nodes/{node}/proxy/healthz"
    assert eventually(lambda: kubectl("get", "--raw", healthz), "the node's tunnel") == "ok"
    assert json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/pods"))["kind"] == "PodList"
