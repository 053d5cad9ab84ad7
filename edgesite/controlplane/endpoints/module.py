"""The Endpoints and the EndpointSlice controller as modules.

Errors  ApiError from the API goes to the work queue, which retries; a stale cache shows as a Conflict.
State   None: everything is in the API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import Any

from edgesite.client import Controller, ObjectKey, Result, key_of
from edgesite.controlplane.cluster import Cluster, ControlPlaneModule
from edgesite.controlplane.endpoints import wanted
from edgesite.controlplane.endpoints.backends import backends, families, shown
from edgesite.controlplane.expectations import Expectations
from edgesite.controlplane.podcontrol import namespace_is_ending
from edgesite.controlplane.pods import condition
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES

__all__ = ["EndpointSliceModule", "EndpointsModule"]

Object = dict[str, Any]


class EndpointsModule(ControlPlaneModule):
    """Keeps the Endpoints of services."""

    name = "endpoints"
    component = "endpoint-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await EndpointsController(cluster).run(ready)


class EndpointSliceModule(ControlPlaneModule):
    """Keeps the EndpointSlices of services."""

    name = "endpointslice"
    component = "endpointslice-controller"

    async def control(self, cluster: Cluster, ready: Callable[[], None]) -> None:
        await EndpointSliceController(cluster).run(ready)


class _ServiceController:
    """Reconciles one service at a time, when it, a pod that it selects, or such a pod's node changes."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        ctx = cluster.ctx
        self._client = cluster.client
        self._services = cluster.informers.of(SERVICES)
        self._pods = cluster.informers.of(PODS)
        self._nodes = cluster.informers.of(NODES)
        self._pods.add_index("node", lambda pod: [pod["spec"]["nodeName"]] if pod["spec"].get("nodeName") else [])
        self._controller = Controller(name, self.reconcile, ctx.clock, ctx.random, workers=2, log=ctx.log)

    async def serve(self, handlers: ExitStack, ready: Callable[[], None], *more: Any) -> None:
        handlers.enter_context(self._services.on_change(self._service_changed))
        handlers.enter_context(self._pods.add_handler(self._pod_seen, self._pod_changed, self._pod_seen))
        handlers.enter_context(self._nodes.add_handler(updated=self._node_changed))
        await self._controller.run((self._services, self._pods, self._nodes, *more), ready=ready)

    def touch(self, key: ObjectKey) -> None:
        self._controller.queue.add(key)

    def _service_changed(self, service: Object) -> None:
        self._controller.queue.add(key_of(service), low=not self._services.has_synced)

    def _pod_seen(self, pod: Object) -> None:
        labels = pod["metadata"].get("labels") or {}
        for service in self._services.list(pod["metadata"].get("namespace") or ""):
            if _selects(service, labels):
                self._controller.queue.add(key_of(service))

    def _pod_changed(self, old: Object, new: Object) -> None:
        before, after = shown(old), shown(new)
        if before == after:
            return
        self._pod_seen(new)
        if before[0] != after[0]:
            self._pod_seen(old)

    def _node_changed(self, old: Object, new: Object) -> None:
        was, now = condition(old, "Ready") or {}, condition(new, "Ready") or {}
        if (was.get("status") == "Unknown") != (now.get("status") == "Unknown"):
            for pod in self._pods.by_index("node", new["metadata"]["name"]):
                self._pod_seen(pod)

    def _backends(self, service: Object, family: str) -> list[Any]:
        selector = service["spec"]["selector"]
        pods = self._pods.list(service["metadata"]["namespace"], lambda labels: selector.items() <= labels.items())
        return backends(service, pods, family, self._nodes.get)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        raise NotImplementedError


