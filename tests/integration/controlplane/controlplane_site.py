"""The control plane on the real API server and store, in one process, with a node whose kubelet is a few lines."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from prometheus_client import CollectorRegistry

from edgesite.apiserver.accountkeys import AccountKeys
from edgesite.apiserver.accounttokens import AccountTokens
from edgesite.apiserver.assembly import assemble, serve_kinds
from edgesite.apiserver.authn import User
from edgesite.apiserver.bootstrap import bootstrap
from edgesite.apiserver.selection import indexer
from edgesite.apiserver.transport import InProcessTransport
from edgesite.client import Client, Informer, SharedInformers
from edgesite.context import Context, Section, Settings
from edgesite.controlplane import plugin
from edgesite.kube import schema
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import LEASES, NODES, PODS, Resource
from edgesite.kube.times import format_micro, format_time
from edgesite.net.real import RealClock, RealDisk
from edgesite.net.rsa import PrivateKey
from edgesite.net.threads import RealThreads
from edgesite.runtime.services import LocalServices
from edgesite.store import Store
from edgesite.testing.simulator.pki import SimPki

SCHEMAS = schema.load()
USER = User("system:edgesite", ("system:masters",))
SETTINGS = Settings(api=Section({"enable": True}), cloud=Section({"api": {"enable": True}}))
Object = dict[str, Any]


class Site:
    """What a test works with."""

    def __init__(self, client: Client, informers: SharedInformers, clock: RealClock) -> None:
        self.client, self.informers, self.clock = client, informers, clock

    async def until(self, resource: Resource, holds: Callable[[Informer], Any], timeout_s: float = 60.0) -> Any:
        """Wait until ``holds`` is true of the cache of a kind; returns what it returned."""
        informer = self.informers.of(resource)
        changed = anyio.Event()

        def note(obj: Object) -> None:
            changed.set()

        with informer.on_change(note), anyio.fail_after(timeout_s):
            while True:
                if informer.has_synced and (found := holds(informer)):
                    return found
                changed = anyio.Event()
                if not informer.has_synced:
                    await informer.wait_synced()
                else:
                    await changed.wait()

    async def node(self, name: str = "n1", cpu: str = "4", **meta: Any) -> None:
        """Register a node that reports Ready."""
        capacity = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
        now = format_time(self.clock.time())
        ready = {
            "type": "Ready",
            "status": "True",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": "KubeletReady",
        }
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, **meta}}
        made = await self.client.create(NODES, node)
        made["status"] = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
        await self.client.update_status(NODES, made)
        await self.renew(name)

    async def renew(self, name: str) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": format_micro(self.clock.time())},
        }
        try:
            await self.client.create(LEASES, lease)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise
            await self.client.patch(LEASES, name, {"spec": lease["spec"]}, "kube-node-lease")


async def run_kubelet(site: Site) -> None:
    """Start every bound pod at once, and remove it when it is deleted."""
    async with anyio.create_task_group() as tasks:
        addresses = iter(range(2, 60000))

        async def start(pod: Object) -> None:
            meta = pod["metadata"]
            number = next(addresses)
            now = format_time(site.clock.time())
            address = f"10.1.{number // 250}.{number % 250}"
            status = {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "startTime": now,
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
            }
            await _ignore_gone(
                site.client.patch(
                    PODS, meta["name"], {"status": status}, meta["namespace"], kind="strategic", subresource="status"
                )
            )

        async def end(pod: Object) -> None:
            meta = pod["metadata"]
            await _ignore_gone(
                site.client.delete(PODS, meta["name"], meta["namespace"], grace_period_s=0, uid=meta["uid"])
            )

        def seen(pod: Object) -> None:
            if not pod["spec"].get("nodeName"):
                return
            if pod["metadata"].get("deletionTimestamp"):
                tasks.start_soon(end, pod)
            elif not (pod.get("status") or {}).get("podIP"):
                tasks.start_soon(start, pod)

        with site.informers.of(PODS).add_handler(seen, lambda old, new: seen(new)):
            await anyio.sleep_forever()


async def _ignore_gone(call: Any) -> None:
    try:
        await call
    except ApiError as exc:
        if exc.code not in (404, 409):
            raise


@asynccontextmanager
async def site_at(path: Path) -> AsyncIterator[Site]:
    """Serve the API and run all controllers until the block ends."""
    kinds = serve_kinds(SCHEMAS, ())
    clock, threads = RealClock(), RealThreads()
    (path / "pki").mkdir(exist_ok=True)
    (path / "pki" / "ca.crt").write_text("a certificate\n")
    store = await Store.open(path / "state.db", clock=clock, threads=threads, disk=RealDisk(), index=indexer(kinds))
    async with store:
        signing = await SimPki(random.Random(7), clock).make_signing_key()
        keys = AccountKeys.of(PrivateKey.load(signing))
        made = assemble(
            store, kinds, SCHEMAS, clock=clock, random=random.Random(3), threads=threads, version="0.1.0", keys=keys
        )
        await bootstrap(made.registry, service_ip="10.96.0.1", address="127.0.0.1", port=6443)
        client = Client(InProcessTransport(made.server, USER), component="test")
        services = LocalServices()
        services.provide(Client, client)
        services.provide(AccountTokens, made.accounts)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.run)
            tasks.start_soon(made.watches.run)
            for kind in plugin.edgesite_modules(SETTINGS):
                ready = anyio.Event()
                tasks.start_soon(kind().run, _context(path, kind.name, services, clock, threads, ready.set))
                with anyio.fail_after(60):
                    await ready.wait()
            site = Site(client, services.get(SharedInformers), clock)
            tasks.start_soon(run_kubelet, site)
            yield site
            tasks.cancel_scope.cancel()
    await threads.close()


def _context(
    path: Path, name: str, services: LocalServices, clock: RealClock, threads: RealThreads, ready: Callable[[], None]
) -> Context:
    return Context(
        role="cloud",
        module=name,
        node_name="",
        config=Section({}),
        settings=Section({"api": {"enable": True}}),
        data_dir=path,
        clock=clock,
        random=random.Random(5),
        net=None,
        threads=threads,
        disk=None,
        bus=None,
        services=services,
        health=None,
        metrics=CollectorRegistry(),
        log=logging.getLogger(f"edgesite.{name}"),
        hooks=None,
        ready=ready,
    )
