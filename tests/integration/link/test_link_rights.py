"""The cloud role on a cluster gets by with the rights that packaging/kubernetes/cloud-rbac.yaml gives it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from link_site import Edge, Site, SiteMaker, config_map, create_account, free_ports, node_object, pod_object
from test_link_tls import read_token

from edgesite.apiserver.assembly import assemble, serve_kinds
from edgesite.apiserver.authn import User
from edgesite.apiserver.authz import Attributes, Decision
from edgesite.apiserver.bootstrap import bootstrap
from edgesite.apiserver.selection import indexer
from edgesite.apiserver.transport import InProcessTransport
from edgesite.client import Client
from edgesite.cloud.cloudstream.module import CloudStream
from edgesite.cloud.devicecontroller.module import DeviceController
from edgesite.cloud.policycontroller.module import PolicyController
from edgesite.edge.access.access import Access, Identity, TokenReviewer
from edgesite.edge.access.module import AccessModule
from edgesite.edge.devicetwin import Devices, Reported
from edgesite.edge.devicetwin.module import DeviceTwin
from edgesite.kube import schema
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import (
    CONFIG_MAPS,
    DEVICE_MODELS,
    DEVICES,
    EVENTS,
    OBJECT_SYNCS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    Resource,
)
from edgesite.net.http import HttpServer
from edgesite.store.store import Store
from edgesite.testing.waiting import DEADLINE_S, until

pytestmark = pytest.mark.anyio
RIGHTS = Path(__file__).parents[3] / "packaging" / "kubernetes" / "cloud-rbac.yaml"
#: what edges ask for by type and name; none of it need be there
ASKED = (
    ("node", "edge-1"),
    ("configmap", "words"),
    ("secret", "none"),
    ("persistentvolume", "none"),
    ("persistentvolumeclaim", "none"),
    ("volumeattachment", "none"),
    ("runtimeclass", "none"),
    ("csidriver", "none"),
    ("csinode", "edge-1"),
    ("servicelist", "default"),
    ("ca.crt", "none"),
)
ACCOUNT = User("system:serviceaccount:kubeedge:cloudcore", ("system:serviceaccounts", "system:authenticated"))


class Rights:
    """Grants what the file's roles grant, wherever they hold, and remembers what they do not."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.granted: set[str] = set()
        self._rules: list[tuple[str, dict[str, Any]]] = []  # namespace ("" for all), rule
        for obj in yaml.safe_load_all(RIGHTS.read_text()):
            if obj["kind"] in ("ClusterRole", "Role"):
                namespace = obj["metadata"].get("namespace", "")
                self._rules += [(namespace, rule) for rule in obj["rules"]]

    def authorize(self, user: User, wanted: Attributes) -> tuple[Decision, str]:
        if user.name != ACCOUNT.name:
            return Decision.NO_OPINION, ""
        what = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
        for namespace, rule in self._rules:
            if (
                namespace in ("", wanted.namespace)
                and wanted.group in rule["apiGroups"]
                and what in rule["resources"]
                and wanted.verb in rule["verbs"]
            ):
                self.granted.add(f"{wanted.verb} {what} {wanted.namespace}")
                return Decision.ALLOW, ""
        if wanted.path != "/version":
            self.refused.append(f"{wanted.verb} {what} {wanted.namespace}")
        return Decision.NO_OPINION, ""


@asynccontextmanager
async def cluster(site: Site, rights: Rights) -> AsyncIterator[Client]:
    """An API server that holds the account to its rights; gives an administrator's client."""
    schemas, world = schema.load(), site.world
    kinds = serve_kinds(schemas, ())
    store = await Store.open(
        site.folder / "cluster.db", clock=world.clock, threads=world.threads, disk=world.disk, index=indexer(kinds)
    )
    async with store, anyio.create_task_group() as tasks:
        made = assemble(
            store,
            kinds,
            schemas,
            clock=world.clock,
            random=random.Random(7),
            threads=world.threads,
            version="0.1.0",
            tokens={"letmein": ACCOUNT},
            authorizers=[rights],
        )
        await bootstrap(made.registry, service_ip="10.96.0.1", address="127.0.0.1", port=6443)
        tasks.start_soon(made.run)
        async with HttpServer(made.server.handle) as server:
            listener = await server.listen(world.net, "127.0.0.1:0")
            site.values["api"]["adminKubeconfig"] = str(_kubeconfig(site.folder, listener.address))
            yield Client(InProcessTransport(made.server, User("admin", ("system:masters",))))
        tasks.cancel_scope.cancel()


