"""A whole site under faults: cloud, two or three edges, a Deployment that is scaled, updated, deleted and made again.

Invariants: those of `observers` and `StartWatcher`; what an edge has stored never gets older; in the end cloud and edges are equal:
the pods that the API shows are Running, are those that the edges have stored, and have each exactly one running container.
"""

from __future__ import annotations

import base64
import functools
import random
from typing import Any, Final

import anyio

from edgesite.client import Client
from edgesite.cloud.cloudhub.records import DeliveryRecords
from edgesite.cloud.synccontroller.records import Records
from edgesite.edge.metamanager.meta import Meta
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, DEPLOYMENTS, NODES, OBJECT_SYNCS, PODS, SECRETS
from edgesite.testing.fakeruntime import FakeEngine
from edgesite.testing.simulator.faults import Faults
from edgesite.testing.simulator.observers import CopyingWatcher, CountingWriter, version_of
from edgesite.testing.simulator.site import Role, Site
from edgesite.testing.simulator.world import Violation, World
from edgesite.testing.simulator.worlds.api import deployment, describe, serving
from edgesite.wire.delivery import ObjectRef

__all__ = ["outcome_of", "scenario", "trouble_and_peace"]

SETTLE_S: Final = 400.0  #: longer than every back-off and time-out of the modules
COUNTED: Final = "count"


async def scenario(world: World) -> None:
    site = Site(world, edges=world.rng.choice([2, 2, 3]))
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    await site.until("token there", lambda: fetch_token(site), 60)
    for edge in site.edges.values():
        edge.host.start()
    if world.rng.random() < 0.7:
        await site.until("nodes ready", lambda: nodes_ready(site), 60)
    await trouble_and_peace(site)


async def trouble_and_peace(site: Site) -> None:
    """Change things under faults, then end the faults and see all that must hold."""
    world = site.world
    watchers = [CopyingWatcher(site, one) for one in (PODS, NODES)]
    writer = CountingWriter(site, COUNTED, random.Random(f"{world.seed}/writer"))
    async with anyio.create_task_group() as tasks:
        for watcher in watchers:
            tasks.start_soon(watcher.run)
        for name in site.edges:
            tasks.start_soon(StoreWatcher(site, name, watchers[0]).run)
        async with anyio.create_task_group() as trouble:
            pause_s, mend_s = world.rng.choice([5.0, 20.0]), world.rng.choice([1.0, 8.0, 30.0])
            trouble.start_soon(Faults(site, world.rng, pause_s=pause_s, mend_s=mend_s).run)
            trouble.start_soon(change_deployment, site)
            trouble.start_soon(writer.run)
            await anyio.sleep(world.rng.uniform(40.0, 150.0))
            trouble.cancel_scope.cancel()
        site.mend()
        await site.until("converged", lambda: converged(site, watchers), SETTLE_S)
        await site.until("deleted", lambda: deleted(site), SETTLE_S)
        tasks.cancel_scope.cancel()


async def fetch_token(site: Site) -> str | None:
    async with site.client() as client:
        secret = await site.call(lambda: client.get(SECRETS, "tokensecret", "kubeedge"))
    if secret is None:
        return "no join token"
    site.token = base64.b64decode(secret["data"]["tokendata"]).decode()
    return None


async def nodes_ready(site: Site) -> str | None:
    async with site.client() as client:
        answer = await site.call(lambda: client.list(NODES))
    ready = {one["metadata"]["name"] for one in (answer or {"items": []})["items"] if is_ready(one)}
    return None if ready == set(site.edges) else f"ready are {sorted(ready)}"


def is_ready(obj: dict[str, Any]) -> bool:
    conditions = obj.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


async def change_deployment(site: Site) -> None:
    """Create, scale, update and delete, as people do."""
    rng = site.world.rng
    async with site.client() as client:
        while True:
            replicas, image = rng.randint(1, 4), f"registry/web:{rng.randint(1, 3)}"
            if rng.random() < 0.15:
                await force_delete(site, client)
            elif rng.random() < 0.15:
                await site.call(lambda: client.delete(DEPLOYMENTS, "web", "default", propagation="Background"))
            elif await site.call(lambda: client.get(DEPLOYMENTS, "web", "default")) is None:
                await site.call(functools.partial(client.create, DEPLOYMENTS, web(replicas, image)))
            elif rng.random() < 0.5:
                patch: dict[str, Any] = {"spec": {"replicas": replicas}}
                await site.call(functools.partial(client.patch, DEPLOYMENTS, "web", patch, "default"))
            else:
                patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
                change = functools.partial(client.patch, DEPLOYMENTS, "web", patch, "default", kind="strategic")
                await site.call(change)
            await anyio.sleep(rng.uniform(1.0, 30.0))


