"""The embedded broker's file over a restart: what has expired meanwhile is gone, whatever the clocks did; a write that was cut off is made up."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

from edgesite.edge.eventbus.broker.journal import SqliteJournal
from edgesite.net.real import RealClock, RealDisk, RealThreads
from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.broker import Broker
from edgesite.wire.mqtt.codec import Decoder, encode
from edgesite.wire.mqtt.connection import Connection, Peer
from edgesite.wire.mqtt.packets import Connect, Packet, Publish, Subscribe, Subscription
from edgesite.wire.mqtt.session import Limits

pytestmark = pytest.mark.anyio
WRONG, NOW = 1_000.0, 1_800_000_000.0
BRIEF, LONG = {props.MESSAGE_EXPIRY: 60}, {props.MESSAGE_EXPIRY: 100_000}


class Clock(RealClock):
    """A wall clock that the test sets; a monotonic one that begins anew with each boot."""

    def __init__(self, wall: float) -> None:
        self.wall, self.up = wall, 0.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.up


class Node:
    def __init__(self, broker: Broker, clock: Clock) -> None:
        self.broker, self.clock = broker, clock

    def connect(self, client_id: str, expiry_s: int) -> Connection:
        connection = self.broker.open(Peer("test", True), self.clock.up)
        assert connection is not None
        given = {props.SESSION_EXPIRY: expiry_s}
        self.send(connection, Connect(client_id, 5, False, properties=given))
        for asking in self.broker.logins:
            self.broker.admit(asking, "", self.clock.up)
        self.broker.logins.clear()
        return connection

    def send(self, connection: Connection, packet: Packet) -> None:
        connection.receive(encode(packet, 5), self.clock.up)

    def got(self, connection: Connection) -> list[str]:
        return [one.topic for one in Decoder(version=5).feed(connection.take()) if isinstance(one, Publish)]


@asynccontextmanager
async def boot(folder: Path, wall: float) -> AsyncGenerator[Node]:
    clock, threads = Clock(wall), RealThreads()
    worker = threads.worker("mqtt")
    journal = SqliteJournal(RealDisk(), folder / "mqtt.db", worker, clock)
    await journal.open()
    broker = Broker(Limits(), random.Random(1).getrandbits, journal=journal)
    await journal.load(broker)
    try:
        yield Node(broker, clock)
        broker.close(clock.up)
    finally:
        await journal.close()
        await threads.close()


async def filled(folder: Path, wall: float) -> None:
    """A session that ends after an hour, with messages that end after a minute and later."""
    async with boot(folder, wall) as node:
        reader, writer = node.connect("r", 3600), node.connect("w", 0)
        node.send(reader, Subscribe(1, [Subscription("q/#", 2)]))
        reader.lost(node.clock.up)
        for topic, qos, properties in (("q/brief", 1, BRIEF), ("q/brief2", 2, BRIEF), ("q/long", 1, LONG)):
            node.send(writer, Publish(topic, b"x", qos, packet_id=qos, properties=properties))
        for topic, properties in (("kept/brief", BRIEF), ("kept/long", LONG)):
            node.send(writer, Publish(topic, b"x", 1, True, packet_id=7, properties=properties))


async def left(folder: Path, wall: float) -> list[str]:
    async with boot(folder, wall) as node:
        reader = node.connect("r", 3600)
        node.send(reader, Subscribe(2, [Subscription("kept/#", 1)]))
        node.broker.stored(1 << 30, node.clock.up)
        return sorted(node.got(reader))


async def test_what_expires_while_the_broker_is_away_is_gone(tmp_path: Path) -> None:
    await filled(tmp_path, NOW)
    for seconds in (20, 40, 50):  # each restart goes on with what is left, not with all of it
        async with boot(tmp_path, NOW + seconds):
            pass
    assert await left(tmp_path, NOW + 70) == ["kept/long", "q/long"]


async def test_a_session_ends_though_the_broker_is_restarted_again_and_again(tmp_path: Path) -> None:
    await filled(tmp_path, NOW)
    for seconds in range(600, 3_600, 600):
        async with boot(tmp_path, NOW + seconds) as node:
            assert "r" in node.broker.sessions
    assert await left(tmp_path, NOW + 3_700) == ["kept/long"]


@pytest.mark.parametrize(("before", "after"), [(WRONG, NOW), (NOW, WRONG), (NOW, NOW - 1_000_000)])
async def test_clocks_that_cannot_be_right_end_nothing(tmp_path: Path, before: float, after: float) -> None:
    await filled(tmp_path, before)
    assert await left(tmp_path, after) == ["kept/brief", "kept/long", "q/brief", "q/brief2", "q/long"]


async def test_a_file_of_the_first_schema_is_taken_over(tmp_path: Path) -> None:
    await filled(tmp_path, NOW)
    with sqlite3.connect(tmp_path / "mqtt.db") as database:
        for table, column in (("session", "away_at"), ("queue", "noted_at"), ("retained", "noted_at")):
            database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 1")
    database.close()
    assert await left(tmp_path, NOW + 70) == ["kept/brief", "kept/long", "q/brief", "q/brief2", "q/long"]


class Slow(RealDisk):
    """Refuses until it is told otherwise."""

    is_full = False

    def connect(self, path: Path) -> apsw.Connection:
        connection = super().connect(path)
        connection.set_commit_hook(lambda: self.is_full)
        return connection


async def test_a_write_that_the_end_cuts_off_is_made_up(tmp_path: Path) -> None:
    disk, clock, threads = Slow(), Clock(NOW), RealThreads()
    worker = threads.worker("mqtt")
    journal = SqliteJournal(disk, tmp_path / "mqtt.db", worker, clock)
    await journal.open()
    node = Node(Broker(Limits(), random.Random(1).getrandbits, journal=journal), clock)
    disk.is_full = True
    stored: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.run, stored.append)
        node.send(node.connect("r", 3600), Subscribe(1, [Subscription("q/#", 2)]))
        while not journal._writing:
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    disk.is_full = False
    await journal.close()
    await threads.close()
    assert stored == []
    async with boot(tmp_path, NOW) as again:
        assert list(again.broker.sessions["r"].grants) == ["q/#"]
