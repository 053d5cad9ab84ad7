"""Edges of KubeEdge v1.12.7 and v1.23.1 on our cloud, over TLS, from the join to the end of the node; see `go_edge`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from go_edge import V1_12, VERSIONS, GoEdge, Version
from link_site import SiteMaker, config_map, create_account, pod_object
from test_link_tls import read_token

from edgesite.client import Client
from edgesite.kube.jwt import parse
from edgesite.kube.resources import CONFIG_MAPS, LEASES, NODES, OBJECT_SYNCS, PODS, SECRETS
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio

every_version = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
WEB = "default/pod/web-0"


def secret(name: str, value: str) -> dict[str, Any]:
    data = {"PASSWORD": base64.b64encode(value.encode()).decode()}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"}, "data": data}


def web(node: str) -> dict[str, Any]:
    volumes = [{"name": "c", "configMap": {"name": "cfg"}}, {"name": "s", "secret": {"secretName": "sec"}}]
    return pod_object("web-0", node, volumes=volumes)


async def gone(client: Client, name: str) -> None:
    with anyio.fail_after(DEADLINE_S):
        while True:
            found = await client.list(PODS, "default", field_selector=f"metadata.name={name}")
            if not found["items"]:
                return
            await anyio.sleep(0.005)


async def eventually(client: Client, check: Callable[[dict[str, str]], bool]) -> None:
    """Wait until the versions that are recorded of deliveries, by name of the object, are as wanted."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            items = (await client.list(OBJECT_SYNCS, "default"))["items"]
            recorded = [(one["spec"]["objectName"], one.get("status") or {}) for one in items]
            if check({name: status.get("objectResourceVersion", "") for name, status in recorded}):
                return
            await anyio.sleep(0.02)


@every_version
async def test_from_join_to_drain(make_site: SiteMaker, version: Version) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        await create_account(client)
        edge = GoEdge(site, "go-1", version)
        await edge.join(await read_token(client))
        async with edge.linked():
            await edge.register()
            node = await client.get(NODES, "go-1")
            assert node["metadata"]["labels"]["node-role.kubernetes.io/edge"] == ""
            assert {one["type"]: one["status"] for one in node["status"]["conditions"]}["Ready"] == "True"
            lease = await client.get(LEASES, "go-1", "kube-node-lease")
            assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
            await edge.renew_lease(10)
            await client.patch(LEASES, "go-1", {"metadata": {"labels": {"a": "b"}}}, "kube-node-lease")
            await edge.renew_lease(20)  # through a conflict
            renewed = await client.get(LEASES, "go-1", "kube-node-lease")
            assert renewed["spec"]["renewTime"].startswith("2026-11-20T05:06:20")

            await client.create(CONFIG_MAPS, config_map("cfg", greeting="hello"))
            await client.create(SECRETS, secret("sec", "one"))
            pod = await client.create(PODS, web("go-1"))
            await edge.run_pod(WEB, "configmap/cfg", "secret/sec")
            assert (await client.get(PODS, "web-0", "default"))["status"]["phase"] == "Running"
            bound = {"kind": "Pod", "apiVersion": "v1", "name": "web-0", "uid": pod["metadata"]["uid"]}
            asked = {"audiences": None, "expirationSeconds": 3607, "boundObjectRef": bound}
            nothing = {"token": "", "expirationTimestamp": None}
            request = {"metadata": {"creationTimestamp": None}, "spec": asked, "status": nothing}
            answer = await edge.call("query", "default/serviceaccounttoken/default", request)
            given = answer["content"]
            assert (answer["route"]["source"], given["kind"]) == ("edgecontroller", "TokenRequest")
            assert "resourceversion" not in answer["header"]
            assert (given["metadata"]["name"], given["metadata"]["namespace"]) == ("default", "default")
            assert given["spec"] == {**asked, "audiences": ["https://kubernetes.default.svc.cluster.local"]}
            assert parse(given["status"]["token"]).claims["kubernetes.io"]["pod"]["uid"] == pod["metadata"]["uid"]
            assert given["status"]["expirationTimestamp"].endswith("Z")

            await client.patch(CONFIG_MAPS, "cfg", {"data": {"greeting": "bye"}}, "default")
            await client.update(SECRETS, secret("sec", "two"))
            await client.patch(PODS, "web-0", {"metadata": {"labels": {"extra": "1"}}}, "default")
            await until(lambda: edge.meta["default/configmap/cfg"]["data"]["greeting"] == "bye")
            await until(lambda: edge.meta["default/secret/sec"]["data"] == secret("sec", "two")["data"])
            await until(lambda: "extra" in (edge.meta[WEB]["metadata"].get("labels") or {}))

            eviction = {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "web-0"}}
            await client.create(PODS, eviction, "default", name="web-0", subresource="eviction")
            await edge.end_pod(WEB)
            await gone(client, "web-0")
            assert edge.ended == [pod["metadata"]["uid"]]
            await client.delete(CONFIG_MAPS, "cfg", "default")
            await until(lambda: "default/configmap/cfg" not in edge.meta)
            await eventually(client, lambda recorded: "web-0" not in recorded)
            await client.delete(NODES, "go-1")
            await until(lambda: edge.closed)
        with pytest.raises(OSError, match="403"):
            async with edge.linked():
                pass


