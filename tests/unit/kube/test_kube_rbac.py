"""Decisions by roles and bindings, held against a plain reading of the rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesite.kube.rbac import (
    Attributes,
    Index,
    InvalidRules,
    Role,
    account_name,
    compact,
    described,
    singles,
    split_account,
    uncovered,
)

Rule = dict[str, Any]


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Rule:
    made: Rule = {
        "verbs": verbs.split(),
        "apiGroups": groups.split(",") if groups else [""],
        "resources": resources.split(),
    }
    return {**made, "resourceNames": names.split()} if names else made


def wants(verb: str, resource: str, name: str = "", group: str = "", namespace: str = "") -> Attributes:
    plural, _, sub = resource.partition("/")
    return Attributes(verb, group=group, resource=plural, subresource=sub, name=name, namespace=namespace)


@pytest.mark.parametrize(
    ("given", "wanted", "allowed"),
    [
        (rule("get", "", "pods"), wants("get", "pods", "a"), True),
        (rule("get", "", "pods"), wants("list", "pods"), False),
        (rule("get", "", "pods"), wants("get", "pods/log", "a"), False),
        (rule("get", "", "pods/log"), wants("get", "pods/log", "a"), True),
        (rule("get", "", "pods/log"), wants("get", "pods", "a"), False),
        (rule("get", "", "*"), wants("get", "pods/log", "a"), True),
        (rule("get", "", "*"), wants("get", "deployments", "a", "apps"), False),
        (rule("get", "*", "*/scale"), wants("get", "deployments/scale", "a", "apps"), True),
        (rule("get", "*", "*/scale"), wants("get", "deployments", "a", "apps"), False),
        (rule("get", "", "pods/*"), wants("get", "pods/log", "a"), False),
        (rule("*", "*", "*"), wants("anything", "things", "a", "example.org"), True),
        (rule("get update", "", "configmaps", "a b"), wants("get", "configmaps", "b"), True),
        (rule("get update", "", "configmaps", "a b"), wants("get", "configmaps", "c"), False),
        (rule("list", "", "configmaps", "a"), wants("list", "configmaps"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, Attributes("get", "/api/v1"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, Attributes("get", "/api"), False),
        ({"verbs": ["get"], "nonResourceURLs": ["/version"]}, Attributes("get", "/version"), True),
        ({"verbs": ["get"], "nonResourceURLs": ["/version"]}, Attributes("post", "/version"), False),
        ({"verbs": ["*"], "nonResourceURLs": ["*"]}, Attributes("post", "/x"), True),
        (rule("*", "*", "*"), Attributes("get", "/version"), False),
        ({"verbs": ["*"], "nonResourceURLs": ["*"]}, wants("get", "pods"), False),
    ],
)
def test_one_rule(given: Rule, wanted: Attributes, allowed: bool) -> None:
    assert Role([given]).allows(wanted) is allowed


def binding(role: str, *subjects: Rule, kind: str = "ClusterRole") -> Rule:
    return {"roleRef": {"kind": kind, "name": role}, "subjects": list(subjects)}


BOB = {"kind": "User", "name": "bob"}
DEV = {"kind": "Group", "name": "dev"}
ROBOT = {"kind": "ServiceAccount", "name": "robot"}


def test_bindings_reach_their_namespace() -> None:
    index = Index()
    index.set_role("", "view", [rule("get", "", "pods")])
    index.set_role("a", "edit", [rule("update", "", "pods")])
    index.set_binding("a", "one", binding("view", BOB, ROBOT))
    index.set_binding("a", "two", binding("edit", DEV, kind="Role"))
    index.set_binding("", "all", binding("view", DEV))
    get = "get"
    assert index.decide("bob", (), wants(get, "pods", "x", namespace="a")).allowed
    assert not index.decide("bob", (), wants(get, "pods", "x", namespace="b")).allowed
    assert not index.decide("bob", (), wants(get, "pods", "x")).allowed
    assert index.decide("eve", ("dev",), wants(get, "pods", "x", namespace="b")).allowed
    assert index.decide("eve", ("dev",), wants("update", "pods", "x", namespace="a")).allowed
    assert not index.decide("eve", ("dev",), wants("update", "pods", "x", namespace="b")).allowed
    assert not index.decide("dev", (), wants(get, "pods", "x", namespace="a")).allowed
    robot = account_name("a", "robot")
    verdict = index.decide(robot, (), wants(get, "pods", "x", namespace="a"))
    assert verdict.reason == ('RBAC: allowed by RoleBinding "one/a" of ClusterRole "view" to ServiceAccount "robot/a"')
    assert len(index.rules_of("eve", ("dev",), "a")) == 2
    assert len(index.rules_of("eve", ("dev",), "b")) == 1


def test_changes_take_effect() -> None:
    index = Index()
    wanted = wants("get", "pods", "x", namespace="a")
    index.set_binding("", "all", binding("later", BOB, BOB))
    missing = index.decide("bob", (), wanted)
    assert not missing.allowed
    assert missing.reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "later" not found'
    index.set_role("", "later", [rule("get", "", "pods")])
    assert index.decide("bob", (), wanted).allowed
    index.set_role("", "later", [rule("list", "", "pods")])
    assert not index.decide("bob", (), wanted).allowed
    index.set_role("", "later", [rule("get", "", "pods")])
    index.set_binding("", "all", binding("later", DEV))
    assert not index.decide("bob", (), wanted).allowed
    assert index.decide("eve", ("dev",), wanted).allowed
    index.set_binding("", "all", None)
    assert not index.decide("eve", ("dev",), wanted).allowed
    assert index._users == index._groups == index._subjects == {}


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"roleRef": {"kind": "Role", "name": "x"}},
        {"roleRef": {"kind": "Other", "name": "x"}},
        {"roleRef": "x"},
        {"roleRef": {"kind": "ClusterRole", "name": "x"}, "subjects": ["bob"]},
        {"roleRef": {"kind": "ClusterRole", "name": "x"}, "subjects": [{"kind": "Robot", "name": "x"}]},
    ],
)
def test_bindings_that_make_no_sense_give_nothing(bad: Rule) -> None:
    index = Index()
    index.set_role("", "view", [rule("get", "", "pods")])
    index.set_binding("", "b", binding("view", BOB))
    with pytest.raises(InvalidRules):
        index.set_binding("", "b", bad)
    assert not index.decide("bob", (), wants("get", "pods", "x")).allowed


def test_rules_that_make_no_sense_give_nothing() -> None:
    index = Index()
    index.set_role("", "bad", [{"verbs": "get", "apiGroups": [""], "resources": ["pods"]}])
    index.set_binding("", "b", binding("bad", BOB))
    assert not index.decide("bob", (), wants("get", "pods", "x")).allowed


def test_accounts() -> None:
    assert split_account("system:serviceaccount:a:b") == ("a", "b")
    for name in ("bob", "system:serviceaccount:a", "system:serviceaccount::b", "system:serviceaccount:a:b:c"):
        assert split_account(name) is None


def test_what_is_not_held() -> None:
    held = [rule("get list", "", "pods"), rule("*", "apps", "deployments"), rule("get", "", "secrets", "a")]
    assert uncovered(held, [rule("get", "", "pods", "x"), rule("update", "apps", "deployments")]) == []
    missing = uncovered(held, [rule("get watch delete", "", "pods"), rule("get", "", "secrets"), rule("*", "", "pods")])
    assert [described(one) for one in compact(missing)] == [
        '{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete" "*"]}',
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}',
    ]
    assert uncovered([rule("*", "*", "*")], [rule("*", "*", "*/scale"), rule("x", "a,b", "y z")]) == []
    assert (
        uncovered([{"verbs": ["get"], "nonResourceURLs": ["/a/*"]}], [{"verbs": ["get"], "nonResourceURLs": ["/a/b"]}])
        == []
    )
    assert uncovered([rule("*", "*", "*")], [{"verbs": ["get"], "nonResourceURLs": ["/a"]}]) != []


VERBS, GROUPS = ("get", "list", "update", "*"), ("", "apps", "*")
RESOURCES = ("pods", "pods/log", "deployments", "deployments/scale", "*/scale", "*")
RULES = st.lists(
    st.builds(
        lambda verbs, groups, resources, names: {
            "verbs": verbs,
            "apiGroups": groups,
            "resources": resources,
            **({"resourceNames": names} if names else {}),
        },
        st.lists(st.sampled_from(VERBS), min_size=1, max_size=3),
        st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2),
        st.lists(st.sampled_from(RESOURCES), min_size=1, max_size=3),
        st.lists(st.sampled_from(("a", "b")), max_size=2),
    ),
    max_size=4,
)
WANTED = st.builds(
    wants,
    st.sampled_from(VERBS[:3]),
    st.sampled_from(("pods", "pods/log", "deployments", "deployments/scale")),
    st.sampled_from(("", "a", "c")),
    st.sampled_from(GROUPS[:2]),
)


def plainly(rules: list[Rule], wanted: Attributes) -> bool:
    full = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource

    def one(rule: Rule) -> bool:
        resources = rule["resources"]
        named = full in resources or "*" in resources or (wanted.subresource and f"*/{wanted.subresource}" in resources)
        names = rule.get("resourceNames")
        return bool(
            {wanted.verb, "*"} & set(rule["verbs"])
            and {wanted.group, "*"} & set(rule["apiGroups"])
            and named
            and (not names or wanted.name in names)
        )

    return any(one(rule) for rule in rules)


@given(RULES, WANTED)
def test_as_the_rules_read(rules: list[Rule], wanted: Attributes) -> None:
    assert Role(rules).allows(wanted) is plainly(rules, wanted)


@given(RULES, RULES, WANTED)
def test_nobody_gains_by_what_is_covered(held: list[Rule], granted: list[Rule], wanted: Attributes) -> None:
    missing = uncovered(held, granted)
    if not missing and Role(granted).allows(wanted):
        assert Role(held).allows(wanted)
    assert uncovered([*held, *missing], granted) == []
    assert uncovered(held, singles(granted)) == missing
