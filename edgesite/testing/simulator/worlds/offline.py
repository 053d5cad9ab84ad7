"""A node without its cloud for a quarter of an hour: pods go on, come back after a reboot, and are not replaced.

Invariants: while the link is cut every pod of the node runs again soon after whatever happened to it there (a crash of its program, of
edgesite, of the machine); a crash of edgesite alone restarts nothing; in the end the same pods are there, with the newest ConfigMap.
"""

from __future__ import annotations

from typing import Any, Final

import anyio

from edgesite.kube.resources import CONFIG_MAPS, DEPLOYMENTS, PODS
from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import Violation, World
from edgesite.testing.simulator.worlds.api import serving
from edgesite.testing.simulator.worlds.site import fetch_token, nodes_ready, running_pods, stored, web

__all__ = ["scenario"]

OFFLINE_S: Final = 900.0
BACK_S: Final = 30.0  #: from any disturbance until all programs run again
NODE: Final = "edge-1"


async def scenario(world: World) -> None:
    site = Site(world, edges=2)
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    await site.until("token there", lambda: fetch_token(site), 60)
    for edge in site.edges.values():
        edge.host.start()
    await site.until("nodes ready", lambda: nodes_ready(site), 60)
    async with site.client() as client:
        await site.call(lambda: client.create(CONFIG_MAPS, config_map("1")))
        await site.call(lambda: client.create(DEPLOYMENTS, crashing_web(world.rng.randint(2, 4))))
    await site.until("running", lambda: all_ready(site), 60)
    before = await pods_of(site)
    world.network.cut(NODE, "cloud")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(disturb, site)
        await anyio.sleep(OFFLINE_S)
        tasks.cancel_scope.cancel()
    if not restarted_here(site):
        raise Violation("the program that crashes was not restarted without the cloud")
    site.mend()
    await site.until("running again", lambda: all_ready(site), 300)
    await site.until("ConfigMap delivered", lambda: delivered(site), 60)
    after = await pods_of(site)
    if before != after:
        raise Violation(f"pods were replaced: before {before}, after {after}")


def config_map(value: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "count", "namespace": "default"},
        "data": {"n": value},
    }


def crashing_web(replicas: int) -> dict[str, Any]:
    """Each pod has a program that stays and one that crashes again and again."""
    made = web(replicas, "registry/web:1")
    made["spec"]["template"]["spec"]["containers"].append({"name": "crash", "image": "registry/crash:1"})
    return made


async def disturb(site: Site) -> None:
    """Whatever may happen to a node, one after the other, and to the cloud meanwhile."""
    world, host = site.world, site.edges[NODE].host
    async with site.client() as client:
        while True:
            await anyio.sleep(world.rng.uniform(10.0, 120.0))
            what = world.rng.choice(["kill", "power", "cloud", "config"])
            world.count(what)
            world.trace(f"disturbed by {what}")
            if what == "kill":
                await crash_alone(site)
            elif what == "power":
                host.machine.power_off()
                await anyio.sleep(world.rng.uniform(1.0, 30.0))
                host.start()
            elif what == "cloud":
                site.cloud.host.kill()
                await anyio.sleep(world.rng.uniform(1.0, 60.0))
                site.cloud.host.start()
            else:
                patch = {"data": {"n": str(world.rng.randint(2, 1000))}}
                await site.call(lambda: client.patch(CONFIG_MAPS, "count", patch, "default"))  # noqa: B023 - awaited here
            await site.until("running without the cloud", lambda: runs_here(site), BACK_S)


async def crash_alone(site: Site) -> None:
    """Kill edgesite; the containers that run must be the same ones some time later."""
    host, engine = site.edges[NODE].host, site.engines[NODE]
    host.kill()
    await anyio.sleep(site.world.rng.uniform(0.1, 20.0))
    stay = {one.id for one in engine.containers.values() if one.state.value == "running" and one.config.name == "main"}
    host.start()
    await anyio.sleep(10.0)
    if gone := stay - {one.id for one in engine.containers.values() if one.state.value == "running"}:
        raise Violation(f"containers were not adopted: {sorted(gone)}")


def restarted_here(site: Site) -> bool:
    """Over all the time, several times: its back-off ends at five minutes."""
    return max(one.config.attempt for one in site.engines[NODE].containers.values() if one.config.name == "crash") >= 4


async def runs_here(site: Site) -> str | None:
    """Every pod that the node has stored runs its program; the one that crashes may be waiting for its next start."""
    kept = [one["metadata"]["uid"] for kind, one in await stored(site.edges[NODE]) if kind == "pod"]
    running = running_pods(site.engines[NODE], "main")
    missing = [uid for uid in kept if uid not in running]
    if not kept:
        return "the store does not answer"
    return f"{missing} of {kept} do not run" if missing else None


async def all_ready(site: Site) -> str | None:
    async with site.client() as client:
        answer = await site.call(lambda: client.list(PODS, "default"))
        wanted = await site.call(lambda: client.get(DEPLOYMENTS, "web", "default"))
    if not answer or not wanted:
        return "the API server does not answer"
    ready = [one["metadata"]["name"] for one in answer["items"] if main_ready(one)]
    return (
        None
        if len(ready) == wanted["spec"]["replicas"] == len(answer["items"])
        else f"ready are {ready} of {len(answer['items'])}"
    )


def main_ready(pod: dict[str, Any]) -> bool:
    return any(one["name"] == "main" and one["ready"] for one in pod["status"].get("containerStatuses", []))


async def delivered(site: Site) -> str | None:
    async with site.client() as client:
        wanted = await site.call(lambda: client.get(CONFIG_MAPS, "count", "default"))
    here = [
        one["data"]
        for kind, one in await stored(site.edges[NODE])
        if kind == "configmap" and one["metadata"]["name"] == "count"
    ]
    return (
        None if wanted and here == [wanted["data"]] else f"the node has {here}, the API has {wanted and wanted['data']}"
    )


async def pods_of(site: Site) -> list[tuple[str, str, str]]:
    async with site.client() as client:
        answer = await client.list(PODS, "default")
    return sorted((one["metadata"]["name"], one["metadata"]["uid"], one["spec"]["nodeName"]) for one in answer["items"])
