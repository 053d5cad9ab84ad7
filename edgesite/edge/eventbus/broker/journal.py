"""Durable sessions and retained messages of the embedded broker, in a SQLite file of their own.

Changes are gathered and written in one transaction; what somebody waits for (an acknowledgement) at once, ends of messages within `LAZY_S`, retained
messages of QoS 0 within `RETAINED_S`, each topic once. If the disk refuses, the same changes are tried again until it takes them:
nothing is acknowledged meanwhile, and clients are not read beyond `FULL` changes or `BYTES` of messages in them.

Units   Seconds. What expires is written with what was left of its time, and the wall clock then: at a restart the time between counts, too, as far
        as both clocks can be right. A device without a battery begins in the past: then nothing has gone by.
Errors  OSError, apsw.Error from `open` alone. A damaged file is set aside and begun anew.
State   The file ``mqtt.db``; `SCHEMA` is its version, another one's file is set aside too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import apsw

from edgesite.wire.mqtt import properties as props
from edgesite.wire.mqtt.messages import Message, Parcel
from edgesite.wire.mqtt.packets import Kind, Subscription
from edgesite.wire.mqtt.session import FOREVER, Grant

if TYPE_CHECKING:
    from edgesite.context import Clock, Disk, Worker
    from edgesite.wire.mqtt.broker import Broker
    from edgesite.wire.mqtt.session import Session

__all__ = ["FULL", "SqliteJournal"]

logger = logging.getLogger(__name__)
FULL: Final = 10_000
BYTES: Final = 16 << 20
LAZY_S: Final = 1.0
RETAINED_S: Final = 30.0
SCHEMA: Final = 2
_WRONG_BEFORE: Final = 1_704_067_200.0  #: no clock of a device that runs this is right before 2024
_FIRST_S: Final = 0.5
_MOST_S: Final = 30.0
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS session (client_id text PRIMARY KEY, user text NOT NULL, expiry_s real, away_at real)",
    "CREATE TABLE IF NOT EXISTS subscription (client_id text NOT NULL, filter text NOT NULL, qos integer NOT NULL, no_local integer NOT NULL,"
    " as_published integer NOT NULL, handling integer NOT NULL, id integer NOT NULL, PRIMARY KEY (client_id, filter))",
    "CREATE TABLE IF NOT EXISTS queue (seq integer PRIMARY KEY, client_id text NOT NULL, packet_id integer NOT NULL, qos integer NOT NULL,"
    " retain integer NOT NULL, released integer NOT NULL, ids text NOT NULL, topic text NOT NULL, payload blob NOT NULL, properties blob,"
    " expires_s real, noted_at real)",
    "CREATE UNIQUE INDEX IF NOT EXISTS queue_packet ON queue (client_id, packet_id)",
    "CREATE TABLE IF NOT EXISTS received (client_id text NOT NULL, packet_id integer NOT NULL, PRIMARY KEY (client_id, packet_id))",
    "CREATE TABLE IF NOT EXISTS retained (topic text PRIMARY KEY, payload blob NOT NULL, qos integer NOT NULL, properties blob, expires_s real,"
    " noted_at real)",
)
#: From schema 1.
_ADDED: Final = (
    "ALTER TABLE session ADD COLUMN away_at real",
    "ALTER TABLE queue ADD COLUMN noted_at real",
    "ALTER TABLE retained ADD COLUMN noted_at real",
)
_QUEUE: Final = (
    "INSERT OR REPLACE INTO queue (client_id, packet_id, qos, retain, released, ids, topic, payload, properties, expires_s,"
    " noted_at) VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)"
)
_RETAIN: Final = (
    "INSERT OR REPLACE INTO retained (topic, payload, qos, properties, expires_s, noted_at) VALUES (?, ?, ?, ?, ?, ?)"
)
_SESSION: Final = "INSERT OR REPLACE INTO session (client_id, user, expiry_s) VALUES (?, ?, ?)"
_Change = tuple[str, tuple[Any, ...]]


class SqliteJournal:
    """Implements `wire.mqtt.session.Journal`. Run `run` beside the broker; `close` writes what is left."""

    def __init__(self, disk: Disk, path: Path, worker: Worker, clock: Clock) -> None:
        self.sequence = 0
        self._disk, self._path, self._worker, self._clock = disk, path, worker, clock
        self._connection: apsw.Connection | None = None
        self._changes: list[_Change] = []
        self._retained: dict[str, Message] = {}  # of QoS 0, not written yet
        self._retained_at = 0.0
        self._writing = 0  # changes under way
        self._size = 0  # of messages in changes
        self._urgent = False
        self._lazy_at = 0.0
        self._wake = anyio.Event()

    @property
    def is_full(self) -> bool:
        return len(self._changes) + self._writing >= FULL or self._size >= BYTES

    # What the broker tells

    def session(self, session: Session) -> None:
        expiry = None if session.expiry_s == FOREVER else session.expiry_s
        self._tell(_SESSION, session.client_id, session.user, expiry)

    def away(self, client_id: str, is_away: bool) -> None:
        self._note(
            "UPDATE session SET away_at = ? WHERE client_id = ?", self._clock.time() if is_away else None, client_id
        )

    def forget(self, client_id: str) -> None:
        for table in ("session", "subscription", "queue", "received"):
            self._note(f"DELETE FROM {table} WHERE client_id = ?", client_id)

    def subscribed(self, client_id: str, grant: Grant) -> None:
        one = grant.wanted
        options = (one.qos, one.no_local, one.retain_as_published, one.retain_handling)
        self._tell(
            "INSERT OR REPLACE INTO subscription VALUES (?, ?, ?, ?, ?, ?, ?)",
            client_id,
            one.filter,
            *options,
            grant.id,
        )

    def unsubscribed(self, client_id: str, pattern: str) -> None:
        self._tell("DELETE FROM subscription WHERE client_id = ? AND filter = ?", client_id, pattern)

    def queued(self, client_id: str, parcel: Parcel) -> None:
        ids = " ".join(map(str, parcel.ids))
        self._tell(_QUEUE, client_id, parcel.packet_id, parcel.qos, parcel.retain, ids, *self._message(parcel.message))

    def released(self, client_id: str, packet_id: int) -> None:
        self._tell("UPDATE queue SET released = 1 WHERE client_id = ? AND packet_id = ?", client_id, packet_id)

    def done(self, client_id: str, packet_id: int) -> None:
        self._note("DELETE FROM queue WHERE client_id = ? AND packet_id = ?", client_id, packet_id)

    def received(self, client_id: str, packet_id: int) -> None:
        self._tell("INSERT OR IGNORE INTO received VALUES (?, ?)", client_id, packet_id)

    def completed(self, client_id: str, packet_id: int) -> None:
        self._tell("DELETE FROM received WHERE client_id = ? AND packet_id = ?", client_id, packet_id)

    def retained(self, message: Message) -> None:
        if not message.qos and message.payload:
            if not self._retained:
                self._retained_at = self._clock.monotonic() + RETAINED_S
                self._wake.set()
            self._retained[message.topic] = message
            return
        self._retained.pop(message.topic, None)
        if message.payload:
            self._tell(*self._retain(message))
        else:
            self._tell("DELETE FROM retained WHERE topic = ?", message.topic)

    def _retain(self, message: Message) -> tuple[Any, ...]:
        topic, payload, *more = self._message(message)
        return _RETAIN, topic, payload, message.qos, *more

    def _message(self, message: Message) -> tuple[str, bytes, bytes | None, float | None, float | None]:
        left = None if message.expires_at is None else message.expires_at - self._clock.monotonic()
        packed = props.encode(message.properties) if message.properties else None
        self._size += message.size
        return message.topic, message.payload, packed, left, None if left is None else self._clock.time()

    def _tell(self, sql: str, *values: Any) -> None:
        """A change that somebody waits for."""
        self._changes.append((sql, values))
        self.sequence += 1
        if not self._urgent:
            self._urgent = True
            self._wake.set()

    def _note(self, sql: str, *values: Any) -> None:
        """A change that may be lost in a crash: what it takes away is then done once more."""
        if not self._changes:
            self._lazy_at = self._clock.monotonic() + LAZY_S
            self._wake.set()
        self._changes.append((sql, values))

    # Writing

    async def run(self, stored: Callable[[int], None]) -> None:
        """Write until cancelled; ``stored`` is told up to which sequence all is on disk."""
        while True:
            await self._due()
            await self._write(stored)

    async def _due(self) -> None:
        """Wait until something has to be written."""
        while not self._urgent:
            marks = [self._lazy_at] if self._changes else []
            marks += [self._retained_at] if self._retained else []
            wait_s = min(marks, default=float("inf")) - self._clock.monotonic()
            if wait_s <= 0:
                return
            self._wake = anyio.Event()
            with anyio.move_on_after(wait_s):
                await self._wake.wait()

    async def _write(self, stored: Callable[[int], None]) -> None:
        self._urgent = False
        upto, changes, size = self.sequence, self._take(), self._size
        self._writing = len(changes)
        try:
            await self._until_taken(changes)
        except anyio.get_cancelled_exc_class():
            self._changes[:0] = (
                changes  # for `close`: the worker may have left them out, and twice they are the same as once
            )
            raise
        self._writing = 0
        self._size -= size
        stored(upto)

    async def _until_taken(self, changes: list[_Change]) -> None:
        wait_s, said = _FIRST_S, False
        while changes:
            try:
                await self._worker.submit(self._execute, changes)
                break
            except (apsw.Error, OSError) as exc:
                if not said:
                    logger.error("the disk refuses messages of the MQTT broker; they are not acknowledged: %s", exc)
                    said = True
                await self._clock.sleep(wait_s)
                wait_s = min(2 * wait_s, _MOST_S)
        if said:
            logger.warning("the disk takes messages of the MQTT broker again")

    def _take(self) -> list[_Change]:
        changes, self._changes = self._changes, []
        if self._retained and self._clock.monotonic() >= self._retained_at:
            changes += [_as_change(self._retain(one)) for one in self._retained.values()]
            self._retained.clear()
        return changes

    def _execute(self, changes: list[_Change]) -> None:
        assert self._connection is not None
        with self._connection:
            for sql, values in changes:
                self._connection.execute(sql, values)

    # Start and end

    async def open(self) -> None:
        """Raises apsw.Error, OSError."""
        await self._worker.submit(self._open)

    def _open(self) -> None:
        try:
            self._connection = self._checked()
        except (apsw.CorruptError, apsw.NotADBError) as exc:
            aside = self._disk.set_aside(self._path)
            logger.error("%s is damaged (%s): kept as %s, begun anew", self._path, exc, aside)
            self._connection = self._checked()

    def _checked(self) -> apsw.Connection:
        connection = self._disk.connect(self._path)
        try:
            for (answer,) in connection.execute("PRAGMA quick_check(1)"):
                if answer != "ok":
                    raise apsw.CorruptError(str(answer))
            (version,) = next(iter(connection.execute("PRAGMA user_version")))
            if version not in (0, 1, SCHEMA):
                raise apsw.CorruptError(f"version {version} of its schema; {SCHEMA} is known")
            with connection:
                for statement in _ADDED if version == 1 else ():
                    connection.execute(statement)
                for statement in _TABLES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
        except BaseException:
            connection.close()
            raise
        return connection

    async def load(self, broker: Broker) -> None:
        """Give the broker what the file holds; before anything is told to this journal. Raises apsw.Error."""
        tables = ("session", "subscription", "queue", "received", "retained")
        rows = await self._worker.submit(self._rows, tables)
        now = self._clock.monotonic()
        for client_id, user, expiry_s, away_at in rows["session"]:
            broker.restore(client_id, user, FOREVER if expiry_s is None else expiry_s, now, self._since(away_at))
            if expiry_s is not None and (away_at is None or away_at < _WRONG_BEFORE):
                self.away(client_id, True)
        for client_id, pattern, qos, no_local, as_published, handling, number in rows["subscription"]:
            if (session := broker.sessions.get(client_id)) is not None:
                wanted = Subscription(pattern, qos, bool(no_local), bool(as_published), handling)
                broker.restore_grant(session, Grant(wanted, number))
        for _, client_id, packet_id, qos, retain, released, ids, *told in rows["queue"]:
            if (session := broker.sessions.get(client_id)) is not None:
                message = self._read_message(qos, now, *told)
                numbers = tuple(map(int, ids.split()))
                session.restore(Parcel(message, qos, bool(retain), numbers, packet_id, True, bool(released)))
        for client_id, packet_id in rows["received"]:
            if (session := broker.sessions.get(client_id)) is not None:
                session.receive(packet_id)
        for topic, payload, qos, *told in rows["retained"]:
            message = self._read_message(qos, now, topic, payload, *told)
            message.retain = True
            broker.restore_retained(message)

    def _since(self, noted_at: float | None) -> float:
        """How long ago that was; 0 where a clock cannot have been right."""
        if noted_at is None or noted_at < _WRONG_BEFORE:
            return 0.0
        return max(0.0, self._clock.time() - noted_at)

    def _read_message(
        self,
        qos: int,
        now: float,
        topic: str,
        payload: bytes,
        packed: bytes | None,
        expires_s: float | None,
        noted_at: float | None,
    ) -> Message:
        properties = props.decode(Kind.PUBLISH, packed, 0)[0] if packed else None
        expires_at = None if expires_s is None else now + expires_s - self._since(noted_at)
        return Message(topic, payload, qos, False, properties, expires_at, weight=props.weight(properties))

    def _rows(self, tables: tuple[str, ...]) -> dict[str, list[tuple[Any, ...]]]:
        assert self._connection is not None
        return {table: list(self._connection.execute(f"SELECT * FROM {table} ORDER BY rowid")) for table in tables}

    async def close(self) -> None:
        """Write what is left, what was under way at the end too, once, and close. Raises apsw.Error, OSError."""
        self._retained_at = 0.0
        changes = self._take()
        try:
            if changes and self._connection is not None:
                await self._worker.submit(self._execute, changes)
        finally:
            await self._worker.submit(self._close)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _as_change(told: tuple[Any, ...]) -> _Change:
    return told[0], told[1:]
