"""The module ``eventbus``: MQTT clients of this node on one side, DeviceTwin and the cloud on the other.

    clients ──> embedded broker ──┐                       ┌──> group twin    $hw/events/device/…, $hw/events/node/…
    clients ──> external broker ──┴──> topics subscribed ─┴──> group hub     all else: to the cloud
    group bus ──> publish, subscribe, unsubscribe … ──> both brokers

``mqttMode`` 0 is the embedded broker, 2 an external one, 1 both. What the cloud subscribed to is kept on disk. Ready at once: mappers may be
here before a broker is. What cannot be carried out (a topic that is none, content of another kind) is counted and logged.

Source  KubeEdge v1.12.7, edge/pkg/eventbus (operations, topics, messages).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio

from edgesite.edge.edgehub.link import CONNECTED, Link
from edgesite.edge.eventbus.external import ExternalBroker
from edgesite.edge.eventbus.incoming import Incoming
from edgesite.edge.eventbus.interest import Interest
from edgesite.edge.eventbus.metrics import Metrics
from edgesite.edge.eventbus.subscriptions import Subscriptions
from edgesite.edge.eventbus.topics import FIXED, auth_topic
from edgesite.edge.metamanager.store import StoreError
from edgesite.kube import json
from edgesite.wire.message import InvalidMessage, Message, MessageMaker, Operation
from edgesite.wire.mqtt.reasons import ProtocolError
from edgesite.wire.mqtt.topics import check_filter, is_topic

if TYPE_CHECKING:
    from edgesite.context import Context, Section
    from edgesite.edge.eventbus.internal import InternalBroker

__all__ = ["EventBus"]

INTERNAL, BOTH, EXTERNAL = 0, 1, 2
_FIRST_S: Final = 1.0
_MOST_S: Final = 30.0


class EventBus:
    """See the module docstring."""

    name: ClassVar[str] = "eventbus"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"metamanager"})
    section: ClassVar[str] = "modules.eventBus"
    reloads: ClassVar[frozenset[str]] = frozenset(
        f"broker.{name}" for name in ("aclFile", "allowAnonymous", "certFile", "keyFile", "passwordFile")
    )

    def __init__(self) -> None:
        self._metrics: Metrics | None = None  # kept over restarts: a registry takes each name once
        self._running: _Run | None = None

    def enabled(self, settings: Section) -> bool:
        return bool(settings.get("modules", {}).get("eventBus", {}).get("enable", True))

    async def run(self, ctx: Context) -> None:
        self._metrics = self._metrics or Metrics(ctx.metrics)
        self._running = _Run(ctx, self._metrics)
        try:
            await self._running.run()
        finally:
            self._running = None

    def reload(self, config: Section) -> None:
        """See `edgesite.context.Module`: users, their rights and the certificate of the embedded broker. Raises ValueError."""
        if self._running is not None:
            self._running.reload(config)


class _Run:
    """One run of the module."""

    def __init__(self, ctx: Context, metrics: Metrics) -> None:
        self._ctx = ctx
        self._metrics = metrics
        mode = int(ctx.config["mqttMode"])
        maker = MessageMaker(ctx.clock.time, ctx.random.getrandbits)
        self._incoming = Incoming(ctx.bus, maker)
        self._subscriptions = Subscriptions(ctx.services)
        self._internal: InternalBroker | None = None
        if mode in (INTERNAL, BOTH):
            from edgesite.edge.eventbus.internal import InternalBroker

            self._internal = InternalBroker(ctx, self._incoming)
        self._external: ExternalBroker | None = None
        if mode in (BOTH, EXTERNAL):
            self._external = ExternalBroker(ctx, self._incoming, self._topics)
            self._external.on_refused = self._forget
        self._tasks = anyio.create_task_group()
        self._said: set[str] = set()
        metrics.follow(self._incoming, self._internal, self._external)

    def _topics(self) -> Iterator[str]:
        yield from FIXED
        yield from self._subscriptions.topics

    async def run(self) -> None:
        ctx = self._ctx
        await self._subscriptions.load()
        inbox = ctx.bus.join("eventbus", "bus", size=64)
        link = ctx.services.find(Link)  # type: ignore[type-abstract]
        self._incoming.set_linked(link is None or link.connected)
        async with self._tasks as tasks:
            tasks.start_soon(self._incoming.run)
            if self._external is not None:
                tasks.start_soon(self._external.run)
            if self._internal is not None:
                tried = anyio.Event()
                tasks.start_soon(self._internal.run, self._topics, tried)
                await tried.wait()
            ctx.services.provide(Interest, self)  # type: ignore[type-abstract]
            ctx.ready()
            async for message in inbox:
                await self._take(message)

    def reload(self, config: Section) -> None:
        """Raises ValueError."""
        if self._internal is not None:
            self._internal.reload(config)

    def wanted(self, topic: str) -> bool:
        """See `Interest`. An external broker does not tell who listens; one that was never there has no listeners."""
        if self._external is not None and self._external.was_there:
            return True
        return self._internal is not None and self._internal.wanted(topic)

    # What the bus tells

    async def _take(self, message: Message) -> None:
        try:
            match message.operation:
                case "publish":
                    self._publish(message.resource, message.data())
                case "publishall":
                    self._publish_all(message)
                case "subscribe":
                    await self._subscribe(message.resource)
                case "unsubscribe":
                    await self._unsubscribe(message.resource)
                case "message":
                    self._publish_inner(message)
                case "get_result":
                    if message.resource == "auth_info":
                        self._publish(auth_topic(self._ctx.node_name), json.dumps(message.content))
                case Operation.CONNECT:
                    self._incoming.set_linked(message.content == CONNECTED)
                case _:
                    return  # what others may tell the group
        except (ProtocolError, InvalidMessage, ValueError, TypeError) as exc:
            self._refuse(message, exc)
        except StoreError as exc:
            self._metrics.refused.inc()
            self._ctx.log.error("%s %s is not kept: %s", message.operation, message.resource, exc)
        if self._internal is not None:
            self._internal.flush()

    def _publish(self, topic: str, payload: bytes) -> None:
        if not is_topic(topic):
            raise InvalidMessage("that is no topic to publish to")
        self._metrics.published.inc()
        if self._internal is not None:
            self._internal.publish(topic, payload)
        if self._external is not None:
            self._external.publish(topic, payload)

    def _publish_all(self, message: Message) -> None:
        """Pairs of topic and payload; one that cannot be published does not keep back the others."""
        for topic, payload in message.content:
            try:
                self._publish(topic, payload)
            except InvalidMessage as exc:
                self._refuse(message, exc)

    def _publish_inner(self, message: Message) -> None:
        """Content ``{"message": {"topic": ..., ...}}``: the inner object goes to its topic."""
        inner: Any = message.object().get("message")
        if not isinstance(inner, dict) or not isinstance(inner.get("topic"), str):
            raise InvalidMessage("there is no message with a topic in it")
        self._publish(inner["topic"], json.dumps(inner))

    async def _subscribe(self, topic: str) -> None:
        check_filter(topic)
        if topic.startswith("$share/"):
            raise InvalidMessage("a node shares its subscriptions with nobody")
        if topic in self._subscriptions.topics:
            return
        await self._subscriptions.add(topic)
        if self._internal is not None:
            self._internal.subscribe(topic)
        if self._external is not None:
            self._external.subscribe(topic)

    async def _unsubscribe(self, topic: str) -> None:
        await self._subscriptions.remove(topic)
        if topic in FIXED:
            return
        if self._internal is not None:
            self._internal.unsubscribe(topic)
        if self._external is not None:
            self._external.unsubscribe(topic)

    def _forget(self, topic: str) -> None:
        """The external broker refuses this topic."""
        if self._internal is None and topic in self._subscriptions.topics:
            self._tasks.start_soon(self._drop, topic)

    async def _drop(self, topic: str) -> None:
        try:
            await self._subscriptions.remove(topic)
        except StoreError as exc:
            self._ctx.log.error("the subscription to %s is kept: %s", topic, exc)

    def _refuse(self, message: Message, why: Exception) -> None:
        self._metrics.refused.inc()
        kind = f"{message.operation} from {message.source}"
        if kind not in self._said and len(self._said) < 100:  # not each of a flood
            self._said.add(kind)
            self._ctx.log.warning("refused: %s, resource %.200s: %s", kind, message.resource, why)
