"""What caches keep of nodes: the same to who reads it, and once in memory what is equal."""

from __future__ import annotations

import copy
from typing import Any

from edgesite.client.transforms import NodeTransform, transform_of, without_managed_fields
from edgesite.kube import json
from edgesite.kube.resources import LEASES, NODES, PODS


def _node(name: str, **status: Any) -> dict[str, Any]:
    node = {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}, "managedFields": [{}]},
        "status": {
            "capacity": {"cpu": "4", "pods": "110"},
            "nodeInfo": {"architecture": "amd64", "kernelVersion": "6.1.0"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            **status,
        },
    }
    fresh: dict[str, Any] = json.loads(json.dumps(node))
    return fresh


def test_nodes_read_as_before_but_for_managed_fields() -> None:
    node = _node("a", addresses=[{"type": "Hostname", "address": "a"}])
    wanted = copy.deepcopy(node)
    del wanted["metadata"]["managedFields"]
    assert NodeTransform()(node) == wanted


def test_equal_parts_of_nodes_are_one() -> None:
    transform = NodeTransform()
    one, two = transform(_node("a")), transform(_node("b"))
    assert one["status"]["capacity"] is two["status"]["capacity"]
    assert one["status"]["nodeInfo"] is two["status"]["nodeInfo"]
    assert one["status"]["conditions"][0]["reason"] is two["status"]["conditions"][0]["reason"]
    other = transform(_node("c", capacity={"cpu": "8", "pods": "110"}))
    assert other["status"]["capacity"] == {"cpu": "8", "pods": "110"}


def test_nodes_of_any_shape_pass() -> None:
    transform = NodeTransform()
    for status in ({"capacity": {"cpu": ["odd"]}}, {"capacity": None}, {"conditions": [None, {"type": 3}]}, {}):
        node = _node("a", **status)
        assert transform(node)["status"]["nodeInfo"] == {"architecture": "amd64", "kernelVersion": "6.1.0"}
    assert transform({"metadata": {"name": "bare"}}) == {"metadata": {"name": "bare"}}


def test_what_is_remembered_is_bounded_and_stays_right() -> None:
    transform = NodeTransform()
    for at in range(3000):
        assert transform(_node("a", capacity={"cpu": str(at)}))["status"]["capacity"] == {"cpu": str(at)}
    assert len(transform._parts) <= 1024


def test_only_nodes_have_a_transform_of_their_own() -> None:
    assert isinstance(transform_of(NODES), NodeTransform)
    assert transform_of(PODS) is without_managed_fields


def test_leases_keep_what_tells_that_a_node_lives_and_their_holders_name_once() -> None:
    lease = json.loads(
        b'{"metadata":{"name":"a","uid":"u","resourceVersion":"7","creationTimestamp":"2026-01-01T00:00:00Z"},'
        b'"spec":{"holderIdentity":"a","renewTime":"2026-01-01T00:00:01.000000Z"}}'
    )
    kept = transform_of(LEASES)(lease)
    assert kept["metadata"] == {"name": "a", "uid": "u", "resourceVersion": "7"}
    assert kept["spec"] == {"holderIdentity": "a", "renewTime": "2026-01-01T00:00:01.000000Z"}
    assert kept["spec"]["holderIdentity"] is kept["metadata"]["name"]
    assert transform_of(LEASES)({"metadata": {"name": "b"}, "spec": None}) == {"metadata": {"name": "b"}, "spec": None}
