"""What the broker tells its journal, and that it answers only for what is stored: crashes between any two steps lose and repeat nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mqtt_bench import Bench, Client

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.messages import Message, Parcel
from edgesite.wire.mqtt.packets import Ack, Connect, Kind, Publish, Suback, Subscribe, Subscription
from edgesite.wire.mqtt.session import Grant, Session

KEEP = {props.SESSION_EXPIRY: 1000}


@dataclass
class Disk:
    """Tables of a journal."""

    sessions: dict[str, tuple[str, float]] = field(default_factory=dict)
    grants: dict[tuple[str, str], Grant] = field(default_factory=dict)
    queue: dict[tuple[str, int], Parcel] = field(default_factory=dict)
    taken: set[tuple[str, int]] = field(default_factory=set)
    retained: dict[str, Message] = field(default_factory=dict)


class MemoryJournal:
    """Changes wait until `sync`; a crash loses those that do."""

    def __init__(self, disk: Disk) -> None:
        self.sequence = 0
        self.disk = disk
        self._waiting: list[Any] = []

    def sync(self) -> int:
        for change in self._waiting:
            change()
        self._waiting.clear()
        return self.sequence

    def _later(self, change: Any, *, told: bool = True) -> None:
        self._waiting.append(change)
        self.sequence += told

    def session(self, session: Session) -> None:
        row = session.user, session.expiry_s
        self._later(lambda: self.disk.sessions.__setitem__(session.client_id, row))

    def away(self, client_id: str, is_away: bool) -> None:
        """No clock goes on here while the broker does not."""

    def forget(self, client_id: str) -> None:
        def change() -> None:
            self.disk.sessions.pop(client_id, None)
            for table in (self.disk.grants, self.disk.queue):
                for key in [one for one in table if one[0] == client_id]:
                    del table[key]
            self.disk.taken -= {one for one in self.disk.taken if one[0] == client_id}

        self._later(change, told=False)

    def subscribed(self, client_id: str, grant: Grant) -> None:
        self._later(lambda: self.disk.grants.__setitem__((client_id, grant.wanted.filter), grant))

    def unsubscribed(self, client_id: str, pattern: str) -> None:
        self._later(lambda: self.disk.grants.pop((client_id, pattern), None))

    def queued(self, client_id: str, parcel: Parcel) -> None:
        row = Parcel(parcel.message, parcel.qos, parcel.retain, parcel.ids, parcel.packet_id)
        self._later(lambda: self.disk.queue.__setitem__((client_id, row.packet_id), row))

    def released(self, client_id: str, packet_id: int) -> None:
        self._later(lambda: setattr(self.disk.queue[client_id, packet_id], "is_released", True))

    def done(self, client_id: str, packet_id: int) -> None:
        self._later(lambda: self.disk.queue.pop((client_id, packet_id), None), told=False)

    def received(self, client_id: str, packet_id: int) -> None:
        self._later(lambda: self.disk.taken.add((client_id, packet_id)))

    def completed(self, client_id: str, packet_id: int) -> None:
        self._later(lambda: self.disk.taken.discard((client_id, packet_id)))

    def retained(self, message: Message) -> None:
        def change() -> None:
            if message.payload:
                self.disk.retained[message.topic] = message
            else:
                self.disk.retained.pop(message.topic, None)

        self._later(change)


def bench_on(disk: Disk) -> tuple[Bench, MemoryJournal]:
    """A broker that starts with what is on the disk."""
    journal = MemoryJournal(disk)
    bench = Bench(journal=journal)
    for client_id, (user, expiry_s) in disk.sessions.items():
        session = bench.broker.restore(client_id, user, expiry_s, bench.now)
        for (owner, _), grant in disk.grants.items():
            if owner == client_id:
                bench.broker.restore_grant(session, grant)
        for (owner, packet_id), row in disk.queue.items():
            if owner == client_id:
                session.restore(
                    Parcel(row.message, row.qos, row.retain, row.ids, packet_id, True, is_released=row.is_released)
                )
        for number in [number for owner, number in disk.taken if owner == client_id]:
            session.receive(number)
    for message in disk.retained.values():
        bench.broker.restore_retained(message)
    return bench, journal


def test_nothing_is_acknowledged_before_it_is_stored_and_all_in_order() -> None:
    bench, journal = bench_on(Disk())
    reader = bench.client("r", clean_start=False, properties=KEEP)
    bench.broker.stored(journal.sync(), bench.now)
    assert subscribe_and_store(bench, journal, reader, "a") == [2]
    writer = bench.client("w")
    writer.publish("a", b"1", 1)
    writer.publish("elsewhere", b"2", 1)  # would be answered at once, but not before the first
    writer.publish("a", b"3", 2)
    assert not [one for one in writer.got if isinstance(one, Ack)]
    assert reader.payloads() == [b"1"]  # what is of QoS 2 waits, too
    bench.broker.stored(journal.sync(), bench.now)
    bench.settle()
    assert reader.payloads() == [b"3"]
    acks = [(one.kind, one.packet_id) for one in writer.got if isinstance(one, Ack)]
    assert acks[:3] == [(Kind.PUBACK, 1), (Kind.PUBACK, 2), (Kind.PUBREC, 3)]


def subscribe_and_store(bench: Bench, journal: MemoryJournal, client: Client, pattern: str) -> list[int]:
    number = client.new_id()
    client.send(Subscribe(number, [Subscription(pattern, 2)]))
    assert not [one for one in client.got if isinstance(one, Suback)]
    bench.broker.stored(journal.sync(), bench.now)
    bench.settle()
    return list(client.last(Suback).codes)


@given(st.integers(0, 2**32), st.integers(10, 60))
def test_crashes_lose_nothing_that_was_acknowledged_and_repeat_nothing_of_qos_2(seed: int, steps: int) -> None:
    """A writer of QoS 1 and 2 that repeats what was not acknowledged, a reader that acknowledges now and then; broker, reader and writer die
    at any moment, the broker with what it had not stored."""
    dice, disk = random.Random(seed), Disk()
    bench, journal = bench_on(disk)
    reader = _Reader(bench)
    journal.sync()
    writer = _Writer()
    for _ in range(steps):
        action = dice.choice(["publish", "publish", "sync", "sync", "ack", "crash", "reader", "writer"])
        if action == "publish":
            writer.add(dice.choice([1, 2]))
            writer.push(bench)
        elif action == "sync":
            bench.broker.stored(journal.sync(), bench.now)
            bench.settle()
        elif action == "ack":
            reader.acknowledge(dice)
        elif action == "crash":
            bench, journal = bench_on(disk)
            reader.connect(bench)
            writer.client = None
            writer.push(bench)
        elif action == "reader":
            reader.lose()
            reader.connect(bench)
        else:
            writer.lose()
            writer.push(bench)
        writer.look()
    for _ in range(200):
        writer.push(bench)
        writer.look()
        reader.acknowledge(dice)
        bench.broker.stored(journal.sync(), bench.now)
        bench.settle()
    assert not writer.waiting
    assert set(reader.seen) >= set(range(writer.made))
    for number in range(writer.made):
        if writer.qos[number] == 2:
            assert reader.seen.count(number) == 1
    firsts = [n for at, n in enumerate(reader.seen) if n not in reader.seen[:at] and writer.qos[n] == 2]
    assert firsts == sorted(firsts)


class _Writer:
    """Publishes numbers; keeps each until it is acknowledged, as a client's own session does."""

    def __init__(self) -> None:
        self.made = 0
        self.qos: dict[int, int] = {}
        self.waiting: dict[int, int] = {}  # packet id → number; QoS 2 that was received: -1
        self.client: Client | None = None
        self._sent: set[int] = set()

    def add(self, qos: int) -> None:
        free = next((one for one in range(1, 5) if one not in self.waiting), None)  # ids are used again soon
        if free is None:
            return
        self.qos[self.made] = qos
        self.waiting[free] = self.made
        self._sent.discard(free)
        self.made += 1

    def push(self, bench: Bench) -> None:
        """Connect if need be; a new connection repeats all that waits, else the newest is sent."""
        client = self.client
        repeat = client is None or client.bench is not bench
        if client is None or client.bench is not bench:
            client = self.client = Client(bench)
            client.acks = False
            client.send(Connect("writer", 5, False, properties=KEEP))
            self._sent.clear()
        for packet_id, number in self.waiting.items():
            if packet_id in self._sent and number >= 0:
                continue
            if number < 0:
                if repeat:
                    client.send(Ack(Kind.PUBREL, packet_id))
                continue
            self._sent.add(packet_id)
            client.send(Publish("t", str(number).encode(), self.qos[number], dup=repeat, packet_id=packet_id))

    def look(self) -> None:
        """Take what came."""
        if self.client is None:
            return
        acks = [one for one in self.client.got if isinstance(one, Ack)]
        self.client.got.clear()
        for one in acks:
            if one.kind == Kind.PUBREC:
                self.waiting[one.packet_id] = -1
                self.client.send(Ack(Kind.PUBREL, one.packet_id))
            else:
                self.waiting.pop(one.packet_id, None)

    def lose(self) -> None:
        if self.client is not None:
            self.client.lose()
            self.client = None


