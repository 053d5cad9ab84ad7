"""A cloud role with the embedded API server, and edge roles without edged: the link between them is what is tested."""

from __future__ import annotations

import copy
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from edgesite.apiserver.module import ApiServerModule
from edgesite.client import Client
from edgesite.client.kubeapi import KubeApiModule
from edgesite.cloud.cloudhub.module import CloudHub
from edgesite.cloud.edgecontroller.module import EdgeController
from edgesite.cloud.synccontroller.module import SyncController
from edgesite.context import Context, Module, Section
from edgesite.edge.edgehub.module import EdgeHub
from edgesite.edge.metamanager import Meta
from edgesite.edge.metamanager.module import MetaManager
from edgesite.kube import resources
from edgesite.net.real import RealClock, RealDisk, RealNet, RealThreads
from edgesite.runtime.config.site import EdgeSite
from edgesite.runtime.plugins import PluginHost
from edgesite.runtime.role import RoleHost, World
from edgesite.testing.waiting import DEADLINE_S
from edgesite.wire.message import Message


class Witness:
    """Stands where edged will: keeps what is sent to its group."""

    name = "edged"
    roles = frozenset({"edge"})
    needs = frozenset({"metamanager"})
    section = ""
    seen: list[Message]

    def enabled(self, settings: Section) -> bool:
        return True

    async def run(self, ctx: Context) -> None:
        inbox = ctx.bus.join("edged", "edged")
        self.seen = []
        ctx.services.provide(Witness, self)
        ctx.ready()
        async for message in inbox:
            self.seen.append(message)


@dataclass
class Edge:
    host: RoleHost

    @property
    def meta(self) -> Meta:
        return self.host.services.get(Meta)  # type: ignore[type-abstract]

    @property
    def seen(self) -> list[Message]:
        return self.host.services.get(Witness).seen

    def saw(self, operation: str, path: str) -> list[Message]:
        return [one for one in self.seen if (one.operation, one.resource) == (operation, path)]


@dataclass
class Site:
    """Starts and stops roles on one data folder."""

    folder: Path
    world: World
    values: dict[str, Any]
    token: str = ""
    hub_port: int = 0
    bootstrap_port: int = 0
    cloud_host: RoleHost | None = None

    @property
    def client(self) -> Client:
        assert self.cloud_host is not None
        return self.cloud_host.services.get(Client)

    @asynccontextmanager
    async def cloud(self, *more: type[Module]) -> AsyncIterator[Client]:
        settings = Section({**self.values["cloud"], "api": self.values["api"]})
        modules = [ApiServerModule, EdgeController, SyncController, CloudHub, *more]
        self.cloud_host = RoleHost("cloud", modules, settings, self.world, data_dir=self.folder / "cloud")
        async with running(self.cloud_host):
            yield self.client

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[Client]:
        """An API server alone, as a cluster has it; clouds made by `instance` work on it."""
        settings = Section({**self.values["cloud"], "api": self.values["api"]})
        host = RoleHost("cloud", [ApiServerModule], settings, self.world, data_dir=self.folder / "cluster")
        async with running(host):
            yield host.services.get(Client)

    @asynccontextmanager
    async def instance(
        self, name: str, *more: type[Module], settings: dict[str, Any] | None = None
    ) -> AsyncIterator[tuple[int, RoleHost]]:
        """A cloud role on the cluster, by its kubeconfig; gives the port of its hub. ``settings`` are of its modules."""
        values = copy.deepcopy(self.values["cloud"])
        for section, members in (settings or {}).items():
            values["modules"][section] |= members
        values["kubeAPIConfig"]["kubeConfig"] = self.values["api"]["adminKubeconfig"]
        ports = free_ports(2)
        for listener, port in zip(("websocket", "https"), ports, strict=True):
            values["modules"]["cloudHub"][listener] |= {"address": "127.0.0.1", "port": port}
        self.bootstrap_port = ports[1]
        world = replace(self.world, net=RealNet(), site={**self.world.site, "embedded_api": False})
        modules = [KubeApiModule, EdgeController, SyncController, CloudHub, *more]
        section = Section({**values, "api": {"enable": False}})
        host = RoleHost("cloud", modules, section, world, data_dir=self.folder / name)
        async with running(host):
            yield ports[0], host

    @asynccontextmanager
    async def edge(
        self, node: str = "edge-1", *more: type[Module], servers: str = "", bootstraps: str = ""
    ) -> AsyncIterator[Edge]:
        values = self.edge_values(node)
        hub = values["modules"]["edgeHub"]
        hub["websocket"]["server"] = servers or hub["websocket"]["server"]
        hub["httpServer"] = bootstraps or hub["httpServer"]
        settings = Section(values)
        modules = [MetaManager, EdgeHub, Witness, *more]
        host = RoleHost("edge", modules, settings, self.world, data_dir=self.folder / node, node_name=node)
        async with running(host):
            yield Edge(host)

    def edge_values(self, node: str) -> dict[str, Any]:
        """The settings of an edge, with certificate files and a token of its own."""
        values = dict(self.values["edge"])
        values["modules"] = dict(values["modules"])
        pki = self.folder / node / "pki"
        values["modules"]["edgeHub"] = {
            **values["modules"]["edgeHub"],
            "tlsCaFile": str(pki / "ca.crt"),
            "tlsCertFile": str(pki / "node.crt"),
            "tlsPrivateKeyFile": str(pki / "node.key"),
            "token": self.token,
            "httpServer": f"https://127.0.0.1:{self.bootstrap_port}",
            "websocket": {
                **values["modules"]["edgeHub"]["websocket"],
                "server": f"127.0.0.1:{self.hub_port}",
            },
        }
        return values


@asynccontextmanager
async def running(host: RoleHost) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        with anyio.fail_after(DEADLINE_S):
            await host.ready.wait()
        yield
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def site_at(folder: Path, *, single_process: bool) -> AsyncIterator[Site]:
    values = EdgeSite().model_dump(mode="json")
    values["api"]["address"] = "127.0.0.1:0"
    values["api"]["adminKubeconfig"] = str(folder / "admin.kubeconfig")
    hub = values["cloud"]["modules"]["cloudHub"]
    for name in ("tlsCAFile", "tlsCAKeyFile", "tlsCertFile", "tlsPrivateKeyFile"):
        hub[name] = str(folder / "no" / name)
    ports = free_ports(2)
    for name, port in zip(("websocket", "https"), ports, strict=True):
        hub[name] |= {"enable": not single_process, "address": "127.0.0.1", "port": port}
    threads = RealThreads()
    facts = {"version": "0", "embedded_api": True, "single_process": single_process}
    world = World(RealClock(), random.Random(), RealNet(), threads, RealDisk(), PluginHost(()), facts)
    try:
        yield Site(folder, world, values, hub_port=ports[0], bootstrap_port=ports[1])
    finally:
        with anyio.CancelScope(shield=True):
            await threads.close()


def free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        opened = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]


SiteMaker = Callable[..., AbstractAsyncContextManager[Site]]


def node_object(name: str) -> dict[str, Any]:
    return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}, "status": {"conditions": []}}


def pod_object(name: str, node: str = "edge-1", **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "app"}], **spec},
    }


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default"},
        "data": data,
    }


async def create_account(client: Client, namespace: str = "default") -> None:
    """The service account that pods need; the controller that makes it does not run here."""
    account = {"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "default", "namespace": namespace}}
    await client.create(resources.SERVICE_ACCOUNTS, account)
