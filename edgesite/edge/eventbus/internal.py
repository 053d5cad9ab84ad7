"""The embedded broker as EventBus has it: started with its file, subscribed to for the host.

Settings, files and addresses that cannot be used are logged and tried again: what else the module does goes on.

Source  KubeEdge v1.12.7, edge/pkg/eventbus/mqtt/server.go (what of the clients' reaches edgecore; nothing of edgecore's own does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import apsw

from edgesite.edge.eventbus.broker.journal import SqliteJournal
from edgesite.edge.eventbus.broker.server import BrokerServer
from edgesite.edge.eventbus.broker.settings import BrokerSettings, read_settings, renew_certificate
from edgesite.wire.mqtt.broker import Broker
from edgesite.wire.mqtt.messages import Message
from edgesite.wire.mqtt.session import Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgesite.context import Context, Section
    from edgesite.edge.eventbus.incoming import Incoming

__all__ = ["InternalBroker"]

_NAME: Final = "edgecore"  #: the host, among those who subscribe
_FIRST_S: Final = 1.0
_MOST_S: Final = 30.0


class InternalBroker:
    """Serves between the start and the end of `run`."""

    def __init__(self, ctx: Context, incoming: Incoming) -> None:
        self._ctx = ctx
        self._incoming = incoming
        self._qos = int(ctx.config["mqttQOS"])
        self._retain = bool(ctx.config["mqttRetain"])
        self._broker: Broker | None = None
        self._server: BrokerServer | None = None
        self._settings: BrokerSettings | None = None
        self.address = ""

    async def run(self, topics: Callable[[], Iterable[str]], tried: anyio.Event) -> None:
        """Serve until cancelled; ``topics`` are those of the host. ``tried`` is set when it serves, or cannot yet: it is tried again."""
        said, wait_s = "", _FIRST_S
        while True:
            try:
                await self._serve(topics, tried)
            except* (OSError, ValueError, apsw.Error) as group:
                why = _first(group)
                if why != said:  # not each attempt
                    self._ctx.log.error("the MQTT broker cannot serve: %s", why)
                    said = why
            tried.set()
            await self._ctx.clock.sleep(wait_s * (0.5 + self._ctx.random.random() / 2))
            wait_s = min(2 * wait_s, _MOST_S)

    async def _serve(self, topics: Callable[[], Iterable[str]], tried: anyio.Event) -> None:
        """Raises ValueError, OSError, apsw.Error, or groups of these."""
        ctx = self._ctx
        settings = self._settings = await ctx.threads.run(read_settings, ctx.config)
        worker = ctx.threads.worker("mqtt")
        journal = SqliteJournal(ctx.disk, ctx.data_dir / "mqtt.db", worker, ctx.clock)
        try:
            await journal.open()
            broker = Broker(settings.limits, ctx.random.getrandbits, journal=journal, acl=settings.acl)
            await journal.load(broker)
            for topic in topics():
                broker.subscribe_local(_NAME, topic, self)
            server = BrokerServer(
                broker,
                settings.who,
                clock=ctx.clock,
                threads=ctx.threads,
                journal=journal,
                host_is_full=lambda: self._incoming.is_full,
            )
            async with server:
                listener = await server.listen(ctx.net, settings.address, settings.tls)
                try:
                    self._broker, self._server, self.address = broker, server, listener.address
                    self._incoming.on_room = server.go_on
                    ctx.log.info("the MQTT broker serves at %s", listener.address)
                    tried.set()
                    await server.run()
                finally:
                    self._broker = self._server = None
                    server.close()
                    with anyio.CancelScope(shield=True):
                        await listener.close()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await journal.close()
                finally:
                    await worker.close()

    def reload(self, config: Section) -> None:
        """Take over who may come in and do what, and show another certificate from now on; who is here stays. Raises ValueError."""
        if self._settings is None or self._broker is None or self._server is None:
            return
        try:
            new = read_settings(config)
            if self._settings.tls is not None:
                renew_certificate(self._settings.tls, config)
        except OSError as exc:
            raise ValueError(str(exc)) from exc
        self._broker.acl = new.acl
        self._server.who = new.who

    @property
    def counts(self) -> Counts | None:
        return None if self._broker is None else self._broker.counts

    @property
    def clients(self) -> int:
        return 0 if self._broker is None else len(self._broker.connections)

    def deliver(self, message: Message, qos: int, retain: bool, ids: tuple[int, ...], now: float) -> bool:
        """A client published something that the host has subscribed to."""
        self._incoming.put(message.topic, message.payload)
        return True

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish to the clients; `flush` after the last of several. Without a broker nothing happens."""
        if self._broker is not None:
            self._broker.publish(topic, payload, self._qos, self._retain, self._ctx.clock.monotonic(), self)

    def flush(self) -> None:
        if self._server is not None:
            self._server.flush()

    def subscribe(self, topic: str) -> None:
        if self._broker is not None:
            self._broker.subscribe_local(_NAME, topic, self)

    def unsubscribe(self, topic: str) -> None:
        if self._broker is not None:
            self._broker.unsubscribe_local(_NAME, topic)

    def wanted(self, topic: str) -> bool:
        """Whether a client would get it."""
        return self._broker is not None and (self._retain or self._broker.has_readers(topic, self))


def _first(failure: BaseException) -> str:
    """The text of the first failure in a group of them."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return str(failure) or type(failure).__name__
