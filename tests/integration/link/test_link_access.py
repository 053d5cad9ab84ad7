"""Tokens and rights as the edge sees them: asked of the cloud, kept on disk, revoked with the pod."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from link_site import Edge, SiteMaker, node_object, pod_object

from edgesite.client import Client
from edgesite.cloud.policycontroller.module import PolicyController
from edgesite.edge.access.access import Access, Identity, TokenReviewer
from edgesite.edge.access.module import AccessModule
from edgesite.kube.errors import ApiError
from edgesite.kube.rbac import Attributes
from edgesite.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNT_ACCESSES,
    SERVICE_ACCOUNTS,
)
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio
GET = Attributes("get", resource="configmaps", namespace="default", name="x")


async def joined(client: Client, edge: Edge) -> None:
    with anyio.fail_after(DEADLINE_S):
        await edge.meta.wait_connected()
    await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
    account = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "robot", "namespace": "default"}}
    await client.create(SERVICE_ACCOUNTS, account)


async def running_pod(client: Client, edge: Edge, name: str = "web-0") -> dict[str, Any]:
    pod = await client.create(PODS, pod_object(name, serviceAccountName="robot"))
    await until(lambda: edge.saw("insert", f"default/pod/{name}"))
    return pod


def request(pod: dict[str, Any], seconds: int = 3600) -> dict[str, Any]:
    metadata = pod["metadata"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
    return {"spec": {"audiences": None, "expirationSeconds": seconds, "boundObjectRef": bound}}


async def refusal(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    return caught.value


async def test_an_edge_gets_tokens_for_its_pods_and_asks_about_them(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, site.edge("edge-1", AccessModule) as edge:
        await joined(client, edge)
        pod = await running_pod(client, edge)
        made = await edge.meta.token("default", "robot", request(pod))
        token = made["status"]["token"]
        reviewer = edge.host.services.get(TokenReviewer)  # type: ignore[type-abstract]
        access = edge.host.services.get(Access)  # type: ignore[type-abstract]
        user = await reviewer.review(token)
        assert user.name == "system:serviceaccount:default:robot"
        assert user.extra["authentication.kubernetes.io/pod-name"] == ("web-0",)
        assert user.audiences == ("https://kubernetes.default.svc.cluster.local",)
        assert (await refusal(reviewer.review(token, ["elsewhere"]))).code == 401
        assert (await refusal(reviewer.review("forged"))).code == 401
        assert not (await access.decide(user, GET)).allowed
        await client.create(ROLE_BINDINGS, binding("b", "cluster-admin"))
        assert (await access.decide(user, GET)).allowed
        assert not (await access.decide(user, Attributes("get", resource="nodes", name="x"))).allowed
        assert (await access.decide(user, Attributes("get", "/version"))).allowed
        assert (await access.decide(Identity("bob"), GET)).allowed is False
        assert await access.decide_here(user, GET) is None
        for_others = request(pod)
        for_others["spec"]["audiences"] = ["vault"]
        assert (await refusal(edge.meta.token("default", "robot", for_others))).code == 403
        wrong = request(pod)
        wrong["spec"]["boundObjectRef"]["uid"] = "another"
        assert (await refusal(edge.meta.token("default", "robot", wrong))).code == 403
        await client.delete(PODS, "web-0", "default", grace_period_s=0)
        assert (await refusal(reviewer.review(token))).code == 401
        await until(lambda: edge.saw("delete", "default/pod/web-0"))
        assert (await refusal(edge.meta.token("default", "robot", request(pod)))).code in (403, 404)


async def test_without_a_link_tokens_come_from_the_disk_and_nobody_reviews(make_site: SiteMaker) -> None:
    async with make_site() as site:
        async with site.cloud() as client, site.edge("edge-1", AccessModule) as edge:
            await joined(client, edge)
            pod = await running_pod(client, edge)
            made = await edge.meta.token("default", "robot", request(pod))
            again = await edge.meta.token("default", "robot", request(pod))
            assert again == made
        async with site.edge("edge-1", AccessModule) as edge:  # the cloud is gone, and the edge was started anew
            assert await edge.meta.token("default", "robot", request(pod)) == made
            assert (await refusal(edge.meta.token("default", "robot", request(pod, 7200)))).code == 503
            reviewer = edge.host.services.get(TokenReviewer)  # type: ignore[type-abstract]
            assert (await refusal(reviewer.review(made["status"]["token"]))).code == 503


async def test_the_rights_of_accounts_come_to_the_nodes_of_their_pods(make_site: SiteMaker) -> None:
    async with make_site() as site:
        site.values["cloud"]["featureGates"] = {"requireAuthorization": True}
        async with site.edge("edge-1", AccessModule) as edge:
            async with site.cloud(PolicyController) as client:
                with anyio.fail_after(DEADLINE_S):
                    await edge.meta.wait_connected()
                node = node_object("edge-1")
                node["metadata"]["labels"] = {"node-role.kubernetes.io/edge": ""}
                await edge.meta.insert("node", "", "edge-1", node)
                account = {
                    "kind": "ServiceAccount",
                    "apiVersion": "v1",
                    "metadata": {"name": "robot", "namespace": "default"},
                }
                uid = (await client.create(SERVICE_ACCOUNTS, account))["metadata"]["uid"]
                await client.create(ROLES, role("reader", "get", "configmaps"))
                await client.create(ROLE_BINDINGS, binding("b", "reader", "Role"))
                await client.create(PODS, pod_object("web-0", serviceAccountName="robot"))
                groups = ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")
                user = Identity("system:serviceaccount:default:robot", groups, uid)
                access = edge.host.services.get(Access)  # type: ignore[type-abstract]

                async def becomes(wanted: Attributes, allowed: bool | None) -> None:
                    with anyio.fail_after(DEADLINE_S):
                        while True:
                            found = await access.decide_here(user, wanted)
                            if (None if found is None else found.allowed) is allowed:
                                return
                            await anyio.sleep(0.01)

                await becomes(GET, True)
                await becomes(Attributes("get", "/version"), True)  # by system:public-info-viewer
                await becomes(Attributes("delete", resource="configmaps", namespace="default", name="x"), False)
                await becomes(Attributes("get", resource="configmaps", namespace="kube-system", name="x"), False)
                assert await access.decide_here(Identity(user.name, groups, "of another"), GET) is None
                assert await access.decide_here(Identity("bob"), GET) is None
                found = await client.get(SERVICE_ACCOUNT_ACCESSES, "robot", "default")
                assert found["spec"]["serviceAccountUid"] == uid
                with anyio.fail_after(DEADLINE_S):
                    while (found.get("status") or {}).get("nodeList") != ["edge-1"]:
                        found = await client.get(SERVICE_ACCOUNT_ACCESSES, "robot", "default")
                await client.patch(ROLES, "reader", {"rules": []}, "default")
                await becomes(GET, False)
                await client.create(CLUSTER_ROLE_BINDINGS, binding("c", "cluster-admin", cluster=True))
                await becomes(GET, True)
            assert (await access.decide_here(user, GET)).allowed  # type: ignore[union-attr]
            async with site.cloud(
                PolicyController
            ) as client:  # what changed while there was no link comes with the next
                await client.delete(CLUSTER_ROLE_BINDINGS, "c")
                await becomes(GET, False)
                await client.delete(PODS, "web-0", "default", grace_period_s=0)
                await becomes(GET, None)


def role(name: str, verbs: str, resources: str) -> dict[str, Any]:
    rule = {"verbs": verbs.split(), "apiGroups": [""], "resources": resources.split()}
    metadata = {"name": name, "namespace": "default"}
    return {"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata, "rules": [rule]}


def binding(name: str, role: str, kind: str = "ClusterRole", *, cluster: bool = False) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "kind": "ClusterRoleBinding" if cluster else "RoleBinding",
        "apiVersion": f"{group}/v1",
        "metadata": {"name": name} if cluster else {"name": name, "namespace": "default"},
        "roleRef": {"apiGroup": group, "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
    }
