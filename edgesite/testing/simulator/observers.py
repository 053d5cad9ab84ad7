"""Those who watch a site from outside: a writer who counts, a watcher who keeps a copy. They hold the API server to its word.

Invariants: an acknowledged write is read afterwards, or a newer one; a watch that resumes after every break sees each change once, in
order; what it has put together equals a list in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

import anyio

from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS, Resource
from edgesite.testing.simulator.site import Site
from edgesite.testing.simulator.world import Violation

__all__ = ["CopyingWatcher", "CountingWriter", "version_of"]

PAUSE_S: Final = 0.5


def version_of(obj: dict[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


class CountingWriter:
    """Writes 1, 2, 3 ... into one ConfigMap and never finds less than what was acknowledged."""

    def __init__(self, site: Site, name: str, rng: random.Random) -> None:
        self.name = name
        self.acknowledged = 0
        self.attempted = 0
        self._site, self._rng = site, rng

    async def run(self) -> None:
        async with self._site.client("counter") as client:
            while True:
                await self._site.call(lambda: self._write(client))
                await anyio.sleep(self._rng.uniform(0.1, 4.0))

    async def _write(self, client: Any) -> None:
        acknowledged = self.acknowledged
        try:
            found = await client.get(CONFIG_MAPS, self.name, "default")
        except ApiError as exc:
            if exc.code != 404:
                raise
            found = None
        self.check(found, acknowledged)
        self.attempted += 1
        data = {"n": str(self.attempted)}
        if found is None:
            obj = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": self.name, "namespace": "default"},
                "data": data,
            }
            await client.create(CONFIG_MAPS, obj)
        elif self._rng.random() < 0.5:
            await client.update(CONFIG_MAPS, found | {"data": data})
        else:
            await client.patch(CONFIG_MAPS, self.name, {"data": data}, "default")
        self.acknowledged = self.attempted
        self._site.world.count("acknowledged writes")

    def check(self, found: dict[str, Any] | None, acknowledged: int) -> None:
        """Raises Violation if what was read is older than what was ``acknowledged`` before, or was never written."""
        n = int(found["data"]["n"]) if found else 0
        if not acknowledged <= n <= self.attempted:
            raise Violation(f"{self.name}: read {n}, acknowledged {acknowledged}, attempted {self.attempted}")


class CopyingWatcher:
    """Keeps a copy of a collection by list and watch, over all crashes and cuts."""

    def __init__(
        self, site: Site, resource: Resource, learnt: Callable[[dict[str, Any]], None] = lambda obj: None
    ) -> None:
        """``learnt`` is told of each state that the watch brings."""
        self.resource = resource
        self._learnt = learnt
        self.copy: dict[tuple[str, str], dict[str, Any]] = {}
        self.version = 0
        self._site = site

    async def run(self) -> None:
        async with self._site.client("watcher") as client:
            while True:
                try:
                    if not self.version:
                        with anyio.fail_after(20):
                            await self._list(client)
                    await self._watch(client)
                except ApiError as exc:
                    if exc.code == 500:
                        raise Violation(f"watching {self.resource.plural}: {exc.message}") from exc
                    if exc.code == 410:
                        self.version = 0
                        self._site.world.count("watch expired")
                except TimeoutError:
                    self._site.world.count("watch timeout")
                await anyio.sleep(PAUSE_S)

    async def _list(self, client: Any) -> None:
        answer = await client.list(self.resource)
        self.copy = {_key(one): one for one in answer.get("items", [])}
        self.version = version_of(answer)

    async def _watch(self, client: Any) -> None:
        watch = client.watch(self.resource, resource_version=str(self.version), timeout_s=60)
        with anyio.fail_after(90):
            async with watch as events:
                async for event in events:
                    self._learn(event.type, event.object)

    def _learn(self, type: str, obj: dict[str, Any]) -> None:
        version = version_of(obj)
        if type == "BOOKMARK":
            if version < self.version:
                raise Violation(f"{self.resource.plural}: bookmark {version} after {self.version}")
            self.version = version
            return
        key = _key(obj)
        if version <= self.version:
            raise Violation(f"{self.resource.plural}: {type} {key} at {version} after {self.version}")
        if (type == "ADDED") == (key in self.copy):
            raise Violation(
                f"{self.resource.plural}: {type} {key} at {version}, which was {'' if key in self.copy else 'not '}there"
            )
        self.version = version
        self._site.world.count("events")
        if type == "DELETED":
            del self.copy[key]
        else:
            self.copy[key] = obj
            self._learnt(obj)

    def differs_from(self, answer: dict[str, Any]) -> str | None:
        """Compare with a list; None when equal."""
        there = {_key(one): version_of(one) for one in answer.get("items", [])}
        here = {key: version_of(one) for key, one in self.copy.items()}
        if there == here:
            return None
        changed = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
        return f"{self.resource.plural}: the copy at {self.version} differs in {changed[:5]}"


def _key(obj: dict[str, Any]) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]