class _Reader:
    """A durable client that sees each QoS 2 message once, as the protocol has it, and acknowledges when it likes."""

    def __init__(self, bench: Bench) -> None:
        self.seen: list[int] = []
        self._taken: set[int] = set()  # ids of QoS 2 messages that are not released
        self.connect(bench)
        self.client.send(Subscribe(1, [Subscription("t", 2)]))

    def connect(self, bench: Bench) -> None:
        self.client = Client(bench)
        self.client.acks = False
        self.client.send(Connect("reader", 5, False, properties=KEEP))

    def lose(self) -> None:
        self.client.lose()

    def acknowledge(self, dice: random.Random) -> None:
        for packet in list(self.client.got):
            if dice.random() < 0.3:
                break
            self.client.got.remove(packet)
            if isinstance(packet, Publish):
                if packet.qos == 1 or packet.packet_id not in self._taken:
                    self.seen.append(int(packet.payload))
                if packet.qos == 2:
                    self._taken.add(packet.packet_id)
                kind = Kind.PUBACK if packet.qos == 1 else Kind.PUBREC
                self.client.send(Ack(kind, packet.packet_id))
            elif isinstance(packet, Ack) and packet.kind == Kind.PUBREL:
                self._taken.discard(packet.packet_id)
                self.client.send(Ack(Kind.PUBCOMP, packet.packet_id))