async def force_delete(site: Site, client: Client) -> None:
    """Delete a pod without waiting for its node: it must end there all the same."""
    answer = await site.call(lambda: client.list(PODS, "default"))
    if answer and answer["items"]:
        name = site.world.rng.choice(answer["items"])["metadata"]["name"]
        if await site.call(lambda: client.delete(PODS, name, "default", grace_period_s=0)):
            site.world.count("forced deletions")


def web(replicas: int, image: str) -> dict[str, Any]:
    """A Deployment whose pods use the ConfigMap that is counted up."""
    made = deployment("web", replicas, image)
    container = made["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [
        {"name": "N", "valueFrom": {"configMapKeyRef": {"name": COUNTED, "key": "n", "optional": True}}}
    ]
    return made


class StoreWatcher:
    """Looks into an edge's store: nothing there gets older, and what was acknowledged survives every crash."""

    def __init__(self, site: Site, name: str, pods: CopyingWatcher) -> None:
        self._site, self._name, self._pods = site, name, pods
        self._edge = site.edges[name]
        self._seen: dict[tuple[str, str], tuple[str, int]] = {}
        self._acknowledged: dict[str, ObjectRef] = {}
        self._edge.host.machine.at_death.append(lambda process: self._remember())

    async def run(self) -> None:
        while True:
            with anyio.move_on_after(1.0):
                await self._edge.host.started.wait()
                await self._look_after_start()
            for kind, obj in await stored(self._edge):
                self._compare(kind, obj)

    def _remember(self) -> None:
        """What the cloud has seen acknowledged by now; only that it is sure to have."""
        role = self._site.cloud.now if self._site.cloud.running else None
        records = role.services.find(DeliveryRecords) if role is not None else None  # type: ignore[type-abstract]
        self._acknowledged = {ref.uid: ref for ref in records.of(self._name)} if isinstance(records, Records) else {}

    async def _look_after_start(self) -> None:
        """Before the link is up again, so that nothing that was lost has been sent once more."""
        while self._edge.running and find_meta(self._edge) is None:  # noqa: ASYNC110 - nothing announces a service
            await anyio.sleep(0.001)
        if any(".corrupt-" in path for path in self._edge.host.machine.disk.files):
            return  # begun anew, perhaps
        kept = {obj["metadata"]["uid"]: version_of(obj) for _, obj in await stored(self._edge)}
        for uid, ref in self._acknowledged.items():
            if uid in kept and kept[uid] < ref.version:
                raise Violation(
                    f"{self._name}: {ref.type} {ref.name} is stored at {kept[uid]}, acknowledged was {ref.version}"
                )
            meta = find_meta(self._edge)
            if meta is None or meta.has_ended(uid):
                continue  # its end has come, whether the watcher knows or not
            if uid not in kept and kept and ref.version and self._should_be_there(ref):
                raise Violation(f"{self._name}: {ref.type} {ref.name} was acknowledged at {ref.version} and is lost")
        if kept:
            self._site.world.count("stores checked after a crash")

    def _should_be_there(self, ref: ObjectRef) -> bool:
        """A pod that nobody has begun to delete."""
        pod = self._pods.copy.get((ref.namespace, ref.name)) if ref.type == "pod" else None
        return pod is not None and pod["metadata"]["uid"] == ref.uid and "deletionTimestamp" not in pod["metadata"]

    def _compare(self, kind: str, obj: dict[str, Any]) -> None:
        meta = obj["metadata"]
        key, version = (kind, meta["name"]), version_of(obj)
        uid, before = self._seen.get(key, (meta["uid"], 0))
        if uid == meta["uid"] and version < before:
            raise Violation(f"{self._name}: {kind} {meta['name']} went from version {before} back to {version}")
        self._seen[key] = (meta["uid"], version)


def find_meta(edge: Role) -> Meta | None:
    return edge.now.services.find(Meta) if edge.running and edge.now is not None else None  # type: ignore[type-abstract]


async def stored(edge: Role) -> list[tuple[str, dict[str, Any]]]:
    """Pods and ConfigMaps in the edge's store, if its metamanager runs."""
    meta = find_meta(edge)
    if meta is None:
        return []
    found: list[tuple[str, dict[str, Any]]] = []
    try:
        with anyio.fail_after(0.9):
            for kind in ("pod", "configmap"):
                found += [(kind, one) for one in await meta.list(kind)]
    except (TimeoutError, ApiError):
        return []  # its process died meanwhile, or its disk is slow
    return found


async def converged(site: Site, watchers: list[CopyingWatcher]) -> str | None:
    async with site.client() as client:
        return await outcome_of(site, lambda: _compare(site, client, watchers))


