"""Both ends of the link in one process: from the API to the edge's disk and back."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from link_site import Edge, SiteMaker, config_map, create_account, node_object, pod_object

from edgesite.client import Client
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import (
    CLUSTER_OBJECT_SYNCS,
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    NODES,
    OBJECT_SYNCS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
)
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio

WEB = "default/pod/web-0"


async def joined(client: Client, edge: Edge, node: str = "edge-1") -> None:
    """The node is connected and registered, and pods may be created."""
    with anyio.fail_after(DEADLINE_S):
        await edge.meta.wait_connected()
    await edge.meta.insert("node", "", node, node_object(node))
    await create_account(client)


def status(pod: dict[str, Any], phase: str) -> dict[str, Any]:
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"phase": phase}}


async def phase_of(client: Client, name: str) -> str:
    return str((await client.get(PODS, name, "default"))["status"].get("phase"))


async def test_a_pod_with_its_config_goes_down_and_its_status_comes_up(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, site.edge() as edge:
        await joined(client, edge)
        await client.create(CONFIG_MAPS, config_map("web", greeting="hello"))
        volume = {"name": "v", "configMap": {"name": "web"}}
        pod = await client.create(PODS, pod_object("web-0", volumes=[volume]))
        [arrived] = await until(lambda: edge.saw("insert", WEB))
        assert arrived.object()["metadata"]["uid"] == pod["metadata"]["uid"]
        assert edge.saw("update", "default/configmap/web"), "what a pod refers to comes before the pod"
        stored = await edge.meta.get("configmap", "default", "web")
        assert stored is not None
        assert stored["data"] == {"greeting": "hello"}
        await edge.meta.report_status("pod", "default", "web-0", status(pod, "Running"))

        async def is_running() -> bool:
            return await phase_of(client, "web-0") == "Running"

        await until(is_running)


async def test_changes_and_deletes_follow(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, site.edge() as edge:
        await joined(client, edge)
        await client.create(CONFIG_MAPS, config_map("web", greeting="hello"))
        env = [{"name": "G", "valueFrom": {"configMapKeyRef": {"name": "web", "key": "greeting"}}}]
        containers = [{"name": "init", "image": "i", "env": env}]
        pod = await client.create(PODS, pod_object("web-0", initContainers=containers))
        await until(lambda: edge.saw("insert", WEB))
        await client.patch(CONFIG_MAPS, "web", {"data": {"greeting": "bye"}}, "default")

        async def changed() -> bool:
            stored = await edge.meta.get("configmap", "default", "web")
            return stored is not None and stored["data"]["greeting"] == "bye"

        await until(changed)
        await client.delete(PODS, "web-0", "default")
        await until(
            lambda: [one for one in edge.saw("update", WEB) if one.object()["metadata"].get("deletionTimestamp")]
        )
        await edge.meta.confirm_deleted("default", "web-0", pod["metadata"]["uid"])
        await until(lambda: edge.saw("delete", WEB))
        assert await edge.meta.get("pod", "default", "web-0") is None
        with pytest.raises(ApiError, match="not found"):
            await client.get(PODS, "web-0", "default")
        await client.delete(CONFIG_MAPS, "web", "default")


async def test_node_lease_and_events(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, site.edge() as edge:
        await joined(client, edge)
        with pytest.raises(ApiError) as exists:
            await edge.meta.insert("node", "", "edge-1", node_object("edge-1"))
        assert exists.value.reason == "AlreadyExists"
        with pytest.raises(ApiError) as missing:
            await edge.meta.query_remote("lease", "kube-node-lease", "edge-1")
        assert missing.value.reason == "NotFound"
        lease = {"metadata": {"name": "edge-1", "namespace": "kube-node-lease"}, "spec": {"holderIdentity": "edge-1"}}
        created = await edge.meta.insert("lease", "kube-node-lease", "edge-1", lease)
        created["spec"]["leaseDurationSeconds"] = 40
        renewed = await edge.meta.update("lease", "kube-node-lease", "edge-1", created)
        with pytest.raises(ApiError) as conflict:
            await edge.meta.update("lease", "kube-node-lease", "edge-1", created)
        assert conflict.value.reason == "Conflict"
        assert (await client.get(LEASES, "edge-1", "kube-node-lease"))["spec"] == renewed["spec"]

        labelled = await edge.meta.update("node", "", "edge-1", {"metadata": {"labels": {"zone": "a"}}})
        assert labelled["metadata"]["labels"]["zone"] == "a"
        patched = await edge.meta.patch("node", "", "edge-1", {"status": {"capacity": {"cpu": "2"}}})
        assert (patched["metadata"]["labels"]["zone"], patched["status"]["capacity"]) == ("a", {"cpu": "2"})
        await edge.meta.report_status("node", "", "edge-1", {"status": {"capacity": {"cpu": "4"}}})

        async def has_four() -> bool:
            return (await client.get(NODES, "edge-1"))["status"]["capacity"] == {"cpu": "4"}

        await until(has_four)
        involved = {"kind": "Node", "name": "edge-1", "uid": "edge-1"}
        event = {
            "metadata": {"name": "edge-1.started", "namespace": "default"},
            "involvedObject": involved,
            "reason": "Starting",
            "type": "Normal",
            "count": 1,
        }
        await edge.meta.report_event(event)
        await edge.meta.report_event({**event, "count": 5})

        async def counted() -> bool:
            events = await client.list(EVENTS, "default")
            return [one["count"] for one in events["items"]] == [5]

        await until(counted)


async def test_a_report_never_reaches_a_later_pod_of_the_same_name(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, site.edge() as edge:
        await joined(client, edge)
        pod = await client.create(PODS, pod_object("web-0"))
        await until(lambda: edge.saw("insert", WEB))
        wrong = {"metadata": {"uid": "of-an-earlier-pod"}, "status": {"phase": "Failed"}}
        with pytest.raises(ApiError) as refused:
            await edge.meta.patch("pod", "default", "web-0", wrong)
        assert refused.value.code < 500, "trying again would not help, so the report is dropped"
        await edge.meta.confirm_deleted("default", "web-0", "of-an-earlier-pod")
        await edge.meta.report_status("pod", "default", "web-0", status(pod, "Running"))

        async def is_running() -> bool:
            return await phase_of(client, "web-0") == "Running"

        await until(is_running)
        assert "deletionTimestamp" not in (await client.get(PODS, "web-0", "default"))["metadata"]


async def test_volumes_are_given_to_nodes_whose_pods_claim_them(make_site: SiteMaker) -> None:
    async with make_site() as site:
        async with site.cloud() as client, site.edge("edge-1") as one, site.edge("edge-2") as two:
            await joined(client, one)
            with anyio.fail_after(DEADLINE_S):
                await two.meta.wait_connected()
            size = {"storage": "1Gi"}
            modes = ["ReadWriteOnce"]
            claim = {"accessModes": modes, "resources": {"requests": size}, "volumeName": "v"}
            metadata = {"name": "c", "namespace": "default"}
            kind = {"kind": "PersistentVolumeClaim", "apiVersion": "v1"}
            await client.create(PERSISTENT_VOLUME_CLAIMS, {**kind, "metadata": metadata, "spec": claim})
            volume = {"accessModes": modes, "capacity": size, "hostPath": {"path": "/x"}, "claimRef": metadata}
            kind = {"kind": "PersistentVolume", "apiVersion": "v1"}
            await client.create(PERSISTENT_VOLUMES, {**kind, "metadata": {"name": "v"}, "spec": volume})
            mount = [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]
            await client.create(PODS, pod_object("web-0", volumes=mount))
            await until(lambda: one.saw("insert", WEB))
            assert (await one.meta.query_remote("persistentvolumeclaim", "default", "c"))["spec"]["volumeName"] == "v"
            found = await one.meta.query_remote("persistentvolume", "", "v")
            assert found["spec"]["hostPath"]["path"] == "/x"
            for type_, namespace, name in (("persistentvolumeclaim", "default", "c"), ("persistentvolume", "", "v")):
                with pytest.raises(ApiError) as refused:
                    await two.meta.query_remote(type_, namespace, name)
                assert refused.value.reason == "Forbidden"
        async with site.cloud() as client, site.edge("edge-1") as one:
            [sync] = (await client.list(CLUSTER_OBJECT_SYNCS))["items"]
            assert sync["spec"] == {"objectAPIVersion": "v1", "objectKind": "PersistentVolume", "objectName": "v"}
            with anyio.fail_after(DEADLINE_S):
                await one.meta.wait_connected()
            await client.create(PODS, pod_object("second"))
            await until(lambda: one.saw("update", "default/pod/second") or one.saw("insert", "default/pod/second"))
            assert await one.meta.get("persistentvolume", "", "v") is not None, "it is not taken for a deleted object"


async def test_without_the_cloud_the_edge_works_from_disk(make_site: SiteMaker) -> None:
    async with make_site() as site:
        async with site.cloud() as client, site.edge() as edge:
            await joined(client, edge)
            pod = await client.create(PODS, pod_object("web-0"))
            await until(lambda: edge.saw("insert", WEB))
        async with site.edge() as edge:
            assert not edge.meta.connected
            [stored] = await edge.meta.list("pod")
            assert stored["metadata"]["uid"] == pod["metadata"]["uid"]
            assert await edge.meta.list("pod", "other") == []
            assert await edge.meta.query_remote("node", "", "edge-1") is not None
            with pytest.raises(ApiError) as offline:
                await edge.meta.query_remote("secret", "default", "none")
            assert offline.value.code == 503
            for phase in ("Pending", "Running"):
                await edge.meta.report_status("pod", "default", "web-0", status(pod, phase))
        async with site.edge() as edge, site.cloud() as client:

            async def is_running() -> bool:
                return await phase_of(client, "web-0") == "Running"

            await until(is_running)
            assert edge.saw("delete", WEB) == []


async def test_what_changed_while_the_edge_was_away_follows_at_once(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        async with site.edge() as edge:
            await joined(client, edge)
            for name in ("keep", "gone", "same"):
                await client.create(PODS, pod_object(name))
                await until(lambda name=name: edge.saw("insert", f"default/pod/{name}"))  # type: ignore[misc]
        await client.create(PODS, pod_object("fresh"))
        await client.patch(PODS, "keep", {"metadata": {"annotations": {"note": "new"}}}, "default")
        await client.delete(PODS, "gone", "default", grace_period_s=0)
        async with site.edge() as edge:
            await until(lambda: edge.saw("update", "default/pod/fresh"))
            await until(lambda: edge.saw("delete", "default/pod/gone"))
            [keep] = await until(lambda: edge.saw("update", "default/pod/keep"))
            assert keep.object()["metadata"]["annotations"] == {"note": "new"}
            names = {one["metadata"]["name"] for one in await edge.meta.list("pod")}
            assert names == {"keep", "same", "fresh"}
            assert [one for one in edge.seen if one.resource == "default/pod/same"] == []


async def test_a_pod_made_anew_under_its_name_replaces_the_old(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        async with site.edge() as edge:
            await joined(client, edge)
            old = await client.create(PODS, pod_object("web-0"))
            await until(lambda: edge.saw("insert", WEB))
        await client.delete(PODS, "web-0", "default", grace_period_s=0)
        new = await client.create(PODS, pod_object("web-0"))
        async with site.edge() as edge:
            await until(lambda: edge.saw("update", WEB))
            ended = [one.object()["metadata"]["uid"] for one in edge.saw("delete", WEB)]
            assert old["metadata"]["uid"] in ended
            [stored] = await edge.meta.list("pod")
            assert stored["metadata"]["uid"] == new["metadata"]["uid"]


async def test_deliveries_are_recorded_and_survive_a_restart_of_the_cloud(make_site: SiteMaker) -> None:
    async with make_site() as site, site.edge() as edge:
        async with site.cloud() as client:
            await joined(client, edge)
            pod = await client.create(PODS, pod_object("web-0"))
            await until(lambda: edge.saw("insert", WEB))
        async with site.cloud() as client:
            [sync] = (await client.list(OBJECT_SYNCS, "default"))["items"]
            assert sync["metadata"]["name"] == f"edge-1.{pod['metadata']['uid']}"
            assert sync["spec"] == {"objectAPIVersion": "v1", "objectKind": "Pod", "objectName": "web-0"}
            assert sync["status"] == {"objectResourceVersion": pod["metadata"]["resourceVersion"]}
            await client.create(PODS, pod_object("second"))
            await until(lambda: edge.saw("insert", "default/pod/second") or edge.saw("update", "default/pod/second"))
            assert len([one for one in edge.seen if one.resource == WEB]) == 1


async def test_a_node_may_touch_only_what_is_its_own(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client, site.edge("edge-1") as one, site.edge("edge-2") as two:
        await joined(client, one)
        with anyio.fail_after(DEADLINE_S):
            await two.meta.wait_connected()
        secret = {"metadata": {"name": "mine", "namespace": "default"}, "data": {"k": "dg=="}}
        await client.create(SECRETS, {"kind": "Secret", "apiVersion": "v1", **secret})
        pull = [{"name": "mine"}]
        pod = await client.create(PODS, pod_object("web-0", imagePullSecrets=pull))
        await until(lambda: one.saw("insert", WEB))
        assert (await one.meta.query_remote("secret", "default", "mine"))["data"] == {"k": "dg=="}

        uid = pod["metadata"]["uid"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": "web-0", "uid": uid}
        lease = {"metadata": {"name": "edge-1", "namespace": "kube-node-lease"}}
        forbidden = [
            two.meta.query_remote("secret", "default", "mine"),
            two.meta.query_remote("node", "", "edge-1"),
            two.meta.query_remote("lease", "kube-node-lease", "edge-1"),
            two.meta.insert("node", "", "edge-1", node_object("edge-1")),
            two.meta.update("node", "", "edge-1", {"metadata": {"labels": {"a": "b"}}}),
            two.meta.patch("node", "", "edge-1", {"status": {}}),
            two.meta.patch("pod", "default", "web-0", status(pod, "Failed")),
            two.meta.insert("lease", "kube-node-lease", "edge-1", lease),
            two.meta.update("lease", "kube-node-lease", "edge-1", lease),
            two.meta.token("default", "default", {"spec": {"boundObjectRef": bound}}),
            two.meta.token("default", "default", {"spec": {}}),
            two.meta.query_remote("configmap", "kube-system", "anything"),
        ]
        for attempt in forbidden:
            with pytest.raises(ApiError) as refused:
                await attempt
            assert refused.value.reason == "Forbidden"
        await two.meta.confirm_deleted("default", "web-0", uid)
        event = {
            "metadata": {"name": "e", "namespace": "default"},
            "involvedObject": {"kind": "Node", "name": "edge-1"},
        }
        await two.meta.report_event(event)
        marker = {**event, "metadata": {"name": "m", "namespace": "default"}}
        marker["involvedObject"] = {"kind": "Node", "name": "edge-2"}
        await two.meta.report_event(marker)

        async def marked() -> bool:
            return [one["metadata"]["name"] for one in (await client.list(EVENTS, "default"))["items"]] == ["m"]

        await until(marked)
        assert (await client.get(PODS, "web-0", "default"))["metadata"].get("deletionTimestamp") is None
