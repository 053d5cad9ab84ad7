"""The connection to an external MQTT broker: dialled again as long as it takes, read without letting the broker get ahead of us.

A broker is looked for with a plain connection first; paho-mqtt and its thread come only when one answers, for they cost 4 MiB.

Units   Seconds.
Errors  ValueError from the constructor for an address, OSError for certificates, that cannot be used. A broker that is away is no error.
Bounds  `Outbox`: ``mqttSessionQueueSize`` publications while the broker is away, `CONNECTED` else; the oldest go first, and are counted.
Source  KubeEdge v1.12.7, edge/pkg/eventbus (clients, TLS; without ``eventBusTLS.enable`` it accepts any certificate).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.eventbus.address import address_of
from edgesite.edge.eventbus.outbox import Command, Outbox
from edgesite.net import address as addresses

if TYPE_CHECKING:
    import ssl

    from edgesite.context import Context, Worker
    from edgesite.edge.eventbus.incoming import Incoming
    from edgesite.edge.eventbus.pahoclient import Batch, PahoSession

__all__ = ["ExternalBroker"]

CONNECTED: Final = 20_000
SEEN: Final = 4096  #: retained publications that are remembered
_PROBE_S: Final = 5.0
_FIRST_S: Final = 1.0
_MOST_S: Final = 30.0


class ExternalBroker:
    """See the module docstring. ``connected`` is whether it can be published to."""

    def __init__(self, ctx: Context, incoming: Incoming, topics: Callable[[], Iterable[str]]) -> None:
        self._ctx, self._incoming, self._topics = ctx, incoming, topics
        self._config: Any = ctx.config
        self.address, self._is_tls = address_of(self._config["mqttServerExternal"])
        self._away = max(1, int(self._config["mqttSessionQueueSize"]))
        self.outbox = Outbox(self._away)
        self.connected = False
        self.was_there = False  #: at some time
        self.connects = 0
        self.repeated = 0
        self.unreadable = 0  #: publications whose topic was no text
        self.on_refused: Callable[[str], None] = lambda topic: None
        self._session: PahoSession | None = None
        self._seen: dict[str, int] = {}
        self._tls: ssl.SSLContext | None = None

    # For the module

    def publish(self, topic: str, payload: bytes) -> None:
        """Queue a publication; without a broker too, as far as there is room."""
        self._hand(Command("publish", topic, payload))

    def subscribe(self, topic: str) -> None:
        if self.connected:
            self._hand(Command("subscribe", topic))

    def unsubscribe(self, topic: str) -> None:
        if self.connected:
            self._hand(Command("unsubscribe", topic))

    def _hand(self, command: Command) -> None:
        if self._session is not None:
            self._session.hand(command)
        else:
            self.outbox.put(command)

    # Keeping the connection

    async def run(self) -> None:
        """Keep connected until cancelled."""
        ctx = self._ctx
        worker: Worker | None = None
        said, wait_s = "", _FIRST_S
        try:
            while True:
                try:
                    await self._probe()
                    worker = worker or ctx.threads.worker("mqttclient")
                    if self._session is None:
                        self._session = await self._make(worker)
                    elif self._tls is not None:
                        await ctx.threads.run(self._renew, self._tls)
                    await self._connect(worker, self._session)
                    ctx.log.info("connected to the MQTT broker at %s", self.address)
                    said, wait_s = "", _FIRST_S
                    await self._serve(worker, self._session)
                except (OSError, TimeoutError) as exc:
                    reason = str(exc) or type(exc).__name__
                    if reason != said:  # not each attempt; a node without a broker is nothing to worry about
                        level = logging.INFO if self._session is None else logging.WARNING
                        ctx.log.log(level, "no MQTT broker at %s: %s", self.address, reason)
                        said = reason
                finally:
                    self._is_away()
                await ctx.clock.sleep(wait_s * (0.5 + ctx.random.random() / 2))
                wait_s = min(2 * wait_s, _MOST_S)
        finally:
            await self._end(worker)

    async def _probe(self) -> None:
        """Raises OSError, TimeoutError if nobody listens there."""
        if self._session is not None:
            return
        with anyio.fail_after(_PROBE_S):
            transport, _ = await self._ctx.net.connect(asyncio.Protocol, self.address)
            transport.abort()

    async def _make(self, worker: Worker) -> PahoSession:
        try:
            from edgesite.edge.eventbus.pahoclient import ClientOptions, PahoSession
        except ImportError as exc:
            raise OSError(f"an external MQTT broker needs paho-mqtt: {exc}") from exc

        if self._is_tls:
            self._tls = await self._ctx.threads.run(self._context)
        config, at = self._config, addresses.parse(self.address)
        digits = str(int(self._ctx.clock.time() * 1000))[:10]
        options = ClientOptions(
            at.host,
            at.port,
            config["mqttSubClientID"] or f"hub-client-sub-{digits}",
            config["mqttPubClientID"] or f"hub-client-pub-{digits}",
            config["mqttUsername"],
            config["mqttPassword"],
            self._tls,
            keep_sessions=bool(config["mqttSubClientID"]),
        )
        return await worker.submit(PahoSession, options, self.outbox, self._ctx.clock)

    def _context(self) -> ssl.SSLContext:
        from edgesite.net import tls

        given = self._config["eventBusTLS"]
        if not given["enable"]:
            self._ctx.log.warning(
                "the certificate of the MQTT broker is not checked: modules.eventBus.eventBusTLS is not enabled"
            )
            return tls.client_context(verify=False, alpn=())
        certificate, key = Path(given["tlsMqttCertFile"]), Path(given["tlsMqttPrivateKeyFile"])
        return tls.client_context(ca=Path(given["tlsMqttCAFile"]), certificate=certificate, key=key, alpn=())

    def _renew(self, context: ssl.SSLContext) -> None:
        """The node's certificate is renewed now and then: show the one that the file holds now. Raises OSError."""
        from edgesite.net import tls

        given = self._config["eventBusTLS"]
        if given["enable"]:
            certificate, key = Path(given["tlsMqttCertFile"]), Path(given["tlsMqttPrivateKeyFile"])
            tls.renew(context, certificate, key, client_ca=Path(given["tlsMqttCAFile"]))

    async def _connect(self, worker: Worker, session: PahoSession) -> None:
        self.outbox.drop_subscriptions()
        await worker.submit(session.connect, list(self._topics()))
        self.outbox.most = CONNECTED
        self.connected = self.was_there = True
        self.connects += 1

    async def _serve(self, worker: Worker, session: PahoSession) -> None:
        """Read until the connection breaks. Raises OSError."""
        while True:
            await self._incoming.wait_for_room()
            self._take(await worker.submit(session.pump))

    def _take(self, batch: Batch) -> None:
        for topic, payload, is_retained in batch.publications:
            if is_retained and self._is_known(topic, payload):
                self.repeated += 1
            else:
                self._incoming.put(topic, payload)
        if batch.unreadable:
            if not self.unreadable:
                self._ctx.log.warning("the MQTT broker sent a topic that is no UTF-8; further ones are counted alone")
            self.unreadable += batch.unreadable
        for topic in batch.refused:
            self._ctx.log.warning("the MQTT broker does not let us subscribe to %s", topic)
            self.on_refused(topic)

    def _is_known(self, topic: str, payload: bytes) -> bool:
        """Whether this retained publication was taken before: each new connection brings it again, after newer ones perhaps."""
        found = hash(payload)
        if self._seen.get(topic) == found:
            return True
        if len(self._seen) >= SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[topic] = found
        return False

    def _is_away(self) -> None:
        if self.connected:
            self.connected = False
            self.outbox.most = self._away

    async def _end(self, worker: Worker | None) -> None:
        session, self._session = self._session, None
        if worker is None:
            return
        with anyio.CancelScope(shield=True):
            if session is not None:
                session.stop()
                await worker.submit(session.close)
            await worker.close()
