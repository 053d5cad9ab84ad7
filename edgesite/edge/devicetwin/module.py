"""The module ``twin``: what devices of this node shall be and say that they are, for clients on MQTT, mappers and the cloud.

    EventBus, hub, metamanager ──> group twin ──> engine ──> SQLite ──> EventBus (publications), hub (what the cloud has to hear of)

Which devices there are, and what is wanted of them, is in Device objects, which metamanager has stored before they come here; at a
start they are read from its tables. Messages of KubeEdge's clouds say the same in their way, and are taken, too.

A node without devices loads nothing of it: `Run` comes with the first, with the first publication about one, or with a cloud of KubeEdge's.

Source  KubeEdge v1.12, edge/pkg/devicetwin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

import anyio

from edgesite.edge.devicetwin.devices import Devices
from edgesite.edge.devicetwin.metrics import Metrics
from edgesite.edge.devicetwin.schema import TABLES
from edgesite.edge.devicetwin.service import DeviceService
from edgesite.edge.edgehub.link import CONNECTED, Link
from edgesite.edge.metamanager.meta import Meta
from edgesite.edge.metamanager.rows import Rows
from edgesite.wire.message import Message, Operation

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.context import Context, Inbox, Section
    from edgesite.edge.devicetwin.run import Run

__all__ = ["DeviceTwin"]

_OBJECTS: Final = "SELECT 1 FROM meta WHERE type IN ('device', 'devicemodel') LIMIT 1"
_GREETING_S: Final = 2.0
_ROWS: Final = "SELECT 1 FROM device LIMIT 1"


class DeviceTwin:
    """See the module docstring."""

    name: ClassVar[str] = "twin"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"metamanager"})
    section: ClassVar[str] = "modules.deviceTwin"

    def __init__(self) -> None:
        self._metrics: Metrics | None = None  # kept over restarts: a registry takes each name once

    def enabled(self, settings: Section) -> bool:
        section = settings.get("modules", {}).get("deviceTwin", {})
        return bool(section.get("enable", True))

    async def run(self, ctx: Context) -> None:
        self._metrics = metrics = self._metrics or Metrics(ctx.metrics)
        rows = ctx.services.get(Rows)  # type: ignore[type-abstract]
        service = DeviceService(ctx.services.get(Meta))  # type: ignore[type-abstract]
        inbox = ctx.bus.join("twin", "twin", size=256)
        await rows.write([(sql, ()) for sql in TABLES])

        def serve() -> None:
            ctx.services.provide(Devices, service)  # type: ignore[type-abstract]
            ctx.ready()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_while_stored, ctx, rows)
            first: Message | None = None
            began = serve
            if not await _has_devices(rows):
                serve()
                first = await _first(ctx, inbox, tasks)
                service.expect()
                began = _served
            run = await ctx.threads.run(_load)
            await run(ctx, metrics, rows, service).run(inbox, first, began)


def _load() -> type[Run]:
    from edgesite.edge.devicetwin.run import Run

    return Run


def _served() -> None:
    """Who serves without devices serves already."""


async def _while_stored(ctx: Context, rows: Rows) -> None:
    """Begin anew when metamanager does: what is written to is another connection then. Raises RuntimeError."""
    await ctx.services.replaced(Rows, rows)  # type: ignore[type-abstract]
    raise RuntimeError("metamanager has begun anew")


async def _has_devices(rows: Rows) -> bool:
    """Whether anything is stored here about devices, by us or by a KubeEdge. Raises StoreError."""
    return bool(await rows.query(_OBJECTS) or await rows.query(_ROWS))


async def _first(ctx: Context, inbox: Inbox, tasks: TaskGroup) -> Message:
    """Wait for something that has to be done: anything but news of a link to a cloud of ours, which sends devices unasked."""
    waiting = ""
    while True:
        message = await inbox.receive()
        if message.operation != Operation.CONNECT:
            return message
        if message.content == CONNECTED and message.msg_id == waiting:
            return message
        if message.content == CONNECTED:
            waiting = message.msg_id
            tasks.start_soon(_after_greeting, ctx, message)


async def _after_greeting(ctx: Context, connected: Message) -> None:
    """Hand in the news again if the cloud has not said by then that it is one of ours."""
    await ctx.clock.sleep(_GREETING_S)
    link = ctx.services.find(Link)  # type: ignore[type-abstract]
    if link is None or (link.connected and not link.own_peer):
        await ctx.bus.send("twin", connected)
