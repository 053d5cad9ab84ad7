"""The module ``devicecontroller``.

informers ──> Downstream ──> bus: cloudhub
          ├─> Profiles ────> API: ConfigMaps of mappers of KubeEdge v1.12
          └─> DeviceStatuses ─> API: DeviceStatus of KubeEdge v1.23, where it is served
bus: group devicecontroller ──> Upstream ──> Statuses ──> API

It works with whichever version of devices.kubeedge.io the API serves, v1beta1 if both (`served`). A cluster that has neither, or v1alpha2
alone, is looked at again now and then.

Source  KubeEdge v1.12, cloud/pkg/devicecontroller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
from prometheus_client import CollectorRegistry, Counter

from edgesite.client import Client, SharedInformers
from edgesite.cloud.cloudhub.records import ConnectedNodes, DeliveryRecords
from edgesite.cloud.cloudhub.waiting import service, while_provided
from edgesite.cloud.devicecontroller import served
from edgesite.cloud.devicecontroller.devicestatuses import DeviceStatuses
from edgesite.cloud.devicecontroller.downstream import SOURCE, Downstream
from edgesite.cloud.devicecontroller.objects import DeviceObjects, unpacked
from edgesite.cloud.devicecontroller.profiles import Profiles
from edgesite.cloud.devicecontroller.statuses import Statuses
from edgesite.cloud.devicecontroller.upstream import Upstream
from edgesite.cloud.edgecontroller.inorder import InOrder
from edgesite.context import Context, Section
from edgesite.kube.devices.model import rules_of
from edgesite.kube.resources import NODES, Resource
from edgesite.wire.message import MessageMaker, Operation

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.context import Inbox

__all__ = ["DeviceController"]

_AT_ONCE: Final = 64  #: messages of edges under way


class DeviceController:
    """See the module docstring."""

    name: ClassVar[str] = "devicecontroller"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"apiserver"})
    section: ClassVar[str] = "modules.deviceController"

    def __init__(self) -> None:
        self._refused: Counter | None = None  # kept over restarts: a registry takes each name once

    def enabled(self, settings: Section) -> bool:
        modules = settings.get("modules", {})
        wanted = modules.get("deviceController", {}).get("enable", True)
        return bool(wanted and modules.get("cloudHub", {}).get("enable", True))

    async def run(self, ctx: Context) -> None:
        self._refused = self._refused or _counter(ctx.metrics)
        provided = await service(ctx, Client)
        inbox = ctx.bus.join("devicecontroller", "devicecontroller")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(while_provided, ctx, Client, provided)
            informers = ctx.services.find(SharedInformers)
            if informers is not None:
                tasks.start_soon(while_provided, ctx, SharedInformers, informers)
            else:
                informers = SharedInformers(provided.named("devicecontroller"), ctx.clock, ctx.random, ctx.log)
                tasks.start_soon(informers.run)
            ctx.ready()
            client = provided.named("devicecontroller")
            while await self._serve(ctx, client, informers, self._refused, inbox):
                pass

    async def _serve(
        self, ctx: Context, client: Client, informers: SharedInformers, refused: Counter, inbox: Inbox
    ) -> bool:
        """Work with the kinds that the API serves now. True: it serves newer ones; begin anew."""
        run = _Run(ctx, client, informers, refused)
        async with anyio.create_task_group() as tasks:
            kinds = await run.served()
            await run.start(tasks, *kinds)
            requests = InOrder(tasks, run.upstream.handle, _AT_ONCE)
            async for message in inbox:
                await requests.add(message)
        ctx.services.withdraw(DeviceObjects)
        return tasks.cancel_scope.cancel_called


def _counter(registry: CollectorRegistry) -> Counter:
    text = "Messages of edges about devices that were not taken, by why"
    return Counter("edgesite_devicecontroller_refused", text, ["why"], registry=registry)


class _Run:
    """One run of the module."""

    upstream: Upstream

    def __init__(self, ctx: Context, client: Client, informers: SharedInformers, refused: Counter) -> None:
        self._ctx = ctx
        self._client = client
        self._nodes = informers.of(NODES)
        self._refused = refused
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._types: dict[tuple[str, str, int, str], Mapping[str, str]] = {}

    async def served(self) -> tuple[Resource, Resource]:
        """The kinds that the API serves, as soon as it does."""
        return await served.kinds(self._client, self._ctx.clock, self._ctx.random, self._ctx.log)

    async def _until_newer(self, scope: anyio.CancelScope) -> None:
        """End this run once the API serves v1beta1."""
        await served.until_newer(self._client, self._ctx.clock, self._ctx.random, self._ctx.log)
        self._ctx.log.info("the API serves devices of v1beta1 now")
        scope.cancel()

    async def start(self, tasks: TaskGroup, device_kind: Resource, model_kind: Resource) -> None:
        ctx = self._ctx
        objects = DeviceObjects(
            self._client,
            device_kind,
            model_kind,
            ctx.clock,
            ctx.random,
            self._is_own,
            lambda name: self._nodes.get(name),
        )
        tasks.start_soon(objects.devices.run)
        tasks.start_soon(objects.models.run)
        profiles = Profiles(self._client, objects, ctx.clock, ctx.random, ctx.log)
        statuses = Statuses(self._client, objects, lambda one: self._types_of(objects, one), ctx.clock, ctx.random)
        downstream = Downstream(
            objects,
            ctx.bus,
            self._maker,
            self._is_here,
            self._holders,
            self._has,
            self._on_its_way,
            profiles.changed,
            statuses.is_foreign,
        )
        self.upstream = Upstream(objects, statuses, ctx.bus, self._maker, downstream.tell_members, self._count, ctx.log)
        await objects.wait_synced()
        await self._nodes.wait_synced()
        tasks.start_soon(profiles.run)
        tasks.start_soon(statuses.run)
        tasks.start_soon(downstream.run)
        if device_kind.version != "v1alpha2":
            here = DeviceStatuses(self._client, objects, self._is_here, ctx.clock, ctx.random, ctx.log)
            tasks.start_soon(here.run)
        else:
            tasks.start_soon(self._until_newer, tasks.cancel_scope)
        ctx.services.provide(DeviceObjects, objects)
        await self._compare_all()

    async def _compare_all(self) -> None:
        """Nodes that connected before this module knew of devices are compared again."""
        for node in self._connected():
            message = self._maker.make(SOURCE, "resource", Operation.CONNECTED, f"node/{node}")
            await self._ctx.bus.send_group("synccontroller", message)

    def _types_of(self, objects: DeviceObjects, one: dict[str, Any]) -> Mapping[str, str]:
        """The properties of a device and their types: those of its model, else what it says itself."""
        namespace = one["metadata"].get("namespace") or ""
        model = objects.models.get(one["model"], namespace)
        version = str(model["metadata"].get("resourceVersion")) if model is not None else ""
        key = namespace, one["model"], one["digest"], version
        found = self._types.get(key)
        if found is None:
            beta = objects.model(namespace, one["model"])
            rules = rules_of(beta) if beta is not None else {}
            said = {
                str(entry.get("name")): str(((entry.get("desired") or {}).get("metadata") or {}).get("type") or "")
                for entry in (unpacked(one).get("spec") or {}).get("properties") or ()
            }
            found = {name: rules[name].type if name in rules else type_ for name, type_ in said.items()}
            found |= {name: rule.type for name, rule in rules.items() if name not in found}
            if len(self._types) > 4096:
                self._types.clear()
            self._types[key] = found
        return found

    # -- the hub -------------------------------------------------------------------------------------------------

    def _connected(self) -> Iterable[str]:
        hub = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        return hub.nodes() if hub is not None else ()

    def _is_here(self, node: str) -> bool:
        hub = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        return hub is not None and bool(hub.identity(node))

    def _is_own(self, node: str) -> bool:
        hub = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        return hub is not None and hub.is_own(node)

    def _records(self) -> DeliveryRecords | None:
        return self._ctx.services.find(DeliveryRecords)  # type: ignore[type-abstract]

    def _holders(self, uid: str) -> Iterable[str]:
        records = self._records()
        return () if records is None else records.holders(uid)

    def _has(self, node: str, uid: str) -> bool:
        records = self._records()
        return records is not None and records.version_at_edge(node, uid) is not None

    def _on_its_way(self, node: str, uid: str) -> None:
        records = self._records()
        if records is not None:
            records.on_its_way(node, uid)

    def _count(self, why: str) -> None:
        self._refused.labels(why).inc()
