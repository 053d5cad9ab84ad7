"""An MQTT client of the codec alone, over a socket: it does what it is told, and nothing by itself but acknowledge."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.abc import SocketStream

from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Kind,
    Packet,
    Ping,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)

_NEXT: dict[int, Kind] = {Kind.PUBREC: Kind.PUBREL, Kind.PUBREL: Kind.PUBCOMP}


class RawClient:
    """One client; `connect` may be called again."""

    def __init__(self, port: int, client_id: str, version: int = 5) -> None:
        self.port, self.client_id, self.version = port, client_id, version
        self.acks = True
        self.got: list[Publish] = []
        self._stream: SocketStream | None = None
        self._decoder = Decoder(version=version)
        self._ids = 0

    @property
    def is_connected(self) -> bool:
        return self._stream is not None

    async def connect(self, **given: Any) -> Connack:
        self._stream = await anyio.connect_tcp("127.0.0.1", self.port)
        self._decoder = Decoder(version=self.version)
        await self.send(Connect(self.client_id, self.version, **given))
        found = await self.until(Connack)
        assert isinstance(found, Connack)
        return found

    async def send(self, *packets: Packet) -> None:
        assert self._stream is not None
        await self._stream.send(b"".join(encode(one, self.version) for one in packets))

    async def until(self, kind: type, number: int = 0, ack: int = 0) -> Packet:
        """Read until this answer; keep publications. Raises EndOfStream, TimeoutError."""
        assert self._stream is not None
        with anyio.fail_after(60):
            while True:
                found = None
                for packet in self._decoder.feed(await self._stream.receive()):
                    await self._take(packet)
                    is_answer = isinstance(packet, kind) and getattr(packet, "packet_id", 0) == number
                    if is_answer and (not ack or getattr(packet, "kind", 0) == ack):
                        found = packet
                if found is not None:
                    return found

    async def _take(self, packet: Packet) -> None:
        if isinstance(packet, Publish):
            self.got.append(packet)
            if packet.qos and self.acks:
                await self.send(Ack(Kind.PUBACK if packet.qos == 1 else Kind.PUBREC, packet.packet_id))
        elif isinstance(packet, Ack) and self.acks and packet.code < 0x80 and packet.kind in _NEXT:
            await self.send(Ack(_NEXT[packet.kind], packet.packet_id))

    async def ping(self) -> None:
        """All that the broker sent before has come after this."""
        for _ in range(2):  # what the first one's acknowledgements set free comes before the second answer
            await self.send(Ping(Kind.PINGREQ))
            await self.until(Ping)

    async def subscribe(self, pattern: str, qos: int = 0, *, properties: Any = None, **options: Any) -> list[int]:
        self._ids += 1
        await self.send(Subscribe(self._ids, [Subscription(pattern, qos, **options)], properties))
        found = await self.until(Suback, self._ids)
        assert isinstance(found, Suback)
        return found.codes

    async def unsubscribe(self, pattern: str) -> None:
        self._ids += 1
        await self.send(Unsubscribe(self._ids, [pattern]))
        await self.until(Unsuback, self._ids)

    async def publish(self, topic: str, payload: bytes, qos: int = 0, **given: Any) -> int:
        """Publish to the end; return the reason code."""
        if not qos:
            await self.send(Publish(topic, payload, **given))
            await self.ping()
            return 0
        self._ids += 1
        number = self._ids
        await self.send(Publish(topic, payload, qos, packet_id=number, **given))
        found = await self.until(Ack, number, Kind.PUBACK if qos == 1 else Kind.PUBCOMP)
        assert isinstance(found, Ack)
        return found.code

    async def close(self) -> None:
        """Drop the connection without a word."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def taken(self) -> list[tuple[str, bytes, int, bool]]:
        """Publications since the last call."""
        found = [(one.topic, one.payload, one.qos, one.retain) for one in self.got]
        self.got.clear()
        return found
