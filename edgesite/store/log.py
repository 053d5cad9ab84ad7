"""The store's file: one table of versions, written by one thread.

Layout  version(slot, revision, key, flags, created, floor, crc, value). A slot holds one version of one key; which slot is
        written next is decided by `slots`. The newest version of a key is its state, older ones are history from ``floor``
        (the highest of all rows and of meta) on. No index: everything is read once, at the start. ``value`` of a deletion is
        NULL if its last state did not change. meta(name, value): "reserved" (no revision above it was handed out to volatile
        writes before a crash), "floor", "ceiling" and "noted_at" (see `ceiling`). ``PRAGMA user_version`` is the format.
Errors  apsw.Error from `append` (nothing was written, unless it is an IOError at the commit), FormatTooNew from `open_log`.
State   A corrupt file is set aside under another name and what can still be read of it is written to a new one.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from edgesite.context import Disk
from edgesite.store.errors import FormatTooNew

__all__ = ["DELETED", "VOLATILE", "Contents", "Log", "Version", "open_log"]

logger = logging.getLogger(__name__)

FORMAT: Final = 1
DELETED: Final = 1  #: flag: the key ceased to exist at this revision
VOLATILE: Final = 2  #: flag: later versions of this key are not all on disk
WAL_BYTES: Final = 4 << 20  #: The write-ahead log is cut to this size after a checkpoint.
VACUUM_BYTES: Final = 4 << 20  #: Free space below this is not worth a vacuum.
SALVAGE_GAP: Final = 1_000_000  #: Revisions skipped after a salvage: lost ones must not be handed out again.

CREATE: Final = """
CREATE TABLE version (
    slot     INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    key      TEXT NOT NULL,
    flags    INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    floor    INTEGER NOT NULL,
    crc      INTEGER NOT NULL,
    value    BLOB
) STRICT;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
"""
READ: Final = "SELECT slot, revision, key, flags, created, floor, crc, value FROM version ORDER BY slot"
READ_BACK: Final = READ + " DESC"
WRITE: Final = "INSERT OR REPLACE INTO version VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
ERASE: Final = "DELETE FROM version WHERE slot = ?"
IS_THERE: Final = "SELECT count(*) FROM version WHERE slot = ? AND revision = ?"
READ_META: Final = "SELECT value FROM meta WHERE name = ?"
WRITE_META: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?)"

#: From format N to N + 1, inside one transaction each.
MIGRATIONS: Final[dict[int, Callable[[apsw.Connection], None]]] = {}


class Version(NamedTuple):
    """One row of the file."""

    slot: int
    revision: int
    key: str
    flags: int
    created: int
    floor: int
    value: bytes | None


@dataclass(slots=True)
class Contents:
    """What was read at the start, ``versions`` in order of revision."""

    versions: list[Version] = field(default_factory=list)
    reserved: int = 0
    floor: int = 0
    ceiling: int = 0
    noted_at: int = 0


class CorruptFile(Exception):
    """The file is damaged; the message says where."""


class Log:
    """The open file. All methods block: call them in one worker."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection

    def append(self, versions: Iterable[Version], meta: dict[str, int], erase: Iterable[int] = ()) -> int:
        """Write all of it or nothing, synced; return the bytes of the rows. Raises apsw.Error."""
        rows = [
            (slot, revision, key, flags, created, floor, _crc(revision, key, flags, created, value), value)
            for slot, revision, key, flags, created, floor, value in versions
        ]
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            if rows:
                db.executemany(WRITE, rows)
            for name, value in meta.items():
                db.execute(WRITE_META, (name, value))
            db.executemany(ERASE, [(slot,) for slot in erase])
            db.execute("COMMIT")
        except BaseException as exc:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if not isinstance(exc, apsw.Error) or not self._holds(rows, meta):
                raise
            logger.warning("committed, but the write-ahead log could not be brought into the file: %s", exc)
        return sum(len(row[2]) + len(row[7] or b"") for row in rows)

    def _holds(self, rows: list[tuple[Any, ...]], meta: dict[str, int]) -> bool:
        """Whether a transaction that reported an error took place: what failed may have been the checkpoint after it."""
        if rows:
            slot, revision = rows[0][:2]
            return bool(self._db.execute(IS_THERE, (slot, revision)).get)
        return bool(meta) and all(_read_meta(self._db, name) == value for name, value in meta.items())

    def shrink(self) -> bool:
        """Give free pages back to the file system when they are more than half of the file. Raises apsw.Error."""
        pages, free, size = (self._db.pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        if free * 2 < pages or free * size < VACUUM_BYTES:
            return False
        self._db.execute("VACUUM")
        return True

    def close(self) -> None:
        self._db.close()


def open_log(disk: Disk, path: Path) -> tuple[Log, Contents]:
    """Open or create the file; a corrupt one is set aside and salvaged. Raises FormatTooNew, apsw.Error, OSError."""
    try:
        return _open(disk, path)
    except (CorruptFile, apsw.CorruptError, apsw.NotADBError) as exc:
        why = str(exc)
    saved = _salvage(disk, path)
    aside = disk.set_aside(path)
    log, contents = _open(disk, path)
    contents.versions = saved.versions
    contents.ceiling, contents.noted_at = saved.ceiling, saved.noted_at
    contents.floor = contents.reserved = (
        max([saved.reserved, *(one.revision for one in saved.versions)], default=0) + SALVAGE_GAP
    )
    log.append(
        [one._replace(floor=contents.floor) for one in saved.versions],
        {"reserved": contents.reserved, "floor": contents.floor},
    )
    logger.error(
        "database path=%s was corrupt (%s); kept aside as %s; salvaged versions=%d",
        path, why, aside, len(saved.versions),
    )  # fmt: skip
    return log, contents


def _open(disk: Disk, path: Path) -> tuple[Log, Contents]:
    db = disk.connect(path)
    try:
        found = db.pragma("user_version")
        if found == 0:
            _create(db)
        elif found > FORMAT:
            raise FormatTooNew(str(path), found, FORMAT)
        for version in range(found or FORMAT, FORMAT):
            with db:
                MIGRATIONS[version](db)
                db.pragma("user_version", version + 1)
        db.pragma("journal_size_limit", WAL_BYTES)
        verdict = db.pragma("quick_check", 1)
        if verdict != "ok":
            raise CorruptFile(verdict)
        return Log(db), _read(db)
    except BaseException:
        db.close()
        raise


def _create(db: apsw.Connection) -> None:
    with db:
        db.execute(CREATE)
        db.pragma("user_version", FORMAT)


def _read(db: apsw.Connection) -> Contents:
    contents = Contents()
    for row in db.execute(READ):
        contents.versions.append(_checked(row))
    contents.versions.sort(key=lambda one: one.revision)
    _read_times(db, contents)
    contents.floor = max([_read_meta(db, "floor"), *(one.floor for one in contents.versions)])
    return contents


def _read_meta(db: apsw.Connection, name: str) -> int:
    for (value,) in db.execute(READ_META, (name,)):
        return int(value)
    return 0


def _read_times(db: apsw.Connection, contents: Contents) -> None:
    contents.reserved = _read_meta(db, "reserved")
    contents.ceiling = _read_meta(db, "ceiling")
    contents.noted_at = _read_meta(db, "noted_at")


def _checked(row: tuple[int, int, str, int, int, int, int, bytes | None]) -> Version:
    slot, revision, key, flags, created, floor, crc, value = row
    if crc != _crc(revision, key, flags, created, value):
        raise CorruptFile(f"checksum of slot {slot}, key {key!r}")
    return Version(slot, revision, key, flags, created, floor, value)


def _crc(revision: int, key: str, flags: int, created: int, value: bytes | None) -> int:
    crc = zlib.crc32(f"{revision} {flags} {created} {key}".encode())
    return crc if value is None else zlib.crc32(value, crc) ^ 1


def _salvage(disk: Disk, path: Path) -> Contents:
    """Read what can be read, from both ends towards the damage."""
    found: dict[int, Version] = {}
    contents = Contents()
    try:
        db = disk.connect(path)
    except apsw.Error:
        return contents
    try:
        for query in (READ, READ_BACK):
            for version in _readable(db, query):
                found[version.slot] = version
        _read_times(db, contents)
    except apsw.Error:
        logger.warning("database path=%s has no readable meta table", path)
    finally:
        db.close()
    contents.versions = sorted(found.values(), key=lambda one: one.revision)
    return contents


def _readable(db: apsw.Connection, query: str) -> Iterator[Version]:
    try:
        for row in db.execute(query):
            try:
                yield _checked(row)
            except CorruptFile as exc:
                logger.warning("not salvaged: %s", exc)
    except apsw.Error as exc:
        logger.warning("salvage stopped: %s", exc)
