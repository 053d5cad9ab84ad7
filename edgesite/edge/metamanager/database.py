"""The edge's SQLite file. Every method blocks: call it in a worker, all in the same one.

State   One connection. A damaged file is put aside and begun anew: the cloud sends again what is missing.
Errors  apsw.Error (a full disk, a file that cannot be opened) leaves every method.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import apsw

from edgesite.edge.metamanager import schema

if TYPE_CHECKING:
    from edgesite.context import Disk

__all__ = ["EdgeDatabase", "Statement"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

Statement = tuple[str, tuple[Any, ...] | list[tuple[Any, ...]]]  #: SQL and its values, or those of several rows
Row = tuple[Any, ...]
_CACHE_KIB: Final = 512  #: what is beyond is in the system's own cache, which gives way where memory is short


class EdgeDatabase:
    """One open file; see `schema.TABLES`."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._connection: apsw.Connection | None = None

    def open(self) -> bool:
        """Open, repair and bring up to date; False if the file was damaged and began anew. Raises apsw.Error, OSError."""
        try:
            self._connection = self._checked()
        except (apsw.CorruptError, apsw.NotADBError) as exc:
            aside = self._disk.set_aside(self._path)
            logger.error("the database %s is damaged (%s): kept as %s, begun anew", self._path, exc, aside)
            self._connection = self._checked()
            return False
        return True

    def _checked(self) -> apsw.Connection:
        connection = self._disk.connect(self._path)
        try:
            for (answer,) in connection.execute("PRAGMA quick_check(1)"):
                if answer != "ok":
                    raise apsw.CorruptError(str(answer))
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            with connection:
                for statement in schema.TABLES:
                    connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def execute(self, statements: Sequence[Statement]) -> None:
        """Run all in one transaction: on return they are durable, on failure none has happened."""
        connection = self._open()
        with connection:
            for sql, values in statements:
                if isinstance(values, list):
                    connection.executemany(sql, values)
                else:
                    connection.execute(sql, values)

    def query(self, sql: str, values: tuple[Any, ...] = ()) -> list[Row]:
        return list(self._open().execute(sql, values))

    def fold(self, sql: str, values: tuple[Any, ...], function: Callable[[Iterable[Row]], T]) -> T:
        """Give the rows to a function as they are read, so that they need not all be held. It takes every one of them."""
        return function(self._open().execute(sql, values))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> apsw.Connection:
        if self._connection is None:
            raise apsw.ConnectionClosedError("the edge's database is closed")
        return self._connection
