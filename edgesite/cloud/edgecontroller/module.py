"""The module ``edgecontroller``. Ready when its caches are full: before that nothing may be judged by them.

informers ──> Downstream ──> bus: cloudhub
bus: group edgecontroller, module leases ──> Upstream ──> API ──> bus: cloudhub
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final

import anyio

from edgesite.client import Client, SharedInformers
from edgesite.cloud.cloudhub.records import LEASES, ConnectedNodes, DeliveryRecords
from edgesite.cloud.cloudhub.waiting import service, while_provided
from edgesite.cloud.devicecontroller.objects import DeviceObjects
from edgesite.cloud.edgecontroller.authorize import NodeRules
from edgesite.cloud.edgecontroller.downstream import Downstream
from edgesite.cloud.edgecontroller.inorder import InOrder
from edgesite.cloud.edgecontroller.objects import DEVICE_TYPES, EdgeObjects, Others, takes_errors
from edgesite.cloud.edgecontroller.upstream import Upstream
from edgesite.cloud.policycontroller.objects import ACCESS, PolicyObjects
from edgesite.cloud.taskmanager.needs import TaskNeeds
from edgesite.context import Context, Inbox, Revisions, Section, Services
from edgesite.wire.message import MessageMaker

__all__ = ["EdgeController"]

_AT_ONCE: Final = 64  #: requests of edges under way
_RENEWALS_AT_ONCE: Final = 32  #: beside them, for leases


class EdgeController:
    """See the module docstring."""

    name: ClassVar[str] = "edgecontroller"
    roles: ClassVar[frozenset[str]] = frozenset({"cloud"})
    needs: ClassVar[frozenset[str]] = frozenset({"apiserver"})  # so that it stops before the API, too
    section: ClassVar[str] = "modules.edgeController"

    def enabled(self, settings: Section) -> bool:
        """CloudHub cannot do without it."""
        section = settings.get("modules", {}).get("cloudHub", {})
        return bool(section.get("enable", True))

    async def run(self, ctx: Context) -> None:
        provided = await service(ctx, Client)
        client = provided.named("edgecontroller")
        maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        inbox = ctx.bus.join("edgecontroller", "edgecontroller")
        leases = ctx.bus.join(LEASES, LEASES)

        def is_own(node: str) -> bool:
            nodes = ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
            return nodes is not None and nodes.is_own(node)

        def knows_errors(node: str) -> bool:
            return is_own(node) or takes_errors(objects.nodes.get(node) or {})

        def holders(uid: str) -> Iterable[str]:
            records = ctx.services.find(DeliveryRecords)  # type: ignore[type-abstract]
            return () if records is None else records.holders(uid)

        def on_its_way(node: str, uid: str) -> None:
            records = ctx.services.find(DeliveryRecords)  # type: ignore[type-abstract]
            if records is not None:
                records.on_its_way(node, uid)

        def lost(node: str, version: int) -> None:
            records = ctx.services.find(DeliveryRecords)  # type: ignore[type-abstract]
            if records is not None:
                records.lost(node)
            if (revisions := ctx.services.find(Revisions)) is not None:  # type: ignore[type-abstract]
                revisions.advance(version)

        def went_back() -> None:
            records = ctx.services.find(DeliveryRecords)  # type: ignore[type-abstract]
            if records is not None:
                records.went_back()

        def task_needs(node: str, namespace: str, secret: str) -> bool:
            needs = ctx.services.find(TaskNeeds)  # type: ignore[type-abstract]
            return needs is not None and needs.needs_secret(node, namespace, secret)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(while_provided, ctx, Client, provided)
            informers = ctx.services.find(SharedInformers)
            if informers is not None:
                tasks.start_soon(while_provided, ctx, SharedInformers, informers)
            else:
                informers = SharedInformers(client, ctx.clock, ctx.random, ctx.log)
                tasks.start_soon(informers.run)
            objects = EdgeObjects(informers, _others(ctx.services))
            await objects.wait_synced()
            tasks.start_soon(Downstream(objects, ctx.bus, maker, holders, on_its_way, went_back).run)
            ctx.services.provide(EdgeObjects, objects)
            rules, now = NodeRules(objects, task_needs), ctx.clock.monotonic
            upstream = Upstream(
                client, rules, ctx.bus, maker, knows_errors, on_its_way, now, ctx.log, is_own=is_own, lost=lost
            )
            requests = InOrder(tasks, upstream.handle, _AT_ONCE)
            tasks.start_soon(_take, leases, InOrder(tasks, upstream.handle, _RENEWALS_AT_ONCE))
            ctx.ready()
            await _take(inbox, requests)


def _others(services: Services) -> dict[str, Callable[[], Others | None]]:
    """Who knows the objects of further types, while it is there."""

    def devices() -> DeviceObjects | None:
        return services.find(DeviceObjects)

    return {**dict.fromkeys(sorted(DEVICE_TYPES), devices), ACCESS: lambda: services.find(PolicyObjects)}


async def _take(inbox: Inbox, requests: InOrder) -> None:
    async for message in inbox:
        await requests.add(message)
