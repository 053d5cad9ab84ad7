"""The namespace controller as a module: empties namespaces that are being deleted, then lets them go.

Units   Times are seconds.
Errors  ApiError from the API goes to the work queue, which retries.
State   None: everything is in the API.
Source  kube-controller-manager's namespace controller (conditions, reasons, messages; pods go first, then everything else).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.discovery import deletable
from edgesite.controlplane.pods import is_terminating
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import NAMESPACES, PODS, Resource
from edgesite.kube.times import format_time

__all__ = ["NamespaceController", "NamespaceModule"]

FINALIZER: Final = "kubernetes"
SOON_S: Final = 0.5  #: content that has no finalizers is gone by the second look
LATER_S: Final = 5.0
Object = dict[str, Any]


class NamespaceModule(ControlPlaneModule):
    """Deletes namespaces with what is in them."""

    name = "namespace"
    component = "namespace-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await NamespaceController(cluster).run(ready)


class NamespaceController:
    """Reconciles one namespace at a time."""

    def __init__(self, cluster: Cluster) -> None:
        ctx = cluster.ctx
        self._clock, self._client = ctx.clock, cluster.client
        self._namespaces = cluster.informers.of(NAMESPACES)
        self._pods = cluster.informers.of(PODS)
        self._controller = Controller("namespace", self.reconcile, ctx.clock, ctx.random, workers=2, log=ctx.log)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(self._namespaces.on_change(self._namespace_changed))
            handlers.enter_context(self._pods.add_handler(deleted=self._pod_gone))
            await self._controller.run((self._namespaces, self._pods), ready=ready)

    def _namespace_changed(self, namespace: Object) -> None:
        if is_terminating(namespace):
            self._controller.queue.add(key_of(namespace))

    def _pod_gone(self, pod: Object) -> None:
        """The last pod of a namespace that is being deleted is gone: look at the rest at once."""
        name = pod["metadata"].get("namespace") or ""
        namespace = self._namespaces.get(name)
        if namespace is not None and is_terminating(namespace) and not self._pods.list(name):
            self._controller.queue.add(ObjectKey("", name))

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Delete what is left; finalize the namespace once nothing is. Raises ApiError."""
        namespace = self._namespaces.by_key(key)
        if namespace is None or not is_terminating(namespace):
            return None
        if FINALIZER not in ((namespace.get("spec") or {}).get("finalizers") or ()):
            return None
        served = [one for one in await deletable(self._client) if one.namespaced]
        remaining = await self._empty(key.name, [one for one in served if one == PODS])
        if not remaining:
            remaining = await self._empty(key.name, [one for one in served if one != PODS])
        if remaining:
            await self._report(namespace, remaining)
            only_pods = set(remaining) == {PODS}
            return Result(LATER_S if only_pods or _has_finalizers(remaining) else SOON_S)
        await self._finalize(namespace)
        return None

    async def _empty(self, namespace: str, resources: list[Resource]) -> dict[Resource, list[Object]]:
        """Delete all objects of these kinds; returns the metadata of what is there after that."""
        remaining = {}
        for resource in resources:
            if not await self._left(resource, namespace):
                continue
            await self._client.delete_collection(resource, namespace, propagation="Background")
            if left := await self._left(resource, namespace):
                remaining[resource] = left
        return remaining

    async def _left(self, resource: Resource, namespace: str) -> list[Object]:
        try:
            found = await self._client.list(resource, namespace, metadata_only=True)
        except ApiError as exc:
            if exc.code in (404, 405):  # the kind is served no more
                return []
            raise
        return [one["metadata"] for one in found.get("items") or ()]

    async def _report(self, namespace: Object, remaining: dict[Resource, list[Object]]) -> None:
        conditions = _conditions(namespace, remaining, format_time(self._clock.time()))
        status = namespace.get("status") or {}
        if conditions == (status.get("conditions") or []):
            return
        fresh = {**namespace, "status": {**status, "phase": "Terminating", "conditions": conditions}}
        try:
            await self._client.update_status(NAMESPACES, fresh)
        except ApiError as exc:
            if exc.code not in (404, 409):  # a newer form is on its way
                raise

    async def _finalize(self, namespace: Object) -> None:
        spec = namespace.get("spec") or {}
        kept = [one for one in spec.get("finalizers") or () if one != FINALIZER]
        try:
            await self._client.update(
                NAMESPACES, {**namespace, "spec": {**spec, "finalizers": kept}}, subresource="finalize"
            )
        except ApiError as exc:
            if exc.code != 404:
                raise


def _has_finalizers(remaining: dict[Resource, list[Object]]) -> bool:
    return any(meta.get("finalizers") for metas in remaining.values() for meta in metas)


def _conditions(namespace: Object, remaining: dict[Resource, list[Object]], stamp: str) -> list[Object]:
    left = ", ".join(
        f"{resource.group_resource if resource.group else resource.plural + '.'} has {len(metas)} resource instances"
        for resource, metas in sorted(remaining.items(), key=lambda pair: pair[0].group_resource)
    )
    held: dict[str, int] = {}
    for metas in remaining.values():
        for meta in metas:
            for name in meta.get("finalizers") or ():
                held[name] = held.get(name, 0) + 1
    holders = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(held.items()))
    said = [
        ("NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        ("NamespaceContentRemaining", "True", "SomeResourcesRemain", f"Some resources are remaining: {left}"),
    ]
    if holders:
        text = f"Some content in the namespace has finalizers remaining: {holders}"
        said.append(("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", text))
    else:
        text = "All content-preserving finalizers finished"
        said.append(("NamespaceFinalizersRemaining", "False", "ContentHasNoFinalizers", text))
    old = {one.get("type"): one for one in (namespace.get("status") or {}).get("conditions") or ()}
    return [
        {
            "type": kind,
            "status": status,
            "lastTransitionTime": old[kind].get("lastTransitionTime", stamp)
            if kind in old and old[kind].get("status") == status
            else stamp,
            "reason": reason,
            "message": message,
        }
        for kind, status, reason, message in said
    ]
