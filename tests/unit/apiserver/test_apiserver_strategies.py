"""What kinds do to their objects, and the allocators of Services."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.apiserver import metadata
from edgesite.apiserver.strategies.pods import PodStrategy, bind, qos_class
from edgesite.apiserver.strategies.services import Addresses, Ports
from edgesite.kube.errors import ApiError


def container(**resources: dict[str, str]) -> dict[str, Any]:
    return {"containers": [{"name": "c", "resources": resources}]}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"containers": [{"name": "c"}]}, "BestEffort"),
        (container(limits={"cpu": "1", "memory": "1Gi"}), "Guaranteed"),
        (container(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "1000m", "memory": "1Gi"}), "Guaranteed"),
        (container(limits={"cpu": "1", "memory": "1Gi"}, requests={"cpu": "500m"}), "Burstable"),
        (container(requests={"cpu": "500m"}), "Burstable"),
        (container(requests={"ephemeral-storage": "1Gi"}), "BestEffort"),
        (container(requests={"cpu": "nonsense"}), "BestEffort"),
    ],
)
def test_qos_class(spec: dict[str, Any], wanted: str) -> None:
    assert qos_class(spec) == wanted


@pytest.mark.parametrize(
    ("pod", "asked", "grace"),
    [
        ({"spec": {"nodeName": "n"}}, None, 30),
        ({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}}, None, 5),
        ({"spec": {"nodeName": "n"}}, 0, 0),
        ({"spec": {"nodeName": "n"}}, -5, 1),
        ({"spec": {}}, 30, 0),
        ({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}}, 30, 0),
    ],
)
def test_grace_of_pods(pod: dict[str, Any], asked: int | None, grace: int) -> None:
    assert PodStrategy().grace_s(None, pod, asked) == grace  # type: ignore[arg-type]


def test_gated_pods_are_not_bound() -> None:
    pod = {"metadata": {"name": "p", "uid": "u"}, "spec": {"schedulingGates": [{"name": "g"}]}}
    with pytest.raises(ApiError, match="non-empty"):
        bind(pod, {"target": {"name": "n"}}, 0.0)


def test_addresses_are_given_once() -> None:
    addresses, rng = Addresses("10.0.0.0/28"), random.Random(1)
    given = {addresses.next(rng) for _ in range(14)}
    assert given == {f"10.0.0.{last}" for last in range(1, 15)}
    with pytest.raises(ApiError, match="range is full"):
        addresses.next(rng)
    addresses.give_back("10.0.0.7")
    assert addresses.next(rng) == "10.0.0.7"
    assert "not in the valid range" in (addresses.take("10.1.0.1") or "")
    assert "not in the valid range" in (addresses.take("10.0.0.0") or "")
    assert addresses.take("nonsense") == "must be a valid IP address"


def test_the_lower_addresses_are_kept_for_those_who_choose() -> None:
    addresses, rng = Addresses("10.96.0.0/16"), random.Random(1)
    for _ in range(100):
        assert int(addresses.next(rng).split(".")[2]) >= 1


@given(st.lists(st.integers(30000, 30010), max_size=30))
def test_ports_are_taken_once(wanted: list[int]) -> None:
    ports, held = Ports(30000, 30010), set()
    for port in wanted:
        assert (ports.take(port) is None) == (port not in held)
        held.add(port)
    rng = random.Random(1)
    for _ in range(11 - len(held)):
        port = ports.next(rng)
        assert port not in held
        held.add(port)
    with pytest.raises(ApiError):
        ports.next(rng)


@pytest.mark.parametrize(
    ("asked", "finalizers", "kept"),
    [
        ("", [], []),
        ("", ["orphan"], ["orphan"]),
        ("Background", ["orphan", "x/y"], ["x/y"]),
        ("Orphan", ["foregroundDeletion"], ["orphan"]),
        ("Foreground", ["x/y"], ["x/y", "foregroundDeletion"]),
    ],
)
def test_propagation(asked: str, finalizers: list[str], kept: list[str]) -> None:
    assert metadata.owner_policy(asked, finalizers) == kept


@given(st.integers())
def test_identity_is_a_random_uuid(seed: int) -> None:
    made: dict[str, Any] = {"generateName": "x-", "uid": "mine", "resourceVersion": "5", "generation": 7}
    metadata.identify(made, now_s=0.0, rng=random.Random(seed), generation=False)
    assert uuid.UUID(made["uid"]).version == 4
    assert str(uuid.UUID(made["uid"])) == made["uid"]
    assert made["creationTimestamp"] == "1970-01-01T00:00:00Z"
    assert "generation" not in made
    assert "resourceVersion" not in made
