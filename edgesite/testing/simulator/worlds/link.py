"""The link between cloud and edges under all faults, with books kept of every message: rounds of trouble, each ended by peace.

Invariants: those of world `site` and of `Ledger`. After each round cloud and edges are equal within ``EQUAL_S``, and then fresh
changes arrive within ``FRESH_S``: sooner than synccontroller's next periodic proof, which would hide what the link has lost.
In the end the ObjectSyncs say what the edges hold.
"""

from __future__ import annotations

import functools
import random
from typing import Any, Final

import anyio

from edgesite.client import Client
from edgesite.cloud.cloudhub.records import ConnectedNodes
from edgesite.kube.resources import CONFIG_MAPS, NODES, OBJECT_SYNCS, PODS
from edgesite.testing.simulator.faults import Faults
from edgesite.testing.simulator.ledger import Ledger
from edgesite.testing.simulator.observers import CopyingWatcher, CountingWriter, version_of
from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import Scenario, World
from edgesite.testing.simulator.worlds.api import serving
from edgesite.testing.simulator.worlds.site import (
    COUNTED,
    StoreWatcher,
    change_deployment,
    converged,
    deleted,
    fetch_token,
    force_delete,
    nodes_ready,
    outcome_of,
    stored,
)

__all__ = ["lasting", "scenario"]

EQUAL_S: Final = 200.0  #: a sender gives a dead connection up after 120 s, and waits up to 60 s between tries
FRESH_S: Final = 20.0
RECORDED_S: Final = 40.0  #: synccontroller writes every 10 s
ROUND_S: Final = (40.0, 150.0)


def lasting(seconds: float) -> Scenario:
    """The world for so long in its own time, or a little longer."""

    async def scenario(world: World) -> None:
        site = Site(world, edges=world.rng.choice([2, 2, 3]))
        ledger = Ledger(site)
        with ledger.watching():
            await _play(site, ledger, seconds)

    return scenario


scenario = lasting(120.0)


async def _play(site: Site, ledger: Ledger, seconds: float) -> None:
    world = site.world
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    await site.until("token there", lambda: fetch_token(site), 60)
    for edge in site.edges.values():
        edge.host.start()
    await site.until("nodes ready", lambda: nodes_ready(site), 60)
    pods = CopyingWatcher(site, PODS, ledger.see_pod)
    watchers = [pods, CopyingWatcher(site, NODES)]
    writer = CountingWriter(site, COUNTED, random.Random(f"{world.seed}/writer"))
    async with anyio.create_task_group() as tasks:
        for watcher in [*watchers, CopyingWatcher(site, OBJECT_SYNCS, ledger.see_record)]:
            tasks.start_soon(watcher.run)
        for name in site.edges:
            tasks.start_soon(StoreWatcher(site, name, pods).run)
        while True:
            await _trouble(site, ledger, writer)
            site.mend()
            await site.until("pairs deleted", lambda: _delete_pairs(site), EQUAL_S)
            await site.until("nothing left behind", lambda: _left_behind(site), EQUAL_S)
            await site.until("converged", lambda: converged(site, watchers), EQUAL_S)
            await site.until("connected", lambda: _connected(site), EQUAL_S)
            await _fresh_changes(site)
            world.count("rounds that ended equal")
            if world.loop.time() >= seconds:
                break
        await site.until("recorded", lambda: _recorded(site), RECORDED_S)
        await site.until("deleted", lambda: deleted(site), EQUAL_S)
        tasks.cancel_scope.cancel()


async def _trouble(site: Site, ledger: Ledger, writer: CountingWriter) -> None:
    rng = site.world.rng
    async with anyio.create_task_group() as trouble:
        pause_s, mend_s = rng.choice([3.0, 8.0, 20.0]), rng.choice([1.0, 8.0, 30.0])
        trouble.start_soon(Faults(site, rng, pause_s=pause_s, mend_s=mend_s, ledger=ledger).run)
        trouble.start_soon(change_deployment, site)
        trouble.start_soon(writer.run)
        trouble.start_soon(_pairs, site)
        await anyio.sleep(rng.uniform(*ROUND_S))
        trouble.cancel_scope.cancel()


async def _connected(site: Site) -> str | None:
    """The cloud knows a session of each node that it has not lost: after a power cut edges may yet hold on to an older one."""
    cloud = site.cloud.now if site.cloud.running else None
    hub = cloud.services.find(ConnectedNodes) if cloud is not None else None  # type: ignore[type-abstract]
    missing = set(site.edges) - set(hub.nodes() if hub is not None else ())
    return f"{sorted(missing)} are not connected" if missing else None


async def _pairs(site: Site) -> None:
    """Pods with a ConfigMap each that live for a moment: what is deleted may still be on its way to the edge."""
    rng, number = site.world.rng, 0
    async with site.client() as client:
        while True:
            number += 1
            name = f"pair-{number}-{site.world.loop.time():.0f}"
            await _make_pair(site, client, name, rng.choice(list(site.edges)))
            await anyio.sleep(rng.choice([0.0, 0.05, 1.0, 10.0]) * rng.random())
            patch = {"data": {"n": "2"}}
            await site.call(functools.partial(client.patch, CONFIG_MAPS, name, patch, "default"))
            await anyio.sleep(rng.choice([0.0, 0.05, 1.0, 10.0]) * rng.random())
            await _delete_pair(site, client, name)
            await anyio.sleep(rng.uniform(0.0, 5.0))


