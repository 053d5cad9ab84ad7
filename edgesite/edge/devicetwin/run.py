"""One run of the module ``twin``: what the bus tells is done to the twins, what comes of it is told to the bus.

Loaded with the first device of a node, or with what else is more than news of the link (`module`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import anyio

from edgesite.edge.devicetwin.clients import Clients
from edgesite.edge.devicetwin.devices import DeviceChange
from edgesite.edge.devicetwin.engine import Action, Engine
from edgesite.edge.devicetwin.membership import Membership
from edgesite.edge.devicetwin.payloads import Refused, read_membership
from edgesite.edge.devicetwin.publishing import Publishing
from edgesite.edge.devicetwin.reports import Reports
from edgesite.edge.devicetwin.state import Device, Registry
from edgesite.edge.devicetwin.tables import DeviceTables
from edgesite.edge.devicetwin.turn import Publication, Turn
from edgesite.edge.devicetwin.uplink import Uplink
from edgesite.edge.edgehub.link import CONNECTED, Link
from edgesite.edge.eventbus import Interest
from edgesite.edge.metamanager.store import StoreError
from edgesite.kube import json
from edgesite.wire import resource
from edgesite.wire.delivery import version_number
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation

if TYPE_CHECKING:
    from edgesite.context import Context, Inbox, Section
    from edgesite.edge.devicetwin.metrics import Metrics
    from edgesite.edge.devicetwin.service import DeviceService
    from edgesite.edge.metamanager.rows import Rows

__all__ = ["Run"]

_BITS_PER_S: Final = 12_000  #: of uplink for reports, unless configured: leaves room for the rest below 20 kbit/s
_AT_ONCE: Final = 64  #: publications in one message: EventBus' inbox holds so many messages of them
_OBJECTS: Final = frozenset({"device", "devicemodel"})


class Run:
    """See the module docstring."""

    def __init__(self, ctx: Context, metrics: Metrics, rows: Rows, service: DeviceService) -> None:
        self._ctx = ctx
        self._metrics = metrics
        self._maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._told: set[str] = set()
        self._from_clients = metrics.taken.labels("mqtt")
        self._from_cloud = metrics.taken.labels("cloud")
        registry = Registry()
        metrics.devices.set_function(lambda: float(len(registry)))
        publishing = Publishing(ctx.node_name, registry, self._wanted, self._maker.new_id)
        membership = Membership(registry, publishing, self._count, self._own_cloud, self._gone, self._restored)
        clients = Clients(registry, membership, publishing, self._count)
        tables = self._tables = DeviceTables(rows)
        rate = 0.0 if ctx.site.get("single_process") else _bits_per_s(ctx.config) / 8
        self._uplink = Uplink(registry, ctx.bus, self._maker, ctx.clock, ctx.random, self._own_cloud, rate)
        self._engine = Engine(
            registry,
            membership,
            clients,
            publishing,
            tables,
            self._uplink,
            self._publish,
            ctx.clock,
            ctx.random,
            ctx.log,
        )
        self._service = service

    async def run(self, inbox: Inbox, first: Message | None, began: Callable[[], None]) -> None:
        """Take ``first``, then what comes to ``inbox``. ``began`` is called once all that is stored here is loaded. Raises StoreError."""
        await self._engine.load()
        link = self._ctx.services.find(Link)  # type: ignore[type-abstract]
        self._uplink.set_connected(link is not None and link.connected)
        async with anyio.create_task_group() as tasks:
            try:
                tasks.start_soon(self._engine.run)
                tasks.start_soon(self._uplink.run)
                if first is not None:
                    await self._take(first)
                self._service.attach(Reports(self._engine))
                if first is not None:
                    self._tell_loaded()
                began()
                async for message in inbox:
                    await self._take(message)
            finally:
                with anyio.move_on_after(5.0, shield=True):
                    await self._engine.write_lazy()

    def _tell_loaded(self) -> None:
        """Tell of devices that were stored while this was loaded: the words of them that are still to come are no news to the engine,
        but to those who watch devices since there were none."""
        for device in self._engine.registry:
            if device.uid:
                self._service.tell(DeviceChange("device", "insert", device.namespace, device.name))

    # -- from the bus --------------------------------------------------------------------------------------------

    async def _take(self, message: Message) -> None:
        if message.parent_msg_id and message.source != "bus":
            self._uplink.confirmed(message.parent_msg_id)
        elif message.operation == Operation.CONNECT:
            await self._link_changed(message.content == CONNECTED)
        elif message.source == "bus":
            self._from_clients.inc()
            await self._take_publication(message)
        elif resource.parse(message.resource).type in _OBJECTS:
            self._from_cloud.inc()
            await self._take_object(message)
        else:
            self._from_cloud.inc()
            await self._take_word(message)

    async def _link_changed(self, connected: bool) -> None:
        self._uplink.set_connected(connected)
        strangers = any(not device.uid for device in self._engine.registry)
        if connected and (strangers or not self._own_cloud()):
            await self._uplink.ask_for_members(self._ctx.node_name)

    async def _take_publication(self, message: Message) -> None:
        try:
            topic = base64.urlsafe_b64decode(message.resource).decode()
        except (binascii.Error, ValueError):
            self._count("topic")
            return
        content = message.content
        payload = content if isinstance(content, bytes) else str(content if content is not None else "").encode()
        clients = self._engine.clients
        await self._engine.add(lambda turn: clients.publication(turn, topic, payload))

    async def _take_object(self, message: Message) -> None:
        path = resource.parse(message.resource)
        membership, service = self._engine.membership, self._service
        kind = cast(Literal["device", "devicemodel"], path.type)
        if message.operation == Operation.DELETE:
            operation: Literal["insert", "update", "delete"] = "delete"

            def take(turn: Turn) -> None:
                membership.object_gone(turn, kind, path.namespace, path.name)
                turn.after.append(tell)
        else:
            try:
                obj = message.object()
            except InvalidMessage:
                self._count("malformed")
                return
            if kind == "device":
                obj = await self._newest(obj)
            operation = "insert" if message.operation == Operation.INSERT else "update"

            def take(turn: Turn) -> None:
                if membership.object_changed(turn, kind, obj):
                    turn.after.append(tell)

        def tell() -> None:
            service.tell(DeviceChange(kind, operation, path.namespace, path.name))

        await self._engine.add(take)

    async def _newest(self, obj: dict[str, Any]) -> dict[str, Any]:
        """This object, or the one that metamanager has by now if this is older than what was taken: a device must not be told a value
        that is no longer wanted. An API that was restored from a backup has an older one there, too."""
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            return obj
        namespace, name = str(metadata.get("namespace") or "default"), str(metadata.get("name") or "")
        known = self._engine.registry.at(namespace, name)
        version = version_number(metadata.get("resourceVersion"))
        if known is None or known.uid != metadata.get("uid") or not 0 < version < known.version:
            return obj
        try:
            stored = json.loads(await self._tables.stored("device", namespace, name) or "null")
        except (StoreError, json.InvalidJson):
            return obj
        return stored if isinstance(stored, dict) else obj

    async def _take_word(self, message: Message) -> None:
        """Take what a cloud of KubeEdge says beside objects."""
        action = self._action(message)
        if action is None:
            self._ctx.log.debug("left alone: operation=%s resource=%s", message.operation, message.resource)
            return
        await self._engine.add(action)

    def _action(self, message: Message) -> Action | None:
        membership, about = self._engine.membership, message.resource
        data = message.data()
        if "membership" in about:
            try:
                read = read_membership(data)
            except Refused:
                self._count("malformed")
                return None
            if "membership/detail" in about:
                return lambda turn: membership.detail(turn, read)
            return lambda turn: membership.update(turn, read)
        if about == "devices/report":
            return lambda turn: self._report_anew(data)
        if not about.startswith("device/"):
            return None
        if about.endswith("/twin/cloud_updated"):
            id_text = about.removeprefix("device/").removesuffix("/twin/cloud_updated")
            return lambda turn: membership.twins_told(turn, id_text, data)
        if "updated" in message.operation:
            return lambda turn: membership.attributes_told(turn, about.removeprefix("device/"), data)
        return None

    def _report_anew(self, data: bytes) -> None:
        try:
            named = json.loads(data).get("devices")
        except (json.InvalidJson, AttributeError):
            self._count("malformed")
            return
        for id_text in named if isinstance(named, list) else ():
            device = self._engine.registry.find(str(id_text))
            if device is not None:
                self._uplink.report_anew(device)

    # -- to the bus ----------------------------------------------------------------------------------------------

    async def _publish(self, published: list[Publication]) -> None:
        for start in range(0, len(published), _AT_ONCE):
            part = published[start : start + _AT_ONCE]
            message = self._maker.make("twin", "bus", "publishall", "", part)
            try:
                await self._ctx.bus.send("eventbus", message)
            except LookupError:
                return  # nobody here speaks MQTT

    def _wanted(self, topic: str) -> bool:
        interest = self._ctx.services.find(Interest)  # type: ignore[type-abstract]
        return interest is None or interest.wanted(topic)

    def _own_cloud(self) -> bool:
        link = self._ctx.services.find(Link)  # type: ignore[type-abstract]
        return link is not None and link.own_peer

    def _gone(self, device: Device) -> None:
        self._engine.gone(device)

    def _restored(self, device: Device) -> None:
        self._uplink.report_anew(device)

    def _count(self, what: str) -> None:
        self._metrics.left.labels(what).inc()
        if what not in self._told:
            self._told.add(what)
            self._ctx.log.warning("%s; further ones are counted alone", _WORDS[what])


_WORDS: Final = {
    "topic": "a publication on a topic that means nothing here",
    "malformed": "a message about a device that cannot be read",
    "refused": "a message about a device that was refused",
}


def _bits_per_s(config: Section) -> float:
    told = config.get("reportBitsPerSecond")
    return float(_BITS_PER_S if told is None else told)