@every_version
async def test_what_changed_during_a_cut_comes_at_once(make_site: SiteMaker, version: Version) -> None:
    """As recorded: new, changed, deleted with grace, deleted by force. A Go cloud finds the last three up to 5 s later."""
    async with make_site(single_process=False) as site, site.cloud() as client:
        await create_account(client)
        edge = GoEdge(site, "go-1", version)
        await edge.join(await read_token(client))
        made = {}
        async with edge.linked():
            await edge.register()
            for name in ("keep", "same", "gone", "forced"):
                made[name] = await client.create(PODS, pod_object(name, "go-1"))
                await edge.run_pod(f"default/pod/{name}")
            versions = {}
            for pod in (await client.list(PODS, "default"))["items"]:
                versions[pod["metadata"]["name"]] = pod["metadata"]["resourceVersion"]
            await eventually(client, lambda recorded: recorded == versions)  # their statuses have come back to the node
            await edge.stop()
        heard = len(edge.heard)
        await client.create(PODS, pod_object("fresh", "go-1"))
        await client.patch(PODS, "keep", {"metadata": {"annotations": {"note": "offline"}}}, "default")
        await client.delete(PODS, "gone", "default")
        await client.delete(PODS, "forced", "default", grace_period_s=0)
        async with edge.linked():
            await edge.has_pod("default/pod/fresh")
            await edge.has_pod("default/pod/gone", deleted=True)
            await until(lambda: "default/pod/forced" not in edge.meta)
            await until(lambda: edge.meta["default/pod/keep"]["metadata"].get("annotations") == {"note": "offline"})
            await edge.end_pod("default/pod/gone")
            await gone(client, "gone")
        told = [one["route"] for one in edge.heard[heard:] if "parent_msg_id" not in one["header"]]
        words = [(one["operation"], one["resource"].rpartition("/")[2]) for one in told if "/pod/" in one["resource"]]
        first = dict.fromkeys(name for _, name in words)
        assert set(first) == {"fresh", "keep", "gone", "forced"}, "what has not changed is not sent"
        assert ("delete", "forced") in words


@every_version
async def test_certificates_are_renewed_without_a_token(make_site: SiteMaker, version: Version) -> None:
    """v1.16 and later refuse v1.12's subject here; we go by the certificate itself."""
    async with make_site(single_process=False) as site, site.cloud() as client:
        edge = GoEdge(site, "go-1", version)
        await edge.join(await read_token(client))
        old = edge.pair
        assert await edge.renew() == 200
        assert edge.pair != old
        async with edge.linked():
            await edge.register()
        other = GoEdge(site, "go-2", version, pair=edge.pair, ca=edge.ca)
        assert await other.renew() in (0, 401), "a certificate is renewed for its own node alone"
        with pytest.raises(OSError, match="403"):
            async with other.linked():
                pass