async def _make_pair(site: Site, client: Client, name: str, node: str) -> None:
    metadata = {"name": name, "namespace": "default", "labels": {"pair": "true"}}
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"n": "1"}}
    await site.call(functools.partial(client.create, CONFIG_MAPS, data))
    container = {
        "name": "main",
        "image": "registry/pair:1",
        "env": [{"name": "N", "valueFrom": {"configMapKeyRef": {"name": name, "key": "n", "optional": True}}}],
    }
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    await site.call(functools.partial(client.create, PODS, pod))


async def _delete_pair(site: Site, client: Client, name: str) -> None:
    await site.call(functools.partial(client.delete, PODS, name, "default", grace_period_s=0))
    await site.call(functools.partial(client.delete, CONFIG_MAPS, name, "default"))


async def _delete_pairs(site: Site) -> str | None:
    """Those that were left when the trouble ended."""
    async with site.client() as client:

        async def look() -> str | None:
            left: set[str] = set()
            for kind in (PODS, CONFIG_MAPS):
                for one in (await client.list(kind, "default", label_selector="pair=true"))["items"]:
                    left.add(one["metadata"]["name"])
            return f"{len(left)} are left: {sorted(left)[:3]}" if left else None

        names = await site.call(functools.partial(client.list, CONFIG_MAPS, "default", label_selector="pair=true"))
        pods = await site.call(functools.partial(client.list, PODS, "default", label_selector="pair=true"))
        for one in [*(pods or {"items": []})["items"], *(names or {"items": []})["items"]]:
            await _delete_pair(site, client, one["metadata"]["name"])
        return await outcome_of(site, look)


async def _left_behind(site: Site) -> str | None:
    for name, edge in site.edges.items():
        for kind, one in await stored(edge):
            if one["metadata"]["name"].startswith("pair-"):
                return f"{name} holds {kind} {one['metadata']['name']}, which is gone"
    return None


async def _fresh_changes(site: Site) -> None:
    """Changes that chase each other: the newest must be there soon, and what was deleted must be gone."""
    async with site.client() as client:
        for _ in range(3):
            for number in range(5):
                patch = {"data": {"fresh": str(number), "round": str(site.world.loop.time())}}
                await site.call(functools.partial(client.patch, CONFIG_MAPS, COUNTED, patch, "default"))
            await site.until("newest there", lambda: _newest_there(site, client), FRESH_S)
        await force_delete(site, client)
        await site.until("deleted pod gone", lambda: _same_pods(site, client), FRESH_S)


async def _newest_there(site: Site, client: Client) -> str | None:
    async def look() -> str | None:
        found = (await client.list(CONFIG_MAPS, "default"))["items"]
        wanted = [version_of(one) for one in found if one["metadata"]["name"] == COUNTED]
        users = {pod["spec"].get("nodeName") for pod in (await client.list(PODS, "default"))["items"]}
        for name, edge in site.edges.items():
            held = [
                version_of(one)
                for kind, one in await stored(edge)
                if kind == "configmap" and one["metadata"]["name"] == COUNTED
            ]
            if name in users and held != wanted:
                return f"{name} holds the ConfigMap at {held}, the API has it at {wanted}"
        return None

    return await outcome_of(site, look)


async def _same_pods(site: Site, client: Client) -> str | None:
    async def look() -> str | None:
        pods = (await client.list(PODS, "default"))["items"]
        for name, edge in site.edges.items():
            wanted = {pod["metadata"]["uid"] for pod in pods if pod["spec"].get("nodeName") == name}
            held = {one["metadata"]["uid"] for kind, one in await stored(edge) if kind == "pod"}
            if wanted != held:
                return f"{name} holds the pods {sorted(held)}, the API has {sorted(wanted)}"
        return None

    return await outcome_of(site, look)


async def _recorded(site: Site) -> str | None:
    """Each ObjectSync of a pod or ConfigMap of an edge names the version that the edge holds."""
    async with site.client() as client:

        async def look() -> str | None:
            records: dict[str, str] = {}
            for one in (await client.list(OBJECT_SYNCS))["items"]:
                if one["spec"]["objectKind"] in ("Pod", "ConfigMap"):
                    status = one.get("status") or {}  # made, but not filled yet
                    records[one["metadata"]["name"]] = status.get("objectResourceVersion", "")
            held: dict[str, Any] = {}
            for name, edge in site.edges.items():
                for _, obj in await stored(edge):
                    held[f"{name}.{obj['metadata']['uid']}"] = obj["metadata"]["resourceVersion"]
            wrong = sorted(key for key in {*records, *held} if records.get(key) != held.get(key))
            return f"recorded {[(key, records.get(key), held.get(key)) for key in wrong[:3]]}" if wrong else None

        return await outcome_of(site, look)
