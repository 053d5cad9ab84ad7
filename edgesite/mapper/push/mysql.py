"""Values to MySQL or MariaDB by PyMySQL (``edgesite[mysql]``): a table for each property, with PASSWORD.

The table is ``<namespace>/<device>/<property>`` with id, ts (UTC, seconds) and field, as KubeEdge's mappers make it. A batch is one transaction. PyMySQL
blocks, and has a thread of its own here as long as the channel lives.

Errors  Away while the database cannot be reached or does not let us in; Refused for statements.
Source  KubeEdge v1.23 mapper-framework, _template/mapper/data/dbmethod/mysql/client.go.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgesite.mapper.push.sink import Away, Outside, Refused, Route, Sample, mapping, text, wall_text
from edgesite.net import address

__all__ = ["MysqlSink", "route", "table"]

_WAIT_S: Final = 4
_KNOWN: Final = 10_000
_NO_TABLE: Final = 1146
#: Operational errors of MySQL that tell of the statement: name too long, data too long, wrong value, out of range.
_OF_STATEMENT: Final = frozenset({1059, 1103, 1264, 1366, 1406})


def route(section: Mapping[str, Any]) -> Route:
    """Raises ValueError."""
    if importlib.util.find_spec("pymysql") is None:
        raise ValueError("PyMySQL is not installed: pip install 'edgesite[mysql]'")
    client = mapping(section, "mysqlClientConfig")
    given = text(client, "addr")
    at = address.parse(given if ":" in given else f"{given}:3306")
    if at.kind == "mem":
        raise ValueError("addr is host:port")
    key = (at, text(client, "database"), text(client, "userName"))
    return Route("mysql", key, lambda outside: MysqlSink(*key, outside))


def table(sample: Sample) -> str:
    """The table's name, in quotes."""
    name = f"{sample.namespace}/{sample.device}/{sample.property}".replace("`", "``")
    return f"`{name}`"


class MysqlSink:
    """See the module docstring."""

    most = 500

    def __init__(self, at: address.Address, database: str, user: str, outside: Outside) -> None:
        self._at, self._database, self._user = at, database, user
        self._password = outside.environ.get("PASSWORD", "")
        self._worker = outside.host.threads.worker("push-mysql")
        self._connection: Any = None
        self._known: set[str] = set()

    async def send(self, batch: Sequence[Sample]) -> None:
        await self._worker.submit(self._write, list(batch))

    async def close(self) -> None:
        self._worker.submit(self._drop)
        await self._worker.close()

    # In the worker's thread

    def _write(self, batch: list[Sample]) -> None:
        """Raises Away, Refused."""
        import pymysql

        try:
            if self._connection is None:
                self._connection = self._connect()
            rows: dict[str, list[tuple[str, str]]] = {}
            for one in batch:
                rows.setdefault(table(one), []).append((wall_text(one.at_ms), one.value))
            with self._connection.cursor() as cursor:
                self._make(cursor, rows.keys() - self._known)
                for name, values in rows.items():
                    cursor.executemany(f"INSERT INTO {name.replace('%', '%%')} (ts, field) VALUES (%s, %s)", values)
            self._connection.commit()
        except pymysql.err.MySQLError as exc:
            self._drop()
            code, why = (*exc.args, "", "")[:2]
            if isinstance(exc, pymysql.err.ProgrammingError) and code == _NO_TABLE:
                self._known.clear()
                raise Away(str(why)) from exc
            refused = (pymysql.err.DataError, pymysql.err.ProgrammingError, pymysql.err.IntegrityError)
            if isinstance(exc, refused) or code in _OF_STATEMENT:
                raise Refused(f"{code}: {why}") from exc
            raise Away(f"{code}: {why}") from exc
        except OSError:
            self._drop()
            raise

    def _connect(self) -> Any:
        import pymysql

        where: dict[str, Any] = {"host": self._at.host, "port": self._at.port}
        if self._at.kind == "unix":
            where = {"unix_socket": self._at.host}
        return pymysql.connect(
            **where,
            user=self._user,
            password=self._password,
            database=self._database,
            charset="utf8mb4",
            connect_timeout=_WAIT_S,
            read_timeout=_WAIT_S,
            write_timeout=_WAIT_S,
        )

    def _make(self, cursor: Any, names: set[str]) -> None:
        for name in names:
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {name} "
                "(id INT AUTO_INCREMENT PRIMARY KEY, ts DATETIME NOT NULL, field TEXT)"
            )
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known.add(name)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
