"""A node without its cloud for a quarter of an hour, or for an hour (`lasting`: as long as you like): pods go on, come back after a reboot, and are not replaced.

Invariants: while the link is cut every pod of the node runs again soon after whatever happened to it there (a crash of its program, of
edgesite, of the machine), with its ConfigMap and Secret from disk; a crash of edgesite alone restarts nothing; in the end the same
pods are there, with the newest ConfigMap. What ended there meanwhile is told, with the restarts that it took; what was deleted in the
API meanwhile ends soon after the link is back.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio

from edgesite.client import Client
from edgesite.kube.resources import CONFIG_MAPS, DEPLOYMENTS, PODS, SECRETS
from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import Violation, World
from edgesite.testing.simulator.worlds.api import serving
from edgesite.testing.simulator.worlds.site import fetch_token, nodes_ready, running_pods, stored, web

__all__ = ["lasting", "scenario"]

OFFLINE_S: Final = (900.0, 900.0, 3600.0)
BACK_S: Final = 30.0  #: from any disturbance until all programs run again
NODE: Final = "edge-1"


async def scenario(world: World) -> None:
    await without_cloud(world, world.rng.choice(OFFLINE_S))


def lasting(offline_s: float) -> Callable[[World], Awaitable[None]]:
    """The same world, cut off for so long."""
    return functools.partial(without_cloud, offline_s=offline_s, edges=1)


async def without_cloud(world: World, offline_s: float, edges: int = 2) -> None:
    """Play it: a site comes up, a node is cut off, and comes back."""
    site = Site(world, edges=edges)
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    await site.until("token there", lambda: fetch_token(site), 60)
    for edge in site.edges.values():
        edge.host.start()
    await site.until("nodes ready", lambda: nodes_ready(site), 60)
    async with site.client() as client:
        await site.call(lambda: client.create(CONFIG_MAPS, config_map("1")))
        await site.call(lambda: client.create(SECRETS, secret()))
        await site.call(lambda: client.create(DEPLOYMENTS, crashing_web(world.rng.randint(2, 4))))
        for name, program in (("unwanted", "main"), ("job", "job")):
            await site.call(functools.partial(client.create, PODS, lone_pod(name, program)))
    await site.until("running", lambda: all_ready(site), 60)
    await site.until("lone pods running", lambda: lone_pods(site, {"unwanted": "Running", "job": "Running"}), 60)
    before = await pods_of(site)
    world.network.cut(NODE, "cloud")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(disturb, site, offline_s / 900.0)
        await anyio.sleep(offline_s)
        tasks.cancel_scope.cancel()
    restarts = restart_counts(site)
    async with site.client() as client:
        site.cloud.host.start()
        await site.until("deleted in the API", lambda: delete_lone(site, client), 120)
    if not restarted_here(site):
        raise Violation("the program that crashes was not restarted without the cloud")
    site.mend()
    await site.until("running again", lambda: all_ready(site), 300)
    await site.until("ConfigMap delivered", lambda: delivered(site), 60)
    await site.until("told what ended", lambda: lone_pods(site, {"unwanted": "", "job": "Succeeded"}), 60)
    await site.until("deletion arrived", lambda: gone_here(site, "unwanted"), 60)
    await site.until("restarts told", lambda: restarts_told(site, restarts), 120)
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
    spec = made["spec"]["template"]["spec"]
    spec["containers"].append({"name": "crash", "image": "registry/crash:1"})
    spec["containers"][0]["env"].append(
        {
            "name": "KEY",
            "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}},
        }  # without it the program cannot start
    )
    return made


def secret() -> dict[str, Any]:
    metadata = {"name": "keys", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"k": "dg=="}}


def lone_pod(name: str, program: str) -> dict[str, Any]:
    """A pod of the node that no controller makes again."""
    metadata = {"name": name, "namespace": "default"}
    containers = [{"name": program, "image": f"registry/{program}:1"}]
    spec = {
        "nodeName": NODE,
        "restartPolicy": "OnFailure",
        "containers": containers,
        "terminationGracePeriodSeconds": 1,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def lone_pods(site: Site, wanted: dict[str, str]) -> str | None:
    """The phases that the API shows; "" for a pod that is gone."""
    async with site.client() as client:
        answer = await site.call(lambda: client.list(PODS, "default"))
    if answer is None:
        return "the API server does not answer"
    found = {one["metadata"]["name"]: one["status"].get("phase", "") for one in answer["items"]}
    wrong = {name: found.get(name, "") for name, phase in wanted.items() if found.get(name, "") != phase}
    return f"phases are {wrong}" if wrong else None


async def delete_lone(site: Site, client: Client) -> str | None:
    """Delete a pod of the node that is away: nobody waits for it to end."""
    await site.call(lambda: client.delete(PODS, "unwanted", "default", grace_period_s=0))
    return await lone_pods(site, {"unwanted": ""})


async def gone_here(site: Site, name: str) -> str | None:
    kept = [one["metadata"]["name"] for kind, one in await stored(site.edges[NODE]) if kind == "pod"]
    engine = site.engines[NODE]
    running = [
        one for one in engine.containers.values() if one.sandbox.config.name == name and one.state.value == "running"
    ]
    return f"stored are {kept}, running is {running}" if not kept or name in kept or running else None


def restart_counts(site: Site) -> dict[str, int]:
    """Of the programs that crash, by uid of their pods."""
    found: dict[str, int] = {}
    for one in site.engines[NODE].containers.values():
        uid = one.config.labels.get("io.kubernetes.pod.uid", "")
        if one.config.name == "crash":
            found[uid] = max(one.config.attempt, found.get(uid, 0))
    return found


async def restarts_told(site: Site, at_least: dict[str, int]) -> str | None:
    async with site.client() as client:
        answer = await site.call(lambda: client.list(PODS, "default"))
    told = {
        one["metadata"]["uid"]: status["restartCount"]
        for one in (answer or {"items": []})["items"]
        for status in one["status"].get("containerStatuses", ())
        if status["name"] == "crash"
    }
    behind = {uid: (told.get(uid), count) for uid, count in at_least.items() if told.get(uid, -1) < count}
    return f"the API shows fewer restarts: {behind}" if behind else None


async def disturb(site: Site, slower: float) -> None:
    """Whatever may happen to a node, one after the other, and to the cloud meanwhile."""
    world, host = site.world, site.edges[NODE].host
    async with site.client() as client:
        while True:
            await anyio.sleep(world.rng.uniform(10.0, 120.0) * slower)
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
    pods = [one for kind, one in await stored(site.edges[NODE]) if kind == "pod"]
    kept = [one["metadata"]["uid"] for one in pods if one["metadata"]["name"].startswith("web-")]
    running = running_pods(site.engines[NODE], "main")
    missing = [uid for uid in kept if uid not in running]
    if not kept:
        return "the store does not answer"
    return f"{missing} of {kept} do not run" if missing else None


async def all_ready(site: Site) -> str | None:
    async with site.client() as client:
        answer = await site.call(lambda: client.list(PODS, "default", label_selector="app=web"))
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
        answer = await client.list(PODS, "default", label_selector="app=web")
    return sorted((one["metadata"]["name"], one["metadata"]["uid"], one["spec"]["nodeName"]) for one in answer["items"])