async def outcome_of(site: Site, look: Any) -> str | None:
    async def said() -> str:
        return await look() or "nothing is missing"

    outcome = await site.call(said)
    if outcome is None:
        return "the API server does not answer"
    return None if outcome == "nothing is missing" else str(outcome)


async def _compare(site: Site, client: Client, watchers: list[CopyingWatcher]) -> str | None:
    if (missing := await nodes_ready(site)) is not None:
        return missing
    for watcher in watchers:
        if difference := watcher.differs_from(await client.list(watcher.resource)):
            return difference
    found = [one for one in (await client.list(DEPLOYMENTS, "default"))["items"] if one["metadata"]["name"] == "web"]
    pods = (await client.list(PODS, "default"))["items"]
    if len(pods) != (found[0]["spec"]["replicas"] if found else 0):
        return f"pods: {describe(pods)}; deployment: {describe(found)}"
    counted = [
        one for one in (await client.list(CONFIG_MAPS, "default"))["items"] if one["metadata"]["name"] == COUNTED
    ]
    return await compare_edges(site, pods, found, version_of(counted[0]) if counted else 0)


async def compare_edges(
    site: Site, pods: list[dict[str, Any]], deployments: list[dict[str, Any]], counted: int
) -> str | None:
    """``counted`` is the version of the ConfigMap that all pods use."""
    images = [one["spec"]["template"]["spec"]["containers"][0]["image"] for one in deployments]
    for pod in pods:
        name, spec = pod["metadata"]["name"], pod["spec"]
        if pod["status"].get("phase") != "Running" or not is_ready(pod):
            return f"pod not running: {describe([pod])}"
        if [one["image"] for one in spec["containers"]] != images:
            return f"pod {name} has {spec['containers'][0]['image']}, wanted is {images}"
    for name, edge in site.edges.items():
        here = [pod for pod in pods if pod["spec"].get("nodeName") == name]
        if difference := compare_edge(site.engines[name], here, await stored(edge), counted):
            return f"{name}: {difference}"
    return None


def compare_edge(
    engine: FakeEngine, here: list[dict[str, Any]], kept: list[tuple[str, dict[str, Any]]], counted: int
) -> str | None:
    """The API's pods of one node, what the node has stored, and what it runs."""
    wanted = sorted(pod["metadata"]["uid"] for pod in here)
    found = sorted(one["metadata"]["uid"] for kind, one in kept if kind == "pod")
    if wanted != found:
        return f"stored are pods {found}, the API has {wanted}"
    if (running := sorted(running_pods(engine))) != wanted:
        return f"running are pods {running}, the API has {wanted}"
    for kind, one in kept:
        if kind == "configmap" and one["metadata"]["name"] == COUNTED and version_of(one) != counted and here:
            return f"the ConfigMap is stored at {version_of(one)}, the API has {counted}"
    for pod in here:
        status = pod["status"]["containerStatuses"][0]
        container = next(
            (one for one in engine.containers.values() if status["containerID"].endswith(f"//{one.id}")), None
        )
        if (
            container is None
            or container.state.value != "running"
            or status["restartCount"] != container.config.attempt
        ):
            return f"the API shows {status} of {pod['metadata']['name']}, which is {container and container.config.attempt}"
    return None


def running_pods(engine: FakeEngine, container: str = "") -> list[str]:
    """The uid of each running container's pod, of all containers or of those with this name."""
    engine.settle()
    running = [one for one in engine.containers.values() if one.state.value == "running"]
    running = [one for one in running if container in ("", one.config.name)]
    return [one.config.labels.get("io.kubernetes.pod.uid", "") for one in running]


async def deleted(site: Site) -> str | None:
    """Delete what is there, and see that nothing stays behind."""
    async with site.client() as client:

        async def look() -> str | None:
            if (await client.list(DEPLOYMENTS, "default"))["items"]:
                await client.delete(DEPLOYMENTS, "web", "default", propagation="Background")
            pods = (await client.list(PODS, "default"))["items"]
            if pods:
                return f"pods left: {describe(pods)}"
            left = {name: running_pods(engine) for name, engine in site.engines.items() if running_pods(engine)}
            if left:
                return f"containers left: {left}"
            for name, edge in site.edges.items():
                if kept := [one["metadata"]["name"] for kind, one in await stored(edge) if kind == "pod"]:
                    return f"stored pods left at {name}: {kept}"
            syncs = (await client.list(OBJECT_SYNCS))["items"]
            left_syncs = [one["spec"]["objectName"] for one in syncs if one["spec"]["objectKind"] == "Pod"]
            return f"ObjectSyncs of pods left: {left_syncs}" if left_syncs else None

        return await outcome_of(site, look)
