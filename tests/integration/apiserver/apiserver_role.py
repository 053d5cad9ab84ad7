"""The module ``apiserver`` in a role of its own, on loopback, with TLS."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from edgesite.apiserver.module import ApiServerModule
from edgesite.client.kubeconfig import load
from edgesite.context import Clock, Section
from edgesite.net import address as addresses
from edgesite.net.client import HttpClient
from edgesite.net.real import RealClock, RealDisk, RealNet
from edgesite.net.threads import RealThreads
from edgesite.net.tls import client_context
from edgesite.runtime.role import RoleHost, World

SETTINGS: dict[str, Any] = {
    "enable": True,
    "address": "127.0.0.1:0",
    "advertiseAddress": "",
    "certSANs": ["edge.example.com"],
    "adminKubeconfig": "",
    "tokenAuthFile": "",
    "serviceAccountIssuers": ["https://kubernetes.default.svc.cluster.local"],
    "serviceAccountKeyFiles": [],
    "apiAudiences": [],
    "serviceAccountMaxTokenExpiration": "0s",
    "serviceAccountExtendTokenExpiration": True,
    "clusterName": "edgesite",
    "serviceClusterIPRange": "10.96.0.0/16",
    "serviceNodePortRange": "30000-32767",
    "maxRequestBytes": 3 * 1024 * 1024,
    "maxRequestsInFlight": 400,
    "maxConnections": 100,
    "eventTTL": "1h",
    "historyRetention": "5m0s",
    "leaseSnapshotInterval": "5m0s",
}


class NoPlugins:
    def admission(self, settings: Any) -> list[Any]:
        return []

    def resources(self) -> list[Any]:
        return []


@dataclass
class Running:
    host: RoleHost
    kubeconfig: Path
    folder: Path

    @property
    def address(self) -> str:
        access = load(self.kubeconfig)
        return addresses.join(access.host, access.port)

    def client(self, *, certificate: bool = False, token: str | None = None) -> HttpClient:
        """A client of the server; with the administrator's certificate, with a token, or with nothing."""
        pki = self.folder / "cloud" / "pki"
        own = (pki / "admin.crt", pki / "admin.key") if certificate else (None, None)
        context = client_context(ca=pki / "ca.crt", certificate=own[0], key=own[1])
        return HttpClient(RealNet(), self.address, tls=context, token=token)


@asynccontextmanager
async def role_at(folder: Path, *, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Running]:
    """Run the module until the block ends."""
    kubeconfig = folder / "admin.kubeconfig"
    api = {**SETTINGS, "adminKubeconfig": str(kubeconfig), **settings}
    world = World(
        clock=clock or RealClock(),
        random=random.Random(),
        net=RealNet(),
        threads=RealThreads(),
        disk=RealDisk(),
        hooks=NoPlugins(),  # type: ignore[arg-type]
        site={"version": "0.1.0"},
    )
    host = RoleHost("cloud", [ApiServerModule], Section({"api": api}), world, data_dir=folder / "cloud")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.run)
        with anyio.fail_after(60):
            await host.ready.wait()
        yield Running(host, kubeconfig, folder)
        tasks.cancel_scope.cancel()
