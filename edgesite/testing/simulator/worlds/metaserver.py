"""Programs on a node that watch and write the API through its MetaServer, under all faults of the site.

Invariants: those of `CopyingWatcher`, of a program that resumes where it was: over every cut, crash and restart of either side it sees
each change once and in order, and in the end what the cloud has. What a program wrote and was told is there stays; what it was
told has failed is never applied after it has written something else.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from edgesite.client import Client
from edgesite.client.http import HttpTransport
from edgesite.client.kubeconfig import Access
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, NAMESPACES
from edgesite.testing.simulator.faults import Faults
from edgesite.testing.simulator.observers import CopyingWatcher, CountingWriter
from edgesite.testing.simulator.roles import META_PORT
from edgesite.testing.simulator.site import STORAGE_FAILS, Site
from edgesite.testing.simulator.world import Scenario, Violation, World
from edgesite.testing.simulator.worlds.api import serving
from edgesite.testing.simulator.worlds.site import fetch_token, nodes_ready

__all__ = ["lasting", "replay", "scenario"]

EQUAL_S: Final = 200.0
WRITTEN: Final = "written"
CREATED: Final = "created"  #: a namespace
LATE_S: Final = 4.0  #: after which what was refused must not come any more


class NodeApi:
    """The site as programs on one node see it: its API is the MetaServer."""

    def __init__(self, site: Site, node: str) -> None:
        self.world = site.world
        self._site = site
        self._node = node
        self._transports: dict[str, HttpTransport] = {}

    @asynccontextmanager
    async def client(self, component: str = "program") -> AsyncIterator[Client]:
        if component not in self._transports:
            access = Access(host=self._node, port=META_PORT, tls=False)
            admin = self._site.admin
            self._transports[component] = HttpTransport(admin.net, admin.machine.clock, access, answer_s=40.0)
        yield Client(self._transports[component], component=component)


class Program(CopyingWatcher):
    """A program that keeps a copy. What the node has of a list that it never read whole is none to begin with."""

    async def _list(self, client: Client) -> None:
        await super()._list(client)
        if not self.version:
            self._site.world.count("lists that may lack objects")
            raise TimeoutError


class PatchingWriter:
    """Writes 1, 2, 3 … without saying what it was before, so that what comes late would stand over what is newer."""

    def __init__(self, site: Site, api: NodeApi, rng: random.Random) -> None:
        self._site, self._api, self._rng = site, api, rng
        self.attempted = self.acknowledged = 0

    async def run(self) -> None:
        async with self._api.client("writer") as client:
            while True:
                self.attempted += 1
                try:
                    await client.patch(CONFIG_MAPS, WRITTEN, {"data": {"n": str(self.attempted)}}, "default")
                except ApiError as exc:
                    self._site.world.count(f"writes refused {exc.code}")
                    if exc.code == 500 and STORAGE_FAILS not in exc.message:
                        raise Violation(f"the MetaServer answered 500: {exc.message}") from exc
                else:
                    self.acknowledged = self.attempted
                    self._site.world.count("writes through MetaServer")
                await anyio.sleep(self._rng.uniform(0.1, 3.0))

    async def check(self) -> None:
        """Look at the cloud again and again: what is there never goes back. Raises Violation."""
        last = 0
        async with self._site.client("checker") as client:
            while True:
                acknowledged = self.acknowledged
                found = await self._site.call(lambda: client.get(CONFIG_MAPS, WRITTEN, "default"))
                if found is not None:
                    n = int(found["data"]["n"])
                    if n < last or n < acknowledged or n > self.attempted:
                        raise Violation(f"read {n} after {last}; acknowledged {acknowledged} of {self.attempted}")
                    last = n
                await anyio.sleep(self._rng.uniform(0.1, 2.0))


class CreatingWriter:
    """Creates objects, each with a name of its own: one that is there already was created twice, one that comes after its refusal, too late."""

    def __init__(self, site: Site, api: NodeApi, rng: random.Random) -> None:
        self._site, self._api, self._rng = site, api, rng
        self._absent: set[str] = set()  # refused, and not there some time later
        self._number = 0

    async def run(self) -> None:
        async with self._api.client("creator") as client, anyio.create_task_group() as looks:
            while True:
                self._number += 1
                name = f"{CREATED}-{self._number}"
                obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": CREATED}}
                try:
                    await client.create(CONFIG_MAPS, obj)
                    self._site.world.count("objects created through MetaServer")
                except ApiError as exc:
                    if exc.code == 409:
                        raise Violation(f"{name} was created twice") from exc
                    looks.start_soon(self._look, name)
                await anyio.sleep(self._rng.uniform(0.1, 2.0))

    async def _look(self, name: str) -> None:
        await anyio.sleep(LATE_S)
        if await self._names() is not None and name not in (await self._names() or {name}):
            self._absent.add(name)

    async def _names(self) -> set[str] | None:
        async with self._site.client("creator") as client:
            answer = await self._site.call(lambda: client.list(CONFIG_MAPS, CREATED))
        return None if answer is None else {one["metadata"]["name"] for one in answer["items"]}

    async def check(self) -> None:
        """Raises Violation."""
        if late := sorted(self._absent & (await self._names() or set())):
            raise Violation(f"created after it was refused: {late}")
        self._site.world.count("refused creations looked at", len(self._absent))


def lasting(seconds: float) -> Scenario:
    """The world for so long in its own time, or a little longer."""

    async def scenario(world: World) -> None:
        site = Site(world, edges=1, metaserver=True)
        await _play(site, seconds)

    return scenario


scenario = lasting(120.0)


async def _play(site: Site, seconds: float) -> None:
    world, rng = site.world, site.world.rng
    await _begin(site)
    async with site.client() as client:
        metadata = {"name": WRITTEN, "namespace": "default"}
        obj: dict[str, Any] = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"n": "0"}}
        await client.create(CONFIG_MAPS, obj)
        await client.create(NAMESPACES, {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": CREATED}})
    api = NodeApi(site, "edge-1")
    programs = [Program(api, CONFIG_MAPS) for _ in range(2)]  # type: ignore[arg-type]
    creator = CreatingWriter(site, api, random.Random(f"{world.seed}/creator"))
    writer = PatchingWriter(site, api, random.Random(f"{world.seed}/writer"))
    others = CountingWriter(site, "others", random.Random(f"{world.seed}/others"))
    async with anyio.create_task_group() as tasks:
        for one in programs:
            tasks.start_soon(one.run)
        tasks.start_soon(writer.check)
        while world.loop.time() < seconds:
            async with anyio.create_task_group() as trouble:
                pause_s, mend_s = rng.choice([3.0, 8.0, 20.0]), rng.choice([1.0, 8.0, 30.0])
                trouble.start_soon(Faults(site, rng, pause_s=pause_s, mend_s=mend_s).run)
                trouble.start_soon(writer.run)
                trouble.start_soon(creator.run)
                trouble.start_soon(others.run)
                await anyio.sleep(rng.uniform(40.0, 100.0))
                trouble.cancel_scope.cancel()
            site.mend()
            await site.until("programs have what the cloud has", lambda: _equal(site, programs), EQUAL_S)
            await creator.check()
            world.count("rounds that ended equal")
        tasks.cancel_scope.cancel()


def replay(seconds: float, *, events_per_s: float = 20.0, up_s: float = 20.0, down_s: float = 10.0) -> Scenario:
    """Changes at an even rate for so long, over a link that is cut again and again: a program sees each once, in order."""

    async def scenario(world: World) -> None:
        site = Site(world, edges=1, metaserver=True)
        await _begin(site)
        api = NodeApi(site, "edge-1")
        names = [f"replayed-{n}" for n in range(5)]
        sent = dict.fromkeys(names, 0)
        seen = dict.fromkeys(names, 0)

        def learnt(obj: dict[str, Any]) -> None:
            name, n = obj["metadata"]["name"], int((obj.get("data") or {}).get("n") or 0)
            if name in seen:
                if n != seen[name] + 1:
                    raise Violation(f"{name}: saw {n} after {seen[name]}")
                seen[name] = n

        async def change() -> None:
            async with site.client() as client:
                for name in names:
                    metadata = {"name": name, "namespace": "default"}
                    obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"n": "0"}}
                    await client.create(CONFIG_MAPS, obj)
                await api_list_done.wait()
                began = world.loop.time()
                for n in range(int(seconds * events_per_s)):
                    name = names[n % len(names)]
                    sent[name] += 1
                    await client.patch(CONFIG_MAPS, name, {"data": {"n": str(sent[name])}}, "default")
                    await anyio.sleep(max(0.0, began + (n + 1) / events_per_s - world.loop.time()))
            finished.set()

        async def cut() -> None:
            while True:
                await anyio.sleep(up_s)
                world.network.cut("edge-1", "cloud")
                world.count("cuts")
                await anyio.sleep(down_s)
                world.network.heal("edge-1", "cloud")

        async def watch_list() -> None:
            while set(names) - {name for _, name in program.copy}:  # noqa: ASYNC110 - it lists by itself
                await anyio.sleep(0.1)
            api_list_done.set()

        program = Program(api, CONFIG_MAPS, learnt)  # type: ignore[arg-type]
        api_list_done, finished = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(change)
            await anyio.sleep(1.0)
            tasks.start_soon(program.run)
            await watch_list()
            tasks.start_soon(cut)
            await finished.wait()

            async def all_seen() -> str | None:
                return None if seen == sent else f"sent {sent}, seen {seen}"

            await site.until("all seen", all_seen, EQUAL_S)
            tasks.cancel_scope.cancel()
        world.count("events seen", sum(seen.values()))

    return scenario


async def _begin(site: Site) -> None:
    site.cloud.host.start()
    await site.until("serving", lambda: serving(site), 60)
    await site.until("token there", lambda: fetch_token(site), 60)
    site.edges["edge-1"].host.start()
    await site.until("nodes ready", lambda: nodes_ready(site), 60)


async def _equal(site: Site, programs: list[Program]) -> str | None:
    async with site.client() as client:
        answer = await site.call(lambda: client.list(CONFIG_MAPS))
    if answer is None:
        return "the API does not answer"
    return next((missing for one in programs if (missing := one.differs_from(answer))), None)
