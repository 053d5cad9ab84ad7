"""The garbage collector as a module.

Units   Times are seconds.
Errors  ApiError from the API goes to the work queue, which retries.
State   The graph's caches, and a bounded table of owners that are known to be gone.
Source  kube-controller-manager's garbage collector (behaviour: background, foreground with blockOwnerDeletion, orphan); an owner that the
        cache lacks is asked for at the API before anything is deleted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum
from typing import Any, Final

import anyio
import anyio.abc

from edgesite.client import Controller, Result
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.discovery import deletable
from edgesite.controlplane.garbagecollector.graph import Graph, Item
from edgesite.controlplane.pods import is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, EVENTS_V1, Resource

__all__ = ["GarbageCollector", "GarbageCollectorModule"]

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
REMEMBERED: Final = 500  #: owners known to be gone
UNKNOWN_KIND_S: Final = 60.0  #: how often an owner of a kind that is not served is looked for again
RETRY_S: Final = 5.0  #: between attempts to learn the kinds from the server
Object = dict[str, Any]


class Verdict(Enum):
    """What an owner is to its dependents. WAITS: it is being deleted, after them."""

    STAYS = "stays"
    GONE = "gone"
    WAITS = "waits"
    UNKNOWN = "unknown"


class GarbageCollectorModule(ControlPlaneModule):
    """Collects garbage."""

    name = "garbagecollector"
    component = "garbage-collector-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await GarbageCollector(cluster).run(ready)


class GarbageCollector:
    """Reconciles one object at a time: whether it may stay, and if it is going, what must go before it."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._cluster = cluster
        self._client, self._clock, self._log = cluster.client, ctx.clock, ctx.log
        self._graph = Graph(cluster, self._changed)
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._scopes: dict[Resource, anyio.CancelScope] = {}
        self._controller: Controller[Item] = Controller(
            "garbagecollector", self.reconcile, ctx.clock, ctx.random, workers=4, log=ctx.log
        )
        self._relearn = anyio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Collect until cancelled."""
        with ExitStack() as handlers:
            async with anyio.create_task_group() as tasks:
                await self._learn(tasks, handlers)
                for informer in self._graph.informers():
                    await informer.wait_synced()
                for resource in self._graph.resources():
                    handlers.enter_context(self._graph.subscribe(resource))
                tasks.start_soon(self._controller.run)
                ready()
                crds = self._cluster.informers.of(CUSTOM_RESOURCE_DEFINITIONS, metadata_only=True)
                handlers.enter_context(crds.on_change(lambda crd: self._relearn.set()))
                while True:
                    await self._relearn.wait()
                    self._relearn = anyio.Event()
                    await self._clock.sleep(1.0)  # a definition is served a moment after it is established
                    for resource in await self._learn(tasks, handlers):
                        handlers.enter_context(self._graph.subscribe(resource))

    async def _learn(self, tasks: anyio.abc.TaskGroup, handlers: ExitStack) -> list[Resource]:
        """Follow the kinds that the server serves now; returns those that are new."""
        while True:
            try:
                served = [one for one in await deletable(self._client) if one not in (EVENTS, EVENTS_V1)]
                break
            except ApiError as exc:
                self._log.warning("the kinds of the API are not known yet: %s", exc)
                await self._clock.sleep(RETRY_S)
        for resource in set(self._graph.resources()) - set(served):
            self._graph.remove(resource)
            if (scope := self._scopes.pop(resource, None)) is not None:
                scope.cancel()
        fresh = [one for one in served if one not in self._graph.resources()]
        for resource in fresh:
            informer = self._graph.add(resource)
            if informer is not None:
                scope = self._scopes[resource] = anyio.CancelScope()
                tasks.start_soon(_run_in, scope, informer.run, name=f"garbagecollector: {resource.plural}")
        return fresh

    # --- what the caches tell ---

    def _changed(self, item: Item, obj: Object, gone: bool) -> None:
        meta = obj["metadata"]
        if gone:
            for dependent, _ in self._graph.dependents(meta["uid"]):
                self._controller.queue.add(dependent)
        elif meta.get("ownerReferences") or (meta.get("deletionTimestamp") and meta.get("finalizers")):
            self._controller.queue.add(item)
        if gone or meta.get("deletionTimestamp"):
            for reference in meta.get("ownerReferences") or ():  # an owner may wait for this one to go
                owner = self._graph.owner_item(reference, meta.get("namespace") or "")
                if owner is not None and (found := self._graph.get(owner)) is not None and is_terminating(found):
                    self._controller.queue.add(owner)

    # --- one object ---

    async def reconcile(self, item: Item) -> Result | None:
        """Let the object be, unlink it from owners that are gone, or delete it. Raises ApiError."""
        obj = self._graph.get(item)
        if obj is None:
            return None
        meta = obj["metadata"]
        if is_terminating(obj):
            finalizers = meta.get("finalizers") or ()
            if ORPHAN in finalizers:
                await self._orphan(item, obj)
            elif FOREGROUND in finalizers:
                await self._foreground(item, obj)
            return None
        references = meta.get("ownerReferences") or []
        if not references:
            return None
        judged = [(one, await self._judge(one, meta.get("namespace") or "")) for one in references]
        verdicts = {verdict for _, verdict in judged}
        leaving = {one["uid"] for one, verdict in judged if verdict in (Verdict.GONE, Verdict.WAITS)}
        if verdicts & {Verdict.STAYS, Verdict.UNKNOWN}:
            if leaving:
                await self._unlink(item, obj, leaving)
            return Result(UNKNOWN_KIND_S) if Verdict.UNKNOWN in verdicts else None
        has_dependents = Verdict.WAITS in verdicts and bool(self._graph.dependents(meta["uid"]))
        await self._delete(item, obj, foreground=has_dependents)
        return None

    async def _judge(self, reference: Object, namespace: str) -> Verdict:
        owner = self._graph.owner_item(reference, namespace)
        if owner is None:
            return Verdict.UNKNOWN
        found = self._graph.get(owner)
        if found is None or found["metadata"]["uid"] != reference.get("uid"):
            if reference.get("uid") in self._gone:
                return Verdict.GONE
            found = await self._ask(owner, str(reference.get("uid")))
            if found is None:
                return Verdict.GONE
        if is_terminating(found) and FOREGROUND in (found["metadata"].get("finalizers") or ()):
            return Verdict.WAITS
        return Verdict.STAYS

    async def _ask(self, owner: Item, uid: str) -> Object | None:
        """Ask the API for an owner that the cache lacks; only its word that the owner is gone counts."""
        try:
            found = await self._client.get(owner.resource, owner.key.name, owner.key.namespace)
        except ApiError as exc:
            if exc.code != 404:
                raise
        else:
            if found["metadata"]["uid"] == uid:
                return found
        self._gone[uid] = None
        while len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        return None

    async def _unlink(self, item: Item, obj: Object, uids: set[str]) -> None:
        kept = [one for one in obj["metadata"]["ownerReferences"] if one.get("uid") not in uids]
        await self._patch(item, obj, {"ownerReferences": kept})

    async def _delete(self, item: Item, obj: Object, *, foreground: bool) -> None:
        meta = obj["metadata"]
        finalizers = meta.get("finalizers") or ()
        if ORPHAN in finalizers:
            propagation: Any = "Orphan"
        elif foreground or FOREGROUND in finalizers:
            propagation = "Foreground"
        else:
            propagation = "Background"
        try:
            await self._client.delete(
                item.resource,
                item.key.name,
                item.key.namespace,
                propagation=propagation,
                uid=meta["uid"],
                resource_version=meta["resourceVersion"],
            )
        except ApiError as exc:
            if exc.code != 404:
                raise

    async def _foreground(self, item: Item, obj: Object) -> None:
        """Delete the dependents; the object goes when none of those that block it is left."""
        uid = obj["metadata"]["uid"]
        blocked = False
        for dependent, found in self._graph.dependents(uid):
            if not is_terminating(found):
                self._controller.queue.add(dependent)
            blocked = blocked or any(
                one.get("uid") == uid and one.get("blockOwnerDeletion") for one in found["metadata"]["ownerReferences"]
            )
        if not blocked:
            await self._drop_finalizer(item, obj, FOREGROUND)

    async def _orphan(self, item: Item, obj: Object) -> None:
        """Unlink the dependents; then the object may go alone."""
        for dependent, found in self._graph.dependents(obj["metadata"]["uid"]):
            await self._unlink(dependent, found, {obj["metadata"]["uid"]})
        await self._drop_finalizer(item, obj, ORPHAN)

    async def _drop_finalizer(self, item: Item, obj: Object, name: str) -> None:
        kept = [one for one in obj["metadata"].get("finalizers") or () if one != name]
        await self._patch(item, obj, {"finalizers": kept})

    async def _patch(self, item: Item, obj: Object, change: Object) -> None:
        """Change metadata of exactly the version that was looked at; a newer one is looked at again."""
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], **change}}
        try:
            await self._client.patch(item.resource, item.key.name, patch, item.key.namespace)
        except ApiError as exc:
            if exc.code != 404:
                raise


async def _run_in(scope: anyio.CancelScope, run: Callable[[], Any]) -> None:
    with scope:
        await run()
