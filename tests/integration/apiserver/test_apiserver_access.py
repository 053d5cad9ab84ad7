"""Who may do what: nodes, anonymous users, impersonation, reviews, plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from apiserver_site import Site, site_at

from edgesite.apiserver.authn import ANONYMOUS
from edgesite.hookspecs import AdmissionRequest
from edgesite.kube import errors
from edgesite.kube.resources import Resource

pytestmark = pytest.mark.anyio
PODS = "/api/v1/namespaces/default/pods"
SECRETS = "/api/v1/namespaces/default/secrets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}], "nodeName": node, **spec}}


def node_of(site: Site, name: str) -> Site:
    return site.as_user(f"system:node:{name}", "system:nodes")


async def test_strangers_are_refused_in_kube_s_words(site: Site) -> None:
    bob = site.as_user("bob")
    for target, message in {
        PODS: 'pods is forbidden: User "bob" cannot list resource "pods" in API group "" in the namespace "default"',
        f"{PODS}/a": 'pods "a" is forbidden: User "bob" cannot get resource "pods" in API group "" in the namespace "default"',
        "/api/v1/nodes": 'nodes is forbidden: User "bob" cannot list resource "nodes" in API group "" at the cluster scope',
        "/apis/apps/v1/namespaces/default/deployments/a/scale": 'deployments.apps "a" is forbidden: User "bob" cannot get '
        'resource "deployments/scale" in API group "apps" in the namespace "default"',
        "/metrics/more": 'forbidden: User "bob" cannot get path "/metrics/more"',
    }.items():
        answer = await bob.get(target)
        assert (answer.status, answer.obj["reason"]) == (403, "Forbidden"), target
        assert answer.obj["message"] == message
    assert (await bob.get("/api")).status == 200
    assert (await bob.get("/openapi/v3")).status == 200


async def test_anonymous_sees_versions_only(site: Site) -> None:
    anonymous = Site(site.made, site.store, site.clock, ANONYMOUS)
    assert (await anonymous.get("/version")).obj["gitVersion"].startswith("v1.36.")
    assert (await anonymous.get("/api")).status == 403
    assert (await anonymous.get(PODS)).status == 403


async def test_nodes_touch_their_own_objects_only(site: Site) -> None:
    mine, other = node_of(site, "n1"), node_of(site, "n2")
    volumes = [{"name": "v", "secret": {"secretName": "s"}}]
    await site.post(SECRETS, {"metadata": {"name": "s"}})
    await site.post(SECRETS, {"metadata": {"name": "t"}})
    assert (await site.post(PODS, pod("a", "n1", volumes=volumes))).status == 201
    for node, code in ((mine, 200), (other, 403)):
        assert (await node.get(f"{PODS}/a")).status == code
        assert (await node.get(f"{SECRETS}/s")).status == code
        assert (await node.get(f"{SECRETS}?fieldSelector=metadata.name%3Ds")).status == code
        assert (await node.patch(f"{PODS}/a/status", {"status": {"phase": "Running"}})).status == code
        assert (await node.patch(f"{PODS}/a", {"metadata": {"labels": {"a": "b"}}})).status == 403
        assert (await node.get(f"{SECRETS}/t")).status == 403
        assert (await node.get(SECRETS)).status == 403
        assert (await node.get("/api/v1/pods")).status == 403
        assert (await node.get("/api/v1/services")).status == 200
    assert (await mine.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")).status == 200
    assert (await mine.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2")).status == 403
    assert (await other.delete(f"{PODS}/a", {"gracePeriodSeconds": 0})).status == 403
    assert (await mine.delete(f"{PODS}/a", {"gracePeriodSeconds": 0})).status == 200


async def test_nodes_write_their_own_node_and_lease(site: Site) -> None:
    mine = node_of(site, "n1")
    assert (await mine.post("/api/v1/nodes", {"metadata": {"name": "n1"}})).status == 201
    refused = await mine.post("/api/v1/nodes", {"metadata": {"name": "n2"}})
    assert (refused.status, "is not allowed to modify node" in refused.obj["message"]) == (403, True)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert (await mine.patch("/api/v1/nodes/n1/status", ready)).status == 200
    assert (await mine.delete("/api/v1/nodes/n1")).status == 403
    assert (await mine.patch("/api/v1/nodes/n1", {"metadata": {"labels": {"a": "b"}}})).status == 200
    for patch in (
        {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}},
        {"metadata": {"labels": {"x.node-restriction.kubernetes.io/a": "b"}}},
    ):
        assert (await mine.patch("/api/v1/nodes/n1", patch)).status == 403
    assert (await node_of(site, "n2").patch("/api/v1/nodes/n1/status", ready)).status == 403
    lease = {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}}
    assert (await mine.post(LEASES, lease)).status == 201
    assert (await mine.get(f"{LEASES}/n1")).status == 200
    assert (await node_of(site, "n2").get(f"{LEASES}/n1")).status == 403
    assert (await mine.post(LEASES, {"metadata": {"name": "n2"}})).status == 403
    assert (await mine.post(LEASES.replace("kube-node-lease", "default"), lease)).status == 403


async def test_nodes_create_mirror_pods_of_their_own(site: Site) -> None:
    mine = node_of(site, "n1")
    assert (await mine.post(PODS, pod("a", "n1"))).status == 403
    mirror = pod("a", "n1")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    assert (await mine.post(PODS, mirror)).status == 201
    needy = pod("b", "n1", volumes=[{"name": "v", "secret": {"secretName": "s"}}])
    needy["metadata"]["annotations"] = mirror["metadata"]["annotations"]
    assert "can not create pods that reference secrets" in (await mine.post(PODS, needy)).obj["message"]
    mirror["spec"]["nodeName"] = "n2"
    assert (await mine.post(PODS, mirror)).status == 403


async def test_impersonation(site: Site) -> None:
    answer = await site.get(PODS, impersonate_user="bob", impersonate_group="dev")
    assert answer.status == 403
    assert 'User "bob"' in answer.obj["message"]
    who = await site.post(
        "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, impersonate_user="system:serviceaccount:a:b"
    )
    assert who.obj["status"]["userInfo"]["groups"] == [
        "system:serviceaccounts",
        "system:serviceaccounts:a",
        "system:authenticated",
    ]
    refused = await site.as_user("bob").get(PODS, impersonate_user="admin")
    assert refused.status == 403
    assert 'cannot impersonate resource "users"' in refused.obj["message"]
    assert (await site.get(PODS, impersonate_group="dev")).status == 400


async def test_access_reviews(site: Site) -> None:
    reviews = "/apis/authorization.k8s.io/v1"
    spec = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}
    own = await site.post(f"{reviews}/selfsubjectaccessreviews", {"spec": spec})
    assert (own.status, own.obj["status"]) == (201, {"allowed": True})
    assert (await site.as_user("bob").post(f"{reviews}/selfsubjectaccessreviews", {"spec": spec})).obj["status"] == {
        "allowed": False
    }
    asked = await site.post(f"{reviews}/subjectaccessreviews", {"spec": {**spec, "user": "bob"}})
    assert asked.obj["status"]["allowed"] is False
    masters = {**spec, "user": "x", "groups": ["system:masters"]}
    assert (await site.post(f"{reviews}/subjectaccessreviews", {"spec": masters})).obj["status"]["allowed"] is True
    assert (await site.post(f"{reviews}/subjectaccessreviews", {"spec": {"user": "bob"}})).status == 422
    rules = await site.post(f"{reviews}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
    assert rules.obj["status"]["resourceRules"][0]["verbs"] == ["*"]
    assert (await site.as_user("bob").post(f"{reviews}/subjectaccessreviews", {"spec": masters})).status == 403
    token = "/apis/authentication.k8s.io/v1/tokenreviews"
    assert (await site.post(token, {"spec": {"token": "no"}})).obj["status"]["error"] == "invalid bearer token"


class Labels:
    """An admission plugin that changes and warns."""

    name: ClassVar[str] = "labels"
    mutating = True

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.plural == "configmaps" and operation == "CREATE"

    async def admit(self, request: AdmissionRequest) -> None:
        assert request.object is not None
        request.object["metadata"].setdefault("labels", {})["seen-by"] = request.user
        request.warnings.append("labelled")


class Refuses:
    """One that refuses, and one that breaks."""

    name: ClassVar[str] = "refuses"
    mutating = False

    def wants(self, resource: Resource, operation: str, subresource: str) -> bool:
        return resource.plural == "configmaps"

    def admit(self, request: AdmissionRequest) -> None:
        if request.name == "bad":
            raise errors.forbidden("configmaps", "bad", "not today")
        if request.name == "broken":
            raise RuntimeError("secret detail")


async def test_admission_plugins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = "/api/v1/namespaces/default/configmaps"
    async with site_at(tmp_path, plugins=[Refuses(), Labels()]) as site:
        made = await site.post(target, {"metadata": {"name": "a"}})
        assert made.obj["metadata"]["labels"] == {"seen-by": "kubernetes-admin"}
        assert made.headers["warning"] == '299 - "labelled"'
        refused = await site.post(target, {"metadata": {"name": "bad"}})
        assert (refused.status, refused.obj["message"]) == (403, 'configmaps "bad" is forbidden: not today')
        broken = await site.post(target, {"metadata": {"name": "broken"}})
        assert broken.status == 500
        assert "secret detail" not in broken.body.decode()
        assert "secret detail" in caplog.text
        assert len((await site.get(target)).obj["items"]) == 1


async def test_reviews_have_no_tables(site: Site) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    body = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    refused = await site.post(path, body, accept=table)
    assert (refused.status, refused.obj["reason"]) == (406, "NotAcceptable")
    assert (await site.post(path, body, accept=f"{table},application/json")).status == 201
