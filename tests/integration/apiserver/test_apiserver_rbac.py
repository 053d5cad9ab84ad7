"""RBAC over the API: default roles, bindings, escalation, impersonation, reviews."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from apiserver_site import Site, site_at
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edgesite.apiserver.authn import ANONYMOUS

pytestmark = pytest.mark.anyio
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CLUSTER_ROLES = f"{RBAC}/clusterroles"
ROLES = f"{RBAC}/namespaces/default/roles"
BINDINGS = f"{RBAC}/namespaces/default/rolebindings"
CLUSTER_BINDINGS = f"{RBAC}/clusterrolebindings"
PODS = "/api/v1/namespaces/default/pods"
REVIEWS = "/apis/authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"


def role(name: str, verbs: str, resources: str, group: str = "", **more: Any) -> dict[str, Any]:
    rule = {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), **more}
    return {"metadata": {"name": name}, "rules": [rule]}


def binding(name: str, role: str, user: str, kind: str = "ClusterRole") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}],
    }


async def test_a_binding_counts_at_once_and_till_its_end(site: Site) -> None:
    bob = site.as_user("bob")
    assert (await bob.get(PODS)).status == 403
    assert (await site.post(ROLES, role("reader", "get list", "pods"))).status == 201
    assert (await site.post(BINDINGS, binding("b", "reader", "bob", "Role"))).status == 201
    assert (await bob.get(PODS)).status == 200
    assert (await bob.get("/api/v1/namespaces/kube-system/pods")).status == 403
    assert (await bob.get("/api/v1/pods")).status == 403
    assert (await bob.post(PODS, {"metadata": {"name": "x"}})).status == 403
    assert (await site.patch(f"{ROLES}/reader", {"rules": []})).status == 200
    assert (await bob.get(PODS)).status == 403
    assert (await site.put(f"{ROLES}/reader", role("reader", "*", "*", "*"))).status == 200
    assert (await bob.get(PODS)).status == 200
    assert (await site.delete(f"{BINDINGS}/b")).status == 200
    refused = await bob.get(PODS)
    assert (refused.status, refused.obj["message"]) == (
        403,
        'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default"',
    )


async def test_a_named_object_may_be_listed_alone(site: Site) -> None:
    await site.post(ROLES, role("one", "get list watch", "configmaps", resourceNames=["mine"]))
    await site.post(BINDINGS, binding("b", "one", "bob", "Role"))
    bob, target = site.as_user("bob"), "/api/v1/namespaces/default/configmaps"
    assert (await bob.get(f"{target}?fieldSelector=metadata.name%3Dmine")).status == 200
    assert (await bob.get(f"{target}?fieldSelector=metadata.name%3Dother")).status == 403
    assert (await bob.get(f"{target}?fieldSelector=metadata.name%21%3Dmine")).status == 403
    assert (await bob.get(target)).status == 403
    assert (await bob.get(f"{target}/mine")).status == 404


async def test_a_binding_to_a_missing_role_says_so(site: Site) -> None:
    await site.post(BINDINGS, binding("b", "none", "bob", "Role"))
    message = (await site.as_user("bob").get(PODS)).obj["message"]
    assert message.endswith(': RBAC: role.rbac.authorization.k8s.io "none" not found')


async def test_default_roles_are_there_and_are_repaired(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        names = {one["metadata"]["name"] for one in (await site.get(CLUSTER_ROLES)).obj["items"]}
        assert {
            "cluster-admin",
            "admin",
            "edit",
            "view",
            "system:node",
            "system:discovery",
            "system:monitoring",
        } <= names
        basic = f"{CLUSTER_ROLES}/system:basic-user"
        extra = {"verbs": ["get"], "apiGroups": ["x"], "resources": ["y"]}
        rules = (await site.get(basic)).obj["rules"]
        await site.patch(basic, {"rules": [extra, rules[0]], "metadata": {"labels": None}})
        await site.delete(f"{CLUSTER_ROLES}/system:discovery")
        protected = {"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []}
        await site.patch(f"{CLUSTER_ROLES}/system:kube-dns", protected)
        subjects = [{"kind": "User", "apiGroup": GROUP, "name": "eve"}]
        await site.patch(f"{CLUSTER_BINDINGS}/system:discovery", {"subjects": subjects})
        await site.delete(f"{CLUSTER_BINDINGS}/system:basic-user")
        await site.post(CLUSTER_BINDINGS, binding("system:basic-user", "view", "eve"))
        assert (await site.as_user("bob").get("/api")).status == 403
    async with site_at(tmp_path) as site:
        found = (await site.get(basic)).obj
        assert found["rules"] == [extra, rules[0], *rules[1:]]
        assert found["metadata"]["labels"] == {"kubernetes.io/bootstrapping": "rbac-defaults"}
        assert (await site.get(f"{CLUSTER_ROLES}/system:kube-dns")).obj.get("rules") in (None, [])
        held = (await site.get(f"{CLUSTER_BINDINGS}/system:discovery")).obj["subjects"]
        assert [one["name"] for one in held] == ["eve", "system:authenticated"]
        assert (await site.get(f"{CLUSTER_BINDINGS}/system:basic-user")).obj["roleRef"]["name"] == "system:basic-user"
        assert (await site.as_user("bob").get("/api")).status == 200
        revision = site.store.revision
    async with site_at(tmp_path) as site:
        assert site.store.revision == revision  # a start that finds all well writes nothing


async def test_nobody_grants_more_than_they_hold(site: Site) -> None:
    await site.post(
        CLUSTER_ROLES, role("granter", "create patch", "roles rolebindings clusterroles clusterrolebindings", GROUP)
    )
    await site.post(CLUSTER_ROLES, role("reader", "get", "pods"))
    for name in ("granter", "reader"):
        await site.post(CLUSTER_BINDINGS, binding(name, name, "bob"))
    bob = site.as_user("bob", "dev")
    assert (await bob.post(ROLES, role("fine", "get", "pods"))).status == 201
    refused = await bob.post(ROLES, role("more", "get delete", "pods secrets"))
    assert (refused.status, refused.obj["message"]) == (
        403,
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "bob" (groups=["dev" "system:authenticated"]) is attempting '
        "to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}',
    )
    assert (await bob.patch(f"{ROLES}/fine", role("fine", "*", "pods"))).status == 403
    assert (await bob.post(BINDINGS, binding("a", "reader", "eve"))).status == 201
    assert (await bob.post(BINDINGS, binding("b", "cluster-admin", "bob"))).status == 403
    assert (await bob.post(CLUSTER_BINDINGS, binding("b", "cluster-admin", "bob"))).status == 403
    assert (await bob.post(BINDINGS, binding("c", "none", "bob"))).status == 404
    many = [str(number) for number in range(400)]
    huge = {"metadata": {"name": "huge"}, "rules": [{"verbs": many, "apiGroups": many, "resources": many}]}
    assert "cannot be checked" in (await bob.post(ROLES, huge)).obj["message"]
    aggregated = {
        "metadata": {"name": "agg"},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
    }
    refused = await bob.post(CLUSTER_ROLES, aggregated)
    assert (refused.status, "must have cluster-admin privileges" in refused.obj["message"]) == (403, True)
    assert (await site.post(CLUSTER_ROLES, aggregated)).status == 201
    await site.post(CLUSTER_ROLES, role("binder", "bind", "clusterroles", GROUP, resourceNames=["cluster-admin"]))
    await site.post(CLUSTER_BINDINGS, binding("binder", "binder", "bob"))
    assert (await bob.post(BINDINGS, binding("d", "cluster-admin", "eve"))).status == 201
    assert (await site.as_user("eve").get(PODS)).status == 200
    await site.post(CLUSTER_ROLES, role("escalator", "escalate", "roles", GROUP))
    await site.post(CLUSTER_BINDINGS, binding("escalator", "escalator", "bob"))
    assert (await bob.post(ROLES, role("more", "get delete", "pods secrets"))).status == 201


async def test_impersonation_needs_its_rights(site: Site) -> None:
    await site.post(CLUSTER_ROLES, role("as-dev", "impersonate", "groups", resourceNames=["dev"]))
    await site.post(CLUSTER_ROLES, role("as-eve", "impersonate", "users", resourceNames=["eve"]))
    await site.post(
        CLUSTER_ROLES,
        role("as-extra", "impersonate", "userextras/scopes", "authentication.k8s.io", resourceNames=["view"]),
    )
    for name in ("as-dev", "as-eve", "as-extra"):
        await site.post(CLUSTER_BINDINGS, binding(name, name, "bob"))
    bob, target = site.as_user("bob"), "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    eve = {"impersonate_user": "eve", "impersonate_group": "dev", "impersonate_extra_scopes": "view"}
    answer = await bob.post(target, {}, **eve)
    assert answer.obj["status"]["userInfo"] == {
        "username": "eve",
        "groups": ["dev", "system:authenticated"],
        "extra": {"scopes": ["view"]},
    }
    for change, what in (
        ({"impersonate_user": "root"}, 'resource "users"'),
        ({"impersonate_group": "system:masters"}, 'resource "groups"'),
        ({"impersonate_extra_scopes": "all"}, 'resource "userextras/scopes"'),
        ({"impersonate_uid": "7"}, 'resource "uids"'),
        ({"impersonate_user": "system:serviceaccount:a:b"}, 'resource "serviceaccounts"'),
    ):
        refused = await bob.post(target, {}, **{**eve, **change})
        assert (refused.status, f"cannot impersonate {what}" in refused.obj["message"]) == (403, True), refused.obj
    assert (await bob.post(target, {}, impersonate_extra_scopes="view")).status == 400


async def test_reviews_tell_of_roles(site: Site) -> None:
    await site.post(ROLES, role("reader", "get", "pods"))
    await site.post(BINDINGS, binding("b", "reader", "bob", "Role"))
    wanted = {"verb": "get", "resource": "pods", "namespace": "default"}
    asked = await site.post(f"{REVIEWS}/subjectaccessreviews", {"spec": {"user": "bob", "resourceAttributes": wanted}})
    assert asked.obj["status"] == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "b/default" of Role "reader" to User "bob"',
    }
    local = f"{REVIEWS}/namespaces/default/localsubjectaccessreviews"
    assert (await site.post(local, {"spec": {"user": "bob", "resourceAttributes": wanted}})).obj["status"]["allowed"]
    other = {**wanted, "namespace": "kube-system"}
    assert (await site.post(local, {"spec": {"user": "bob", "resourceAttributes": other}})).status == 422
    for target, spec, causes in (
        (f"{REVIEWS}/subjectaccessreviews", {}, ["spec.resourceAttributes", "spec.user"]),
        (f"{REVIEWS}/subjectaccessreviews", {"user": "a"}, ["spec.resourceAttributes"]),
        (local, {"user": "a", "nonResourceAttributes": {"path": "/"}}, ["spec.nonResourceAttributes"]),
        (
            f"{REVIEWS}/selfsubjectaccessreviews",
            {"resourceAttributes": {}, "nonResourceAttributes": {}},
            ["spec.nonResourceAttributes"],
        ),
    ):
        refused = await site.post(target, {"spec": spec})
        assert (refused.status, [one["field"] for one in refused.obj["details"]["causes"]]) == (422, causes)
    rules = await site.as_user("bob").post(f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
    status = rules.obj["status"]
    assert {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]} in status["resourceRules"]
    assert any("/api/*" in one["nonResourceURLs"] for one in status["nonResourceRules"])
    assert status["incomplete"] is False
    assert (await site.post(f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {}})).status == 400
    node = site.as_user("system:node:n1", "system:nodes")
    assert (await node.post(f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": "a"}})).obj["status"][
        "incomplete"
    ]


async def test_paths_that_need_no_resource(site: Site) -> None:
    anonymous = Site(site.made, site.store, site.clock, ANONYMOUS)
    account = site.as_user("system:serviceaccount:a:b", "system:serviceaccounts", "system:serviceaccounts:a")
    for path, nobody, anybody, accounts in (
        ("/version", 200, 200, 200),
        ("/apis", 403, 200, 200),
        ("/openid/v1/jwks", 403, 403, 200),
        ("/.well-known/openid-configuration", 403, 403, 200),
    ):
        found = [(await one.get(path)).status for one in (anonymous, site.as_user("bob"), account)]
        assert found == [nobody, anybody, accounts], path
    assert (await account.get(PODS)).status == 403


async def test_many_changes_between_two_decisions(site: Site) -> None:
    """More than a watch holds: the roles are read anew."""
    await site.post(ROLES, role("reader", "get list", "pods"))
    for number in range(2200):
        rules = [{"verbs": ["list" if number == 2199 else "get"], "apiGroups": [""], "resources": ["pods"]}]
        await site.patch(f"{ROLES}/reader", {"rules": rules})
    await site.post(BINDINGS, binding("b", "reader", "bob", "Role"))
    assert (await site.as_user("bob").get(PODS)).status == 200


async def test_approving_needs_the_right_to_the_signer(site: Site) -> None:
    target, signer = "/apis/certificates.k8s.io/v1/certificatesigningrequests", "kubernetes.io/kube-apiserver-client"
    await site.post(
        CLUSTER_ROLES,
        role(
            "csr",
            "create get update",
            "certificatesigningrequests certificatesigningrequests/approval certificatesigningrequests/status",
            "certificates.k8s.io",
        ),
    )
    await site.post(CLUSTER_BINDINGS, binding("csr", "csr", "bob"))
    bob = site.as_user("bob")

    def asked(*organizations: str) -> dict[str, Any]:
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
        builder = x509.CertificateSigningRequestBuilder()
        builder = builder.subject_name(x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, "jane")]))
        pem = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)
        spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": ["client auth"]}
        return {"metadata": {"name": "jane"}, "spec": spec}

    refused = await bob.post(target, asked("system:masters"))
    assert (refused.status, "system:masters group is not allowed" in refused.obj["message"]) == (403, True)
    made = (await bob.post(target, asked("dev"))).obj
    made["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "x", "message": "y"}]}
    refused = await bob.put(f"{target}/jane/approval", made)
    assert f'user not permitted to approve requests with signerName "{signer}"' in refused.obj["message"]
    await site.post(
        CLUSTER_ROLES, role("approver", "approve", "signers", "certificates.k8s.io", resourceNames=["kubernetes.io/*"])
    )
    await site.post(CLUSTER_BINDINGS, binding("approver", "approver", "bob"))
    approved = await bob.put(f"{target}/jane/approval", made)
    assert approved.status == 200
    signed = {**approved.obj, "status": {**approved.obj["status"], "certificate": base64.b64encode(b"x").decode()}}
    refused = await bob.put(f"{target}/jane/status", signed)
    assert "user not permitted to sign requests" in refused.obj["message"]
