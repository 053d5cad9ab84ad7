"""Tokens and rights as the edge sees them: asked of the cloud, kept on disk, revoked with the pod."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from link_site import DEADLINE_S, Edge, SiteMaker, node_object, pod_object, until

from edgesite.client import Client
from edgesite.edge.access.access import Access, Identity, TokenReviewer
from edgesite.edge.access.module import AccessModule
from edgesite.kube.errors import ApiError
from edgesite.kube.rbac import Attributes
from edgesite.kube.resources import PODS, ROLE_BINDINGS, SERVICE_ACCOUNTS

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
        binding = {
            "kind": "RoleBinding",
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": "b", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
        }
        await client.create(ROLE_BINDINGS, binding)
        assert (await access.decide(user, GET)).allowed
        assert not (await access.decide(user, Attributes("get", resource="nodes", name="x"))).allowed
        assert (await access.decide(user, Attributes("get", "/version"))).allowed
        assert (await access.decide(Identity("bob"), GET)).allowed is False
        assert await access.decide_here(user, GET) is None
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
