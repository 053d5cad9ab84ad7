"""What an edge may do by the identity of its connection: each forbidden thing is tried, and each has its permitted twin."""

from __future__ import annotations

import base64
from typing import Any

import anyio
import pytest
from link_site import SiteMaker, config_map, create_account, node_object, pod_object
from raw_edge import RawEdge, raw_edge

from edgesite.client import Client
from edgesite.kube import json
from edgesite.kube.resources import (
    CONFIG_MAPS,
    LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
)
from edgesite.net import pem
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock

pytestmark = pytest.mark.anyio

LEASE = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "spec": {"holderIdentity": "x"}}


def secret(name: str) -> dict[str, Any]:
    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"a": "YQ=="},
    }


def volume(name: str, claim: str) -> dict[str, Any]:
    return {
        "kind": "PersistentVolume",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/x"},
            "claimRef": {"namespace": "default", "name": claim},
        },
    }


def claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name, "namespace": "default"}
    return {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": metadata, "spec": spec}


async def furnish(client: Client) -> dict[str, Any]:
    """Two nodes, with a pod each that refers to things of its own; returns the pods' uids, and the leases."""
    await create_account(client)
    made: dict[str, Any] = {}
    for at in ("1", "2"):
        await client.create(NODES, node_object(f"edge-{at}"))
        await client.create(SECRETS, secret(f"s{at}"))
        await client.create(CONFIG_MAPS, config_map(f"c{at}", a="b"))
        await client.create(PERSISTENT_VOLUME_CLAIMS, claim(f"claim{at}"))
        await client.create(PERSISTENT_VOLUMES, volume(f"v{at}", f"claim{at}"))
        volumes = [
            {"name": "s", "secret": {"secretName": f"s{at}"}},
            {"name": "c", "configMap": {"name": f"c{at}"}},
            {"name": "p", "persistentVolumeClaim": {"claimName": f"claim{at}"}},
        ]
        pod = await client.create(PODS, pod_object(f"p{at}", f"edge-{at}", volumes=volumes))
        made[at] = pod["metadata"]["uid"]
        metadata = {"name": f"edge-{at}", "namespace": "kube-node-lease"}
        made[f"lease{at}"] = await client.create(LEASES, {**LEASE, "metadata": metadata}, "kube-node-lease")
    return made


def event(kind: str, name: str) -> dict[str, Any]:
    involved = {"kind": kind, "name": name, "namespace": "default"}
    return {"metadata": {"name": "e", "namespace": "default"}, "involvedObject": involved, "reason": "r"}


def token(pod: str, uid: str) -> dict[str, Any]:
    return {"spec": {"expirationSeconds": 3600, "boundObjectRef": {"kind": "Pod", "name": pod, "uid": uid}}}


def mirror(name: str, node: str, **spec: Any) -> dict[str, Any]:
    pod = pod_object(name, node, **spec)
    pod["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "hash"}
    return pod


async def signing_request(node: str, signer: str = "kubernetes.io/kubelet-serving") -> dict[str, Any]:
    made = await RealPki(RealClock()).make_csr(f"system:node:{node}", organizations=["system:nodes"])
    usages = ["digital signature", "server auth"]
    request = base64.b64encode(made.request).decode()
    return {"metadata": {"name": f"csr-{node}"}, "spec": {"request": request, "signerName": signer, "usages": usages}}


def requests_of(at: str, made: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Everything that an edge does with what belongs to node edge-``at``; each must be refused to another."""
    node, pod, uid = f"edge-{at}", f"p{at}", made[at]
    status = '{"status":{"conditions":[]}}'
    return [
        ("query", f"default/node/{node}", None),
        ("query", f"null/node/{node}", None),
        ("update", f"default/node/{node}", {"metadata": {"name": node, "labels": {"a": "b"}}}),
        ("patch", f"default/nodepatch/{node}", status),
        ("update", f"default/nodestatus/{node}", {"UID": "", "Status": {"phase": "Running"}}),
        ("query", f"kube-node-lease/lease/{node}", None),
        ("update", f"kube-node-lease/lease/{node}", made[f"lease{at}"]),
        ("query", f"default/secret/s{at}", None),
        ("query", f"default/configmap/c{at}", None),
        ("query", f"default/persistentvolumeclaim/claim{at}", None),
        ("query", f"default/persistentvolume/v{at}", None),
        ("query", f"null/persistentvolume/v{at}", None),
        ("patch", f"default/podpatch/{pod}", '{"status":{"phase":"Running"}}'),
        ("update", f"default/podstatus/{pod}", {"UID": uid, "Name": pod, "Status": {"phase": "Running"}}),
        ("update", "default/podstatus", [{"UID": uid, "Name": pod, "Status": {"phase": "Running"}}]),
        ("query", "default/serviceaccounttoken/default", token(pod, uid)),
        ("insert", "default/event/e", event("Pod", pod)),
        ("delete", f"default/pod/{pod}", {"preconditions": {"uid": uid}}),
    ]


@pytest.mark.parametrize("at", ["1", "2"])
async def test_an_edge_does_all_this_with_its_own_and_nothing_with_anothers(make_site: SiteMaker, at: str) -> None:
    async with make_site() as site, site.cloud() as client:
        uids = await furnish(client)
        other = "2" if at == "1" else "1"
        async with raw_edge(site, f"edge-{at}", own=True) as edge:
            for operation, path, content in requests_of(other, uids):
                assert await edge.reason(operation, path, content) == "Forbidden", (operation, path)
            foreign = await client.get(PODS, f"p{other}", "default")
            assert (foreign["status"].get("phase"), foreign["metadata"].get("deletionTimestamp")) == ("Pending", None)
            for operation, path, content in requests_of(at, uids):
                assert await edge.reason(operation, path, content) == "", (operation, path)


async def test_what_belongs_to_nobody_that_runs_here_is_refused(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        uids = await furnish(client)
        await client.create(SECRETS, secret("loose"))
        await client.create(PERSISTENT_VOLUMES, volume("unclaimed", "nobodys"))
        pod, uid = "p1", uids["1"]
        forbidden: list[tuple[str, str, Any]] = [
            ("query", "default/secret/loose", None),
            ("query", "kube-system/secret/s1", None),
            ("query", "kubeedge/secret/casecret", None),
            ("query", "default/persistentvolume/unclaimed", None),
            ("query", "default/lease/edge-1", None),
            ("insert", "kube-system/lease/kube-scheduler", {**LEASE, "metadata": {"name": "kube-scheduler"}}),
            ("insert", "default/node/edge-9", node_object("edge-9")),
            ("query", "default/serviceaccounttoken/default", {"spec": {}}),
            ("query", "default/serviceaccounttoken/admin", token(pod, uid)),
            ("query", "kube-system/serviceaccounttoken/default", token(pod, uid)),
            ("query", "default/serviceaccounttoken/default", token(pod, "another-uid")),
            ("insert", "default/event/e", event("Secret", "s1")),
            ("insert", "default/event/e", event("Node", "edge-2")),
            ("insert", "default/pod/m", mirror("m", "edge-2")),
            ("insert", "default/pod/m", pod_object("m")),
            ("insert", "default/pod/m", mirror("m", "edge-1", serviceAccountName="admin")),
            ("insert", "default/pod/m", mirror("m", "edge-1", volumes=[{"name": "s", "secret": {"secretName": "s2"}}])),
            ("insert", "default/certificatesigningrequest/a", await signing_request("edge-2")),
            (
                "insert",
                "default/certificatesigningrequest/a",
                await signing_request("edge-1", "kubernetes.io/kube-apiserver-client"),
            ),
        ]
        async with raw_edge(site, own=True) as edge:
            for operation, path, content in forbidden:
                assert await edge.reason(operation, path, content) in ("Forbidden", "NotFound"), (operation, path)
            for operation, path in (("query", "default/service/kubernetes"), ("delete", "default/node/edge-1")):
                assert await edge.reason(operation, path) == "BadRequest", "there is no such request"


async def test_of_its_own_objects_an_edge_says_only_what_is_its_own_to_say(make_site: SiteMaker) -> None:
    reserved, allowed = {"node-restriction.kubernetes.io/zone": "secure"}, {"a": "b"}
    told = {"labels": reserved | allowed, "finalizers": ["mine/stay"], "ownerReferences": []}
    async with make_site() as site, site.cloud() as client:
        await furnish(client)
        async with raw_edge(site, own=True) as edge:
            status = {"conditions": [{"type": "Ready", "status": "True"}]}
            patch = json.dumps({"metadata": told, "status": status, "spec": {"hostNetwork": True}}).decode()
            for operation, path, content in (
                ("patch", "default/podpatch/p1", patch),
                ("patch", "default/nodepatch/edge-1", patch),
                ("update", "default/node/edge-1", {"metadata": {"name": "edge-1", **told}}),
            ):
                assert await edge.reason(operation, path, content) == "", (operation, path)
            assert await edge.reason("patch", "default/podpatch/p1", "[]") == "BadRequest"
        pod, node = await client.get(PODS, "p1", "default"), await client.get(NODES, "edge-1")
        assert pod["status"]["conditions"][-1]["type"] == "Ready"
        for obj in (pod, node):
            assert "finalizers" not in obj["metadata"]
            assert reserved.items().isdisjoint((obj["metadata"].get("labels") or {}).items())
        assert "a" not in (pod["metadata"].get("labels") or {})
        assert node["metadata"]["labels"]["a"] == "b"


async def test_modules_of_the_cloud_cannot_be_played_by_an_edge(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        await furnish(client)
        async with raw_edge(site, own=True) as edge:
            for source in ("cloudhub", "edgecontroller", "synccontroller", "devicecontroller", "cloudStream"):
                await edge.say("delete", "default/pod/p1", {"gracePeriodSeconds": 0}, source=source)
                await edge.say("delete", "node/edge-2/default/pod/p2", {"gracePeriodSeconds": 0}, source=source)
            assert await edge.reason("query", "default/node/edge-1") == ""  # all that came before was taken
            for name in ("p1", "p2"):
                assert "deletionTimestamp" not in (await client.get(PODS, name, "default"))["metadata"]


async def test_statuses_of_old_edges_are_taken_whole(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        uids = await furnish(client)
        async with raw_edge(site) as edge:
            status = {"nodeInfo": {"kubeletVersion": "v1.19.3-kubeedge-v1.8.0"}, "volumesAttached": [{"name": "x"}]}
            asked = await edge.say("update", "default/nodestatus/edge-1", {"UID": "", "Status": status})
            answer = await edge.hear(lambda one: one["header"].get("parent_msg_id") == asked)
            assert (answer["content"], answer["route"]["resource"]) == ("OK", "default/node/edge-1")
            node = await client.get(NODES, "edge-1")
            assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.19.3-kubeedge-v1.8.0"
            assert "volumesAttached" not in node["status"]
            reports = [
                {"UID": uids["1"], "Name": "p1", "Status": {"phase": "Running"}},
                {"UID": "gone", "Name": "gone", "Status": {"phase": "Running"}},
            ]
            assert await edge.ask("update", "default/podstatus", reports) == "OK"
            assert (await client.get(PODS, "p1", "default"))["status"]["phase"] == "Running"
            ended = await acknowledged(edge, "delete", "default/pod/gone")
            assert ended["content"] == {"metadata": {"namespace": "default", "name": "gone", "uid": "gone"}}


async def test_requests_of_new_edges_are_answered(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        await furnish(client)
        root = config_map("kube-root-ca.crt", **{"ca.crt": "PEM"})
        root["metadata"]["namespace"] = "kube-system"
        await client.create(CONFIG_MAPS, root)
        async with raw_edge(site) as edge:
            assert await edge.ask("query", "k8s/ca.crt") == "PEM"
            made = await edge.ask("insert", "default/pod/static-edge-1", mirror("static-edge-1", "edge-1"))
            assert (made["Err"], made["Object"]["metadata"]["name"]) == (None, "static-edge-1")
            request = await signing_request("edge-1")
            made = await edge.ask("insert", "default/certificatesigningrequest/csr-edge-1", request)
            assert made["Err"] is None
            found = await edge.ask("query", "default/certificatesigningrequest/csr-edge-1")
            assert found["Object"]["spec"]["request"] == request["spec"]["request"]
            subject = pem.csr_subject(base64.b64decode(request["spec"]["request"]))
            assert subject == (("O", "system:nodes"), ("CN", "system:node:edge-1"))


async def patch_version(client: Client, version: str) -> None:
    status = {"status": {"nodeInfo": {"kubeletVersion": version}}}
    await client.patch(NODES, "edge-1", status, kind="strategic", subresource="status")


async def test_an_edge_of_v1_23_is_sent_its_node(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        await client.create(NODES, node_object("edge-1"))
        async with raw_edge(site) as edge:
            await patch_version(client, "v1.22.17-kubeedge-v1.12.7")
            await patch_version(client, "v1.32.10-kubeedge-v1.23.1")
            first = await edge.hear_about("update", "null/node/edge-1")
            assert first["content"]["status"]["nodeInfo"]["kubeletVersion"].endswith("v1.23.1")
            assert first["header"]["resourceversion"] == first["content"]["metadata"]["resourceVersion"]
            await edge.ack(first)
        async with raw_edge(site) as edge:
            await client.patch(NODES, "edge-1", {"metadata": {"labels": {"a": "b"}}})
            while True:  # the first may be repeated, if its acknowledgement was lost with the connection
                second = await acknowledged(edge, "update", "null/node/edge-1")
                if second["content"]["metadata"].get("labels") == {"a": "b"}:
                    break
            await client.delete(NODES, "edge-1")
            with anyio.fail_after(60):
                while edge.socket.closed is None:  # noqa: ASYNC110 - the cloud ends the session
                    await anyio.sleep(0.01)


async def test_a_volume_that_an_edge_asked_for_is_followed_to_its_end(make_site: SiteMaker) -> None:
    """KubeEdge v1.12 sends a delete some seconds after the query, for it looks for the volume in a namespace."""
    async with make_site() as site, site.cloud() as client:
        await furnish(client)
        async with raw_edge(site) as edge:
            for path in ("default/persistentvolume/v1", "default/persistentvolumeclaim/claim1"):
                asked = await edge.say("query", path)
                answer = await edge.hear(lambda one, asked=asked: one["header"].get("parent_msg_id") == asked)
                await edge.ack(answer)
            unprotected = {
                "labels": {"a": "b"},
                "finalizers": None,
            }  # as the controller leaves it that does not run here
            await client.patch(PERSISTENT_VOLUMES, "v1", {"metadata": unprotected})
            await acknowledged(edge, "update", "default/persistentvolume/v1")
            await client.delete(PERSISTENT_VOLUMES, "v1")
            await acknowledged(edge, "delete", "default/persistentvolume/v1")


async def acknowledged(edge: RawEdge, operation: str, path: str) -> dict[str, Any]:
    """Acknowledge whatever comes until this does: pods and what they need come too."""

    def is_object(one: dict[str, Any]) -> bool:
        return one["route"]["operation"] in ("insert", "update", "delete")

    while True:
        message = await edge.hear(is_object)
        await edge.ack(message)
        if (message["route"]["operation"], message["route"]["resource"]) == (operation, path):
            return message


async def test_an_edge_that_has_forgotten_a_pods_end_does_not_undo_it(make_site: SiteMaker) -> None:
    async with make_site() as site, site.cloud() as client:
        await furnish(client)
        async with raw_edge(site, own=True) as edge:
            uid = (await client.get(PODS, "p1", "default"))["metadata"]["uid"]

            async def phase_after(*said: str) -> str:
                for phase in said:
                    patch = json.dumps({"metadata": {"uid": uid}, "status": {"phase": phase}}).decode()
                    assert await edge.reason("patch", "default/podpatch/p1", patch) == ""
                return str((await client.get(PODS, "p1", "default"))["status"]["phase"])

            assert await phase_after("Running", "Failed") == "Failed"
            with anyio.fail_after(60):
                while await phase_after("Failed", "Running") != "Failed":
                    continue  # the cloud's cache has yet to see the end