def _kubeconfig(folder: Path, address: str) -> Path:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://{address}"}}],
        "users": [{"name": "u", "user": {"token": "letmein"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path = folder / "cloud.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


async def test_least_rights_are_enough(make_site: SiteMaker) -> None:
    rights = Rights()
    async with make_site(single_process=False) as site, cluster(site, rights) as admin:
        await create_account(admin)
        ports = dict(zip(("tunnelPort", "streamPort"), free_ports(2), strict=True))
        site.values["cloud"]["featureGates"] = {"requireAuthorization": True}
        modules = (CloudStream, DeviceController, PolicyController)
        async with site.instance("one", *modules, settings={"cloudStream": ports}) as (port, _):
            site.token = await read_token(admin)
            async with site.edge("edge-1", DeviceTwin, AccessModule, servers=f"127.0.0.1:{port}") as edge:
                with anyio.fail_after(DEADLINE_S):
                    await _play(edge, admin)
                    await _play_device(edge, admin)
                    await _appears(admin, CONFIG_MAPS, "kubeedge", name="tunnelport")
            with anyio.fail_after(DEADLINE_S):  # records are written at once when the edge has left
                await _appears(admin, OBJECT_SYNCS, "default")
    assert [one for one in rights.refused if one != "create namespaces "] == []
    assert rights.granted >= {
        "create objectsyncs default",
        "patch pods/status default",
        "delete pods default",
        "create serviceaccounts/token default",
        "create serviceaccountaccesses default",
        "patch serviceaccountaccesses/status default",
        "patch devices default",
    }


async def _play_device(edge: Edge, admin: Client) -> None:
    """A device from its binding to its first report."""
    name = {"name": "d", "namespace": "default"}
    properties = [{"name": "t", "type": "INT"}]
    await admin.create(DEVICE_MODELS, {"metadata": name, "spec": {"properties": properties}})
    spec = {"deviceModelRef": {"name": "d"}, "nodeName": "edge-1", "properties": [{"name": "t"}]}
    await admin.create(DEVICES, {"metadata": name, "spec": spec})
    devices = edge.host.services.get(Devices)  # type: ignore[type-abstract]
    await until(lambda: devices.namespace_of("d"))
    await devices.report_twins("default", "d", [Reported("t", "1")])
    while True:
        if (await admin.get(DEVICES, "d", "default")).get("status"):
            return
        await anyio.sleep(0.02)


async def _play(edge: Edge, admin: Client) -> None:
    """An edge's life: Node, lease, pod with what it refers to, what it may ask for, reports, and the end of the pod."""
    meta = edge.meta
    await meta.wait_connected()
    node = node_object("edge-1")
    node["metadata"]["labels"] = {"node-role.kubernetes.io/edge": ""}
    await meta.insert("node", "", "edge-1", node)
    await meta.update("node", "", "edge-1", node_object("edge-1"))
    lease = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "spec": {"holderIdentity": "edge-1"}}
    lease["metadata"] = {"name": "edge-1", "namespace": "kube-node-lease"}
    created = await meta.insert("lease", "kube-node-lease", "edge-1", lease)
    await meta.update("lease", "kube-node-lease", "edge-1", created)
    await admin.create(CONFIG_MAPS, config_map("words", word="one"))
    claim = {"name": "c", "persistentVolumeClaim": {"claimName": "none"}}
    volumes = [{"name": "w", "configMap": {"name": "words"}}, {"name": "s", "secret": {"secretName": "none"}}, claim]
    size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    made = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "none"}, "spec": size}
    claimed = (await admin.create(PERSISTENT_VOLUME_CLAIMS, made, "default"))["metadata"]["uid"]
    pod = await admin.create(PODS, pod_object("web", volumes=volumes))
    await until(lambda: edge.saw("insert", "default/pod/web"))
    await until(lambda: edge.saw("update", "default/serviceaccountaccess/default"))
    with_token = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": pod["metadata"]["uid"]}
    for type_, name in ASKED:
        with suppress(ApiError):  # most are not there
            await meta.query_remote(type_, "default", name, timeout_s=5)
    with suppress(ApiError):  # this API server has no key to sign with
        await meta.token("default", "default", {"spec": {"boundObjectRef": with_token, "audiences": ["api"]}})
    reviewer = edge.host.services.get(TokenReviewer)  # type: ignore[type-abstract]
    with pytest.raises(ApiError, match="Unauthorized"):
        await reviewer.review("forged")
    known = await reviewer.review("letmein")
    access = edge.host.services.get(Access)  # type: ignore[type-abstract]
    assert (await access.decide(known, Attributes("list", resource="pods"))).allowed
    assert not (await access.decide(Identity("bob"), Attributes("list", resource="pods"))).allowed
    status = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"phase": "Running"}}
    await meta.patch("pod", "default", "web", status)
    await meta.patch("node", "", "edge-1", {"status": {"conditions": []}})
    await meta.patch("persistentvolumeclaim", "default", "none", {"metadata": {"uid": claimed}, "status": {}})
    drivers = {"metadata": {"name": "edge-1"}, "spec": {"drivers": []}}
    made = await meta.insert("csinode", "", "edge-1", drivers)
    one = {"name": "folders.test", "nodeID": "edge-1", "topologyKeys": []}
    made = await meta.update("csinode", "", "edge-1", made | {"spec": {"drivers": [one]}})
    assert made["spec"]["drivers"][0]["name"] == "folders.test"
    await meta.report_event(_event(pod))
    await _appears(admin, EVENTS, "default")
    await admin.delete(PODS, "web", "default", grace_period_s=30)
    await until(lambda: edge.saw("update", "default/pod/web"))
    await meta.confirm_deleted("default", "web", pod["metadata"]["uid"])
    await _ends(admin, PODS, "default")


def _event(pod: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "web.1", "namespace": "default"}
    about = {"kind": "Pod", "name": "web", "namespace": "default", "uid": pod["metadata"]["uid"]}
    return {"kind": "Event", "apiVersion": "v1", "metadata": metadata, "involvedObject": about, "reason": "Started"}


async def _appears(admin: Client, kind: Resource, namespace: str, *, name: str = "") -> None:
    """Wait until there is such an object, of that name if one is given."""
    await _changes(admin, kind, namespace, name, lambda items: bool(items))


async def _ends(admin: Client, kind: Resource, namespace: str) -> None:
    await _changes(admin, kind, namespace, "", lambda items: not items)


async def _changes(
    admin: Client, kind: Resource, namespace: str, name: str, is_so: Callable[[list[Any]], bool]
) -> None:
    selector = f"metadata.name={name}" if name else ""
    found = await admin.list(kind, namespace, field_selector=selector)
    if is_so(found["items"]):
        return
    version = found["metadata"]["resourceVersion"]
    async with admin.watch(kind, namespace, resource_version=version, field_selector=selector) as events:
        async for _ in events:
            if is_so((await admin.list(kind, namespace, field_selector=selector))["items"]):
                return