@every_version
async def test_questions_that_find_nothing(make_site: SiteMaker, version: Version) -> None:
    """An edge of v1.12 stores an error as if it were the object, so it gets none, but for its node; later ones are told."""
    async with make_site(single_process=False) as site, site.cloud() as client:
        await create_account(client)
        edge = GoEdge(site, "go-1", version)
        await edge.join(await read_token(client))
        async with edge.linked():
            await edge.register()
            refs = [{"name": "a", "configMap": {"name": "none"}}, {"name": "b", "secret": {"secretName": "none"}}]
            await client.create(PODS, pod_object("web-0", "go-1", volumes=refs))
            await edge.has_pod(WEB)
            for path in ("default/configmap/none", "default/secret/none", "default/weird/x"):
                if version is V1_12:
                    with pytest.raises(TimeoutError):
                        await edge.call("query", path, timeout_s=0.3)
                else:
                    answer = await edge.call("query", path)
                    assert answer["route"]["operation"] == "response"
                    assert answer["content"]["ErrStatus"]["code"] in (400, 404)
            missing = await edge.patch_status(
                {"metadata": {"name": "none", "namespace": "default", "uid": "u"}}, {"phase": "Running"}
            )
            assert missing["content"]["Err"]["ErrStatus"]["reason"] == "NotFound"
            assert (await edge.call("delete", "default/pod/none", {"gracePeriodSeconds": 0}))["content"] == "OK"
            for operation in ("ping", "config"):  # of the transport; recorded from a hand-written edge
                assert (await edge.call(operation, "x", "hello"))["content"] == "ack"
            node = await edge.call("query", f"{version.node_word}/node/go-9")
            assert node["content"]["ErrStatus"]["reason"] == "Forbidden"


async def test_an_edge_that_does_not_acknowledge_gets_one_at_a_time(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        await create_account(client)
        edge = GoEdge(site, "go-1", V1_12)
        await edge.join(await read_token(client))
        async with edge.linked():
            await edge.register()
            edge.hold_acks = True
            for name in ("a", "b", "c"):
                await client.create(PODS, pod_object(name, "go-1"))
            await edge.has_pod("default/pod/a")
            await client.patch(PODS, "b", {"metadata": {"labels": {"v": "2"}}}, "default")
            await edge.renew_lease(5)  # answers pass by; that they come proves that b and c had their chance
            assert set(edge.pods) == {"default/pod/a"}
            await edge.release_acks()
            await edge.has_pod("default/pod/c")
            told = [one for one in edge.heard if one["route"]["resource"] == "default/pod/b"]
            assert [one["content"]["metadata"].get("labels") for one in told] == [{"v": "2"}], (
                "the newest version alone"
            )


async def test_both_versions_on_one_cloud(make_site: SiteMaker) -> None:
    async with make_site(single_process=False) as site, site.cloud() as client:
        await create_account(client)
        token = await read_token(client)
        old, new = GoEdge(site, "go-12", VERSIONS["v1.12.7"]), GoEdge(site, "go-23", VERSIONS["v1.23.1"])
        for edge in (old, new):
            await edge.join(token)
        await client.create(CONFIG_MAPS, config_map("cfg", greeting="hello"))
        await client.create(SECRETS, secret("sec", "one"))
        async with old.linked(), new.linked():
            for edge in (old, new):
                await edge.register()
                name = f"web-{edge.node}"
                pod = {**web(edge.node), "metadata": {"name": name, "namespace": "default"}}
                await client.create(PODS, pod)
                await edge.run_pod(f"default/pod/{name}", "configmap/cfg", "secret/sec")
            await client.patch(CONFIG_MAPS, "cfg", {"data": {"greeting": "bye"}}, "default")
            for edge in (old, new):
                await until(lambda edge=edge: edge.meta["default/configmap/cfg"]["data"]["greeting"] == "bye")
            nodes = {
                edge.node: [one for one in edge.heard if one["route"]["resource"] == f"null/node/{edge.node}"]
                for edge in (old, new)
            }
            assert not nodes["go-12"], "v1.12 asks for its node and is not sent it"
            assert nodes["go-23"]
