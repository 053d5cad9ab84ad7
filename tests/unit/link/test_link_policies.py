"""What a service account holds, put together in the cloud and read at the edge: both sides decide alike."""

from __future__ import annotations

from typing import Any

import pytest

from edgesite.cloud.policycontroller.rights import concerns, spec_of
from edgesite.edge.access.local import decide
from edgesite.kube.rbac import Attributes

ROBOT = "system:serviceaccount:here:robot"
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:here", "system:authenticated")
ACCOUNT = {"metadata": {"name": "robot", "namespace": "here", "uid": "u1"}}
RULES = {
    ("here", "reader"): [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
    ("", "reader"): [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}],
}


def binding(namespace: str, kind: str, *subjects: dict[str, Any], role: str = "reader") -> dict[str, Any]:
    metadata = {"name": "b", "namespace": namespace, "uid": "x", "resourceVersion": "7", "labels": {"a": "b"}}
    return {"metadata": metadata, "roleRef": {"kind": kind, "name": role}, "subjects": list(subjects)}


@pytest.mark.parametrize(
    ("namespace", "subject", "wanted"),
    [
        ("", {"kind": "ServiceAccount", "name": "robot", "namespace": "here"}, True),
        ("here", {"kind": "ServiceAccount", "name": "robot"}, True),
        ("there", {"kind": "ServiceAccount", "name": "robot"}, False),
        ("", {"kind": "ServiceAccount", "name": "other", "namespace": "here"}, False),
        ("", {"kind": "Group", "name": "system:serviceaccounts:here"}, True),
        ("", {"kind": "Group", "name": "system:serviceaccounts:there"}, False),
        ("", {"kind": "Group", "name": "system:authenticated"}, True),
        ("", {"kind": "User", "name": ROBOT}, True),
        ("", {"kind": "User", "name": "robot"}, False),
    ],
)
def test_which_bindings_concern_an_account(namespace: str, subject: dict[str, Any], wanted: bool) -> None:
    assert concerns(binding(namespace, "ClusterRole", subject), "here", "robot") is wanted


def access(bindings: list[dict[str, Any]], cluster: list[dict[str, Any]]) -> dict[str, Any]:
    return {"spec": spec_of(ACCOUNT, bindings, cluster, lambda namespace, name: RULES.get((namespace, name)))}


def may(obj: dict[str, Any], verb: str, namespace: str, uid: str = "u1") -> bool | None:
    found = decide(obj, ROBOT, uid, GROUPS, Attributes(verb, resource="pods", namespace=namespace, name="p"))
    return None if found is None else found.allowed


def test_the_edge_decides_as_the_cloud_would() -> None:
    me = {"kind": "ServiceAccount", "name": "robot", "namespace": "here"}
    obj = access(
        [binding("here", "Role", me), binding("there", "ClusterRole", me), binding("there", "Role", me, role="none")],
        [binding("", "ClusterRole", {"kind": "Group", "name": "strangers"})],
    )
    assert len(obj["spec"]["accessRoleBinding"]) == 2
    assert obj["spec"]["accessClusterRoleBinding"] == []
    assert obj["spec"]["accessRoleBinding"][0]["roleBinding"]["metadata"] == {
        "name": "b",
        "namespace": "here",
        "uid": "x",
    }
    assert (may(obj, "get", "here"), may(obj, "list", "here")) == (True, False)
    assert (may(obj, "get", "there"), may(obj, "list", "there")) == (False, True)
    assert may(obj, "get", "here", uid="of another") is None
    everywhere = access([], [binding("", "ClusterRole", {"kind": "Group", "name": "system:authenticated"})])
    assert may(everywhere, "list", "anywhere") is True


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"accessRoleBinding": [{}]},
        {"accessRoleBinding": [{"roleBinding": {"roleRef": {"kind": "Role", "name": "x"}}, "rules": "x"}]},
        {"accessClusterRoleBinding": [{"clusterRoleBinding": {"roleRef": {"kind": "ClusterRole", "name": "x"}}}]},
    ],
)
def test_what_makes_no_sense_allows_nothing(spec: dict[str, Any]) -> None:
    assert may({"spec": spec}, "get", "here") is False