class EndpointsController(_ServiceController):
    """One Endpoints object for each service with a selector."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, "endpoints")
        self._endpoints = cluster.informers.of(ENDPOINTS)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            touched = self._endpoints.add_handler(deleted=lambda one: self.touch(key_of(one)))
            handlers.enter_context(touched)
            await self.serve(handlers, ready, self._endpoints)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Make the Endpoints right. Raises ApiError."""
        service, old = self._services.by_key(key), self._endpoints.by_key(key)
        if service is None:
            if old is not None and "endpoints.kubernetes.io/managed-by" in (old["metadata"].get("labels") or {}):
                await _delete(self._client.delete(ENDPOINTS, key.name, key.namespace, uid=old["metadata"]["uid"]))
            return None
        if not _has_selector(service):
            return None
        fresh = wanted.endpoints(service, self._backends(service, families(service)[0]))
        if old is None:
            await _create(self._client.create(ENDPOINTS, fresh))
            return None
        meta = {**old["metadata"], "labels": fresh["metadata"]["labels"]}
        annotations = {
            name: value for name, value in (meta.get("annotations") or {}).items() if name != wanted.TRUNCATED
        }
        annotations.update(fresh["metadata"].get("annotations") or {})
        meta.pop("annotations", None)
        if annotations:
            meta["annotations"] = annotations
        merged = {**old, "metadata": meta, "subsets": fresh.get("subsets") or []}
        if merged["metadata"] != old["metadata"] or merged["subsets"] != (old.get("subsets") or []):
            await self._client.update(ENDPOINTS, merged)
        return None


class EndpointSliceController(_ServiceController):
    """EndpointSlices for each service with a selector."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, "endpointslice")
        self._slices = cluster.informers.of(ENDPOINT_SLICES)
        self._slices.add_index("service", _service_of)
        self._expectations = Expectations(cluster.ctx.clock)

    async def run(self, ready: Callable[[], None]) -> None:
        """Control until cancelled."""
        with ExitStack() as handlers:
            handlers.enter_context(self._slices.on_change(self._slice_changed))
            await self.serve(handlers, ready, self._slices)

    def _slice_changed(self, one: Object) -> None:
        for value in _service_of(one):
            namespace, _, name = value.partition("/")
            key = ObjectKey(namespace, name)
            self._expectations.saw(key, one["metadata"]["uid"], leaving=False)
            self.touch(key)

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Make the slices right. Raises ApiError."""
        service = self._services.by_key(key)
        if waits_s := self._expectations.pending_s(key):
            return Result(waits_s)
        existing = self._slices.by_index("service", f"{key.namespace}/{key.name}")
        if service is None:
            for one in existing:  # the garbage collector would do it too, later
                await self._delete(one)
            return None
        if not _has_selector(service):
            return None
        by_family = {family: self._backends(service, family) for family in families(service)}
        plan = wanted.plan_slices(service, by_family, existing)
        for one in plan.create:
            made = await _create(self._client.create(ENDPOINT_SLICES, one))
            if made is not None and self._slices.by_key(key_of(made)) is None:
                self._expectations.created(key, made["metadata"]["uid"])
        for one in plan.update:
            await self._client.update(ENDPOINT_SLICES, one)
        for one in plan.delete:
            await self._delete(one)
        return None

    async def _delete(self, one: Object) -> None:
        meta = one["metadata"]
        await _delete(self._client.delete(ENDPOINT_SLICES, meta["name"], meta["namespace"], uid=meta["uid"]))


def _service_of(one: Mapping[str, Any]) -> list[str]:
    labels = one["metadata"].get("labels") or {}
    if labels.get(wanted.MANAGED_BY) != wanted.MANAGER or not labels.get(wanted.SERVICE_NAME):
        return []
    return [f"{one['metadata'].get('namespace') or ''}/{labels[wanted.SERVICE_NAME]}"]


def _has_selector(service: Object) -> bool:
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"


def _selects(service: Object, labels: Mapping[str, str]) -> bool:
    return _has_selector(service) and service["spec"]["selector"].items() <= labels.items()


async def _create(call: Awaitable[Object]) -> Object | None:
    try:
        return await call
    except ApiError as exc:
        if not namespace_is_ending(exc):
            raise
        return None


async def _delete(call: Awaitable[Object]) -> None:
    try:
        await call
    except ApiError as exc:
        if exc.code != 404:
            raise
