"""Values to an MQTT broker: ``time is <YYYY-MM-DD HH:MM:SS>  <topic>: <value>`` on the property's topic, as KubeEdge's mappers publish it.

The connection stays (KubeEdge makes one for each value). Publications are taken once they are acknowledged, and for QoS 0 once the broker has
answered a ping behind them; of a batch that was cut off the rest is sent again. Brokers answer what they do not allow by closing the connection: after that
values go one at a time, and one at which the connection has ended `BREAKS` times is refused.

``address`` is ``tcp://``, ``mqtt://`` (1883), ``ssl://``, ``tls://``, ``mqtts://`` (8883) or ``host:port``, with a user and password if need be.

Errors  Away for what the broker refuses; other OSErrors.
Source  KubeEdge v1.23 mapper-framework, _template/mapper/data/publish/mqtt/client.go; OASIS, MQTT Version 3.1.1.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from edgesite.mapper.push.sink import Away, Outside, Route, Sample, number, text, wall_text
from edgesite.net import address
from edgesite.net.bytestream import ByteStream
from edgesite.net.tls import client_context
from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.packets import V3_1_1, Ack, Connack, Connect, Kind, Packet, Ping, ProtocolError, Publish
from edgesite.wire.mqtt.topics import check_topic

__all__ = ["Broker", "MqttSink", "payload", "route"]

_PLAIN: Final = ("tcp", "mqtt", "")
_SECURE: Final = ("ssl", "tls", "mqtts")
_PACKET_BYTES: Final = 64 * 1024
BREAKS: Final = 5


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it is, and who we are."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Detail:
    topic: str
    qos: int
    retained: bool


def route(section: Mapping[str, Any]) -> Route:
    """Raises ValueError."""
    broker = _broker(text(section, "address"))
    topic = text(section, "topic")
    try:
        check_topic(topic)
    except ProtocolError as exc:
        raise ValueError(f"topic: {exc}") from exc
    detail = _Detail(topic, number(section, "qos", 0, 2), section.get("retained") is True)
    return Route("mqtt", broker, lambda outside: MqttSink(broker, outside), detail)


def _broker(given: str) -> Broker:
    parts = urlsplit(given if "://" in given else f"//{given}")
    if parts.scheme not in (*_PLAIN, *_SECURE) or not parts.hostname or parts.path.strip("/"):
        raise ValueError("address is no tcp://host:port or ssl://host:port")
    secure = parts.scheme in _SECURE
    user, password = (None if one is None else unquote(one) for one in (parts.username, parts.password))
    return Broker(parts.hostname, parts.port or (8883 if secure else 1883), secure, user, password)


def payload(sample: Sample) -> bytes:
    return f"time is {wall_text(sample.at_ms)}  {sample.detail.topic}: {sample.value}".encode()


class MqttSink:
    """See the module docstring."""

    most = 200  # below the 65535 packet ids, and what brokers let wait

    def __init__(self, broker: Broker, outside: Outside) -> None:
        self._broker, self._net = broker, outside.host.net
        self._stream: ByteStream | None = None
        self._decoder = Decoder(_PACKET_BYTES)
        self.taken = 0  #: of the batch
        self._alone = 0  # how many go one at a time: the connection has ended at one of them
        self._breaks = 0  # how often the connection has ended at the value that comes next

    async def send(self, batch: Sequence[Sample]) -> None:
        self.taken, is_in = 0, False
        try:
            if self._stream is None:
                await self._connect()
            is_in = True
            while self.taken < len(batch):
                part = batch[self.taken : self.taken + (1 if self._alone else self.most)]
                await self._publish(part)
                self.taken += len(part)
                self._alone, self._breaks = max(self._alone - 1, 0), 0
        except (OSError, ProtocolError) as exc:
            said = str(exc) or type(exc).__name__
            why = f"the broker breaks the protocol: {said}" if isinstance(exc, ProtocolError) else said
            raise Away(why, refused=self._count_break(len(batch) - self.taken) if is_in else "") from exc
        finally:
            if self.taken < len(batch):
                await self.close()

    def _count_break(self, left: int) -> str:
        """The broker has ended the connection at what was sent: find out at which value. Returns why one is refused."""
        if not self._alone and left > 1:
            self._alone = left
            return ""
        self._breaks += 1
        if self._breaks < BREAKS:
            return ""
        self._alone, self._breaks = max(self._alone - 1, 0), 0
        return "the broker closes the connection whenever it comes"

    async def _connect(self) -> None:
        """Raises OSError, ProtocolError."""
        to = self._broker
        tls = client_context(alpn=()) if to.tls else None
        _, self._stream = await self._net.connect(
            ByteStream, address.join(to.host, to.port), tls=tls, server_hostname=to.host if to.tls else None
        )
        self._decoder = Decoder(_PACKET_BYTES, V3_1_1)
        password = None if to.password is None else to.password.encode()
        await self._stream.send(encode(Connect(username=to.user, password=password), V3_1_1))
        async with aclosing(self._packets()) as packets:
            async for packet in packets:
                if not isinstance(packet, Connack):
                    raise Away("the broker does not answer the connection")
                if packet.code:
                    raise Away(f"the broker refuses the connection with code {packet.code}")
                return

    async def _publish(self, batch: Sequence[Sample]) -> None:
        """Raises OSError, ProtocolError."""
        assert self._stream is not None
        waiting: set[int] = set()
        pieces = []
        for place, one in enumerate(batch, 1):
            to: _Detail = one.detail
            packet_id = place if to.qos else 0
            if to.qos:
                waiting.add(place)
            pieces.append(encode(Publish(to.topic, payload(one), to.qos, to.retained, False, packet_id), V3_1_1))
        pieces.append(encode(Ping(Kind.PINGREQ), V3_1_1))
        await self._stream.send(b"".join(pieces))
        ponged = False
        async with aclosing(self._packets()) as packets:
            async for packet in packets:
                if isinstance(packet, Ping):
                    ponged = True
                elif isinstance(packet, Ack) and packet.kind == Kind.PUBREC:
                    await self._stream.send(encode(Ack(Kind.PUBREL, packet.packet_id), V3_1_1))
                elif isinstance(packet, Ack):
                    waiting.discard(packet.packet_id)
                if ponged and not waiting:
                    return

    async def _packets(self) -> AsyncGenerator[Packet]:
        """What the broker sends. Raises Away at the end of the connection, ProtocolError."""
        assert self._stream is not None
        while piece := await self._stream.receive():
            for packet in self._decoder.feed(piece):
                yield packet
        raise Away("the broker has closed the connection")

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.abort()
