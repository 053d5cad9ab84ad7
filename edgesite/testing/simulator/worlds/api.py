"""The cloud role under faults, seen by an administrator: API server, store, controllers; no edges.

Invariants: those of `observers`; a Deployment ends with exactly the ReplicaSets and pods that it asks for.
"""

from __future__ import annotations

import functools
import random
from typing import Any

import anyio

from edgesite.kube.resources import CONFIG_MAPS, DEPLOYMENTS, PODS, REPLICA_SETS
from edgesite.testing.simulator.faults import Faults
from edgesite.testing.simulator.observers import CopyingWatcher, CountingWriter
from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import World

__all__ = ["deployment", "scenario"]


def deployment(name: str, replicas: int, image: str) -> dict[str, Any]:
    labels = {"app": name}
    spec = {"containers": [{"name": "main", "image": image}], "terminationGracePeriodSeconds": 2}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


async def scenario(world: World) -> None:
    site = Site(world, edges=0)
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    watchers = [CopyingWatcher(site, one) for one in (CONFIG_MAPS, PODS, DEPLOYMENTS)]
    writers = [CountingWriter(site, f"count-{n}", random.Random(f"{world.seed}/writer {n}")) for n in range(2)]
    wanted = {"replicas": 0}
    async with anyio.create_task_group() as tasks:
        for watcher in watchers:
            tasks.start_soon(watcher.run)
        for writer in writers:
            tasks.start_soon(writer.run)
        async with anyio.create_task_group() as trouble:
            faults = Faults(site, world.rng, pause_s=world.rng.choice([3.0, 10.0]), mend_s=world.rng.choice([1.0, 8.0]))
            trouble.start_soon(faults.run)
            trouble.start_soon(scale_up_and_down, site, wanted)
            await anyio.sleep(world.rng.uniform(20.0, 60.0))
            trouble.cancel_scope.cancel()
        site.mend()
        await site.until("converged", lambda: converged(site, watchers, writers, wanted), 120)
        tasks.cancel_scope.cancel()


async def serving(site: Site) -> str | None:
    if not site.cloud.ready:
        return "the cloud role is not ready"
    return None


async def scale_up_and_down(site: Site, wanted: dict[str, int]) -> None:
    """Keep asking for another number of replicas. The template stays: without a node no pod ever gets ready."""
    rng = site.world.rng
    async with site.client() as client:
        while True:
            replicas = rng.randint(0, 4)
            first = deployment("web", replicas, "registry/web:1")
            if not wanted["replicas"]:
                await site.call(functools.partial(client.create, DEPLOYMENTS, first))
            patch = {"spec": {"replicas": replicas}}
            if await site.call(functools.partial(client.patch, DEPLOYMENTS, "web", patch, "default")):
                wanted["replicas"] = replicas
            await anyio.sleep(rng.uniform(0.5, 15.0))


async def converged(
    site: Site, watchers: list[CopyingWatcher], writers: list[CountingWriter], wanted: dict[str, int]
) -> str | None:
    async with site.client() as client:

        async def look() -> str | None:
            for writer in writers:
                acknowledged = writer.acknowledged
                found = [
                    one
                    for one in (await client.list(CONFIG_MAPS, "default"))["items"]
                    if one["metadata"]["name"] == writer.name
                ]
                writer.check(found[0] if found else None, acknowledged)
            for watcher in watchers:
                if difference := watcher.differs_from(await client.list(watcher.resource)):
                    return difference
            deployments = (await client.list(DEPLOYMENTS, "default"))["items"]
            if not deployments:
                return None
            replicas = deployments[0]["spec"]["replicas"]
            pods = (await client.list(PODS, "default"))["items"]
            sets = [one for one in (await client.list(REPLICA_SETS, "default"))["items"] if one["spec"]["replicas"]]
            if len(pods) != replicas:
                return f"{replicas} pods wanted: {describe(pods)} of {describe(sets)}"
            return None if len(sets) == (1 if replicas else 0) else f"{len(sets)} replica sets are in use"

        outcome = await site.call(lambda: _said(look))
    return outcome if outcome != "nothing" else None


def describe(objects: list[dict[str, Any]]) -> str:
    """Names and what decides about them, for messages."""
    parts = []
    for one in objects:
        meta, spec, status = one["metadata"], one.get("spec", {}), one.get("status", {})
        facts = {
            "deleted": meta.get("deletionTimestamp"),
            "phase": status.get("phase"),
            "node": spec.get("nodeName"),
            "replicas": spec.get("replicas"),
        }
        owners = [owner["name"] for owner in meta.get("ownerReferences", [])]
        parts.append(
            f"{meta['name']}@{meta['resourceVersion']}{owners} { ({name: fact for name, fact in facts.items() if fact is not None}) }"
        )
    return "; ".join(parts) or "none"


async def _said(look: Any) -> str:
    return await look() or "nothing"
