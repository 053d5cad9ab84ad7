"""The cloud is restored from a backup, while edges hold what has been changed, deleted and made since.

Invariants: soon after, edges hold what the API has, and nothing else: what was changed since the backup is as it was then, what
was deleted is back and runs, what was made since is gone. Then changes arrive as ever, over a restart of the cloud and of an edge.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import anyio

from edgesite.client import Client
from edgesite.kube.resources import CONFIG_MAPS, PODS
from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import Violation, World
from edgesite.testing.simulator.worlds.api import serving
from edgesite.testing.simulator.worlds.site import fetch_token, nodes_ready, outcome_of, running_pods, stored

__all__ = ["scenario"]

EQUAL_S: Final = 200.0  #: as in world `link`
FRESH_S: Final = 30.0
NAMES: Final = ("kept", "changed", "deleted", "replaced")


async def scenario(world: World) -> None:
    site = Site(world, edges=2)
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    await site.until("token there", lambda: fetch_token(site), 60)
    for edge in site.edges.values():
        edge.host.start()
    await site.until("nodes ready", lambda: nodes_ready(site), 60)
    async with site.client() as client:
        for node in site.edges:
            for name in NAMES:
                await _make(site, client, f"{name}-{node}", node)
        await site.until("running", lambda: _equal(site, client), EQUAL_S)
        await anyio.sleep(world.rng.uniform(0.0, 30.0))  # ObjectSyncs are written, or not yet
        backup = site.cloud.host.machine.disk.backup()
        await _go_on(site, client)
        await site.until("equal before the end", lambda: _equal(site, client), EQUAL_S)
        await _restore(site, backup)
        await site.until("serving again", lambda: serving(site), 60)
        await _nothing_new(site, client)
        await site.until("equal after the restore", lambda: _equal(site, client), EQUAL_S)
        await _change(site, client, "kept")
        await site.until("fresh change there", lambda: _equal(site, client), FRESH_S)
        host = world.rng.choice(site.hosts)
        host.kill()
        host.start()
        await site.until("serving still", lambda: serving(site), 60)
        await _change(site, client, "changed")
        await site.until("equal after a restart", lambda: _equal(site, client), EQUAL_S)


async def _restore(site: Site, backup: dict[str, bytes]) -> None:
    world, cloud = site.world, site.cloud.host
    cloud.kill()
    if world.rng.random() < 0.5:
        cloud.machine.power_off()
    cloud.machine.disk.restore(backup)
    for starts in site.starts.values():
        starts.wanted_again()
    if world.rng.random() < 0.3:  # an edge is away meanwhile
        name = world.rng.choice(list(site.edges))
        site.edges[name].host.kill()
    await anyio.sleep(world.rng.uniform(0.0, 20.0))
    for host in site.hosts:
        host.start()


async def _make(site: Site, client: Client, name: str, node: str) -> None:
    metadata = {"name": name, "namespace": "default"}
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"n": "1"}}
    source = {"configMapKeyRef": {"name": name, "key": "n", "optional": True}}
    container = {"name": "main", "image": "registry/web:1", "env": [{"name": "N", "valueFrom": source}]}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    for kind, obj in ((CONFIG_MAPS, data), (PODS, pod)):
        await site.call(functools.partial(client.create, kind, obj))


async def _delete(site: Site, client: Client, name: str) -> None:
    await site.call(functools.partial(client.delete, PODS, name, "default", grace_period_s=0))
    await site.call(functools.partial(client.delete, CONFIG_MAPS, name, "default"))


async def _go_on(site: Site, client: Client) -> None:
    """What the backup does not have. One node may see nothing but deletions: no version there tells of the loss."""
    nodes = list(site.edges)
    if site.world.rng.random() < 0.5:
        nodes = nodes[1:]
        await _delete(site, client, f"deleted-{next(iter(site.edges))}")
    for node in nodes:
        for _ in range(site.world.rng.randint(1, 5)):
            await _change(site, client, "changed", node)
        await _delete(site, client, f"deleted-{node}")
        await _delete(site, client, f"replaced-{node}")
        for name in ("replaced", "new"):
            await _make(site, client, f"{name}-{node}", node)


async def _change(site: Site, client: Client, name: str, node: str = "") -> None:
    for one in [node] if node else site.edges:
        patch = {"data": {"n": str(site.world.rng.random())}}
        await site.call(functools.partial(client.patch, CONFIG_MAPS, f"{name}-{one}", patch, "default"))


async def _nothing_new(site: Site, client: Client) -> None:
    """The backup is what the API has now."""
    answer = await site.call(functools.partial(client.list, CONFIG_MAPS, "default"))
    found = {one["metadata"]["name"]: one["data"].get("n") for one in (answer or {"items": []})["items"]}
    wanted = {f"{name}-{node}": "1" for name in NAMES for node in site.edges}
    if answer is None:
        return
    if {name: found.get(name) for name in wanted} != wanted or any("new" in name for name in found):
        raise Violation(f"the backup has {found}")


async def _equal(site: Site, client: Client) -> str | None:
    async def look() -> str | None:
        pods = (await client.list(PODS, "default"))["items"]
        maps = (await client.list(CONFIG_MAPS, "default"))["items"]
        for name, edge in site.edges.items():
            wanted = {("pod", one["metadata"]["uid"]): one["spec"] for one in pods if one["spec"]["nodeName"] == name}
            for one in maps:
                if one["metadata"]["name"].endswith(name):
                    wanted["configmap", one["metadata"]["uid"]] = one["data"]
            held: dict[tuple[str, str], Any] = {}
            for kind, one in await stored(edge):
                if one["metadata"]["name"] == "kube-root-ca.crt":
                    continue  # a controller's, in every namespace
                held[kind, one["metadata"]["uid"]] = one["spec" if kind == "pod" else "data"]
            if wanted != held:
                wrong = [key for key in {**wanted, **held} if wanted.get(key) != held.get(key)]
                return (
                    f"{name} and the API differ in {wrong}: {[(wanted.get(one), held.get(one)) for one in wrong[:1]]}"
                )
            running, uids = (
                sorted(running_pods(site.engines[name])),
                sorted(uid for kind, uid in wanted if kind == "pod"),
            )
            if running != uids:
                return f"{name} runs {running}, the API has {uids}"
        late = [one["metadata"]["name"] for one in pods if one["status"].get("phase") != "Running"]
        return f"the API does not show as running: {late}" if late else None

    return await outcome_of(site, look)
