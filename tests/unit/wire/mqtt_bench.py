"""A broker's core and clients made of the codec, on a clock that the test moves."""

from __future__ import annotations

import random
from typing import Any

from edgesite.wire.mqtt.broker import Broker
from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.connection import Connection, Peer
from edgesite.wire.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Kind,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from edgesite.wire.mqtt.session import Limits


class Bench:
    """The broker, its clock, and all clients."""

    def __init__(self, limits: Limits = Limits(), **parts: Any) -> None:
        self.now = 1000.0
        self.broker = Broker(limits, random.Random(1).getrandbits, **parts)
        self.clients: dict[Connection, Client] = {}

    def settle(self) -> None:
        """Carry bytes to the clients until nobody has any."""
        broker = self.broker
        for connection in broker.logins:
            broker.admit(connection, connection.connect.username or "", self.now)
        broker.logins.clear()
        while broker.dirty:
            for connection in broker.take_dirty():
                if (client := self.clients.get(connection)) is not None:
                    client.take(connection.take())
                    connection.flushed(self.now)

    def wait(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        until = self.now + seconds
        while (at := self.broker.next_timer()) is not None and at <= until:
            self.now = max(self.now, at)
            self.broker.handle_timer(self.now)
            self.settle()
        self.now = until

    def client(self, client_id: str = "", version: int = 5, **given: Any) -> Client:
        """Connect one."""
        made = Client(self, version)
        made.send(Connect(client_id, version, **given))
        return made


class Client:
    """One connection; acknowledges by itself unless told not to."""

    def __init__(self, bench: Bench, version: int = 5) -> None:
        self.bench, self.version = bench, version
        self.decoder = Decoder(version=version)
        self.got: list[Packet] = []
        self.acks = True
        self.next_id = 0
        connection = bench.broker.open(Peer("test", True), bench.now)
        assert connection is not None
        self.connection = connection
        bench.clients[connection] = self

    def send(self, *packets: Packet) -> None:
        self.connection.receive(b"".join(encode(one, self.version) for one in packets), self.bench.now)
        self.bench.settle()

    def take(self, data: bytes) -> None:
        for packet in self.decoder.feed(data):
            self.got.append(packet)
            if self.acks:
                self._acknowledge(packet)

    def _acknowledge(self, packet: Packet) -> None:
        kind = None
        if isinstance(packet, Publish) and packet.qos:
            kind = Kind.PUBACK if packet.qos == 1 else Kind.PUBREC
        elif isinstance(packet, Ack) and packet.kind in (Kind.PUBREC, Kind.PUBREL) and packet.code < 0x80:
            kind = Kind.PUBREL if packet.kind == Kind.PUBREC else Kind.PUBCOMP
        if kind is not None:
            number = getattr(packet, "packet_id", 0)
            self.connection.receive(encode(Ack(kind, number), self.version), self.bench.now)

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 0, **given: Any) -> int:
        number = self.new_id() if qos else 0
        self.send(Publish(topic, payload, qos, packet_id=number, **given))
        return number

    def subscribe(self, pattern: str, qos: int = 2, *, properties: Any = None, **options: Any) -> list[int]:
        number = self.new_id()
        self.send(Subscribe(number, [Subscription(pattern, qos, **options)], properties))
        return next(one.codes for one in self.got if isinstance(one, Suback) and one.packet_id == number)

    def unsubscribe(self, pattern: str) -> None:
        self.send(Unsubscribe(self.new_id(), [pattern]))

    def lose(self) -> None:
        """The connection breaks."""
        self.connection.lost(self.bench.now)
        self.bench.settle()

    def messages(self) -> list[Publish]:
        """Publications since the last call."""
        found = [one for one in self.got if isinstance(one, Publish)]
        self.got = [one for one in self.got if not isinstance(one, Publish)]
        return found

    def payloads(self) -> list[bytes]:
        return [one.payload for one in self.messages()]

    def last(self, kind: type[Any]) -> Any:
        """The newest packet of a type."""
        return next(one for one in reversed(self.got) if isinstance(one, kind))

    @property
    def connack(self) -> Connack:
        found = self.last(Connack)
        assert isinstance(found, Connack)
        return found
