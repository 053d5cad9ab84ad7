"""Values to TDengine over its REST interface (taosAdapter), with USERNAME and PASSWORD.

A super table for each device, ``<namespace>/<device>`` with ``_`` for ``-``, as KubeEdge's mappers make it, its one tag with its odd name. Sub tables are
``<super table>/<property>``; KubeEdge names them by the property alone, so that devices with the same property would write into one table.

Units   Times are RFC 3339 with milliseconds: a database of any precision takes them.
Errors  Those of `web`; a statement that is refused is Refused.
Source  KubeEdge v1.23 mapper-framework, _template/mapper/data/dbmethod/tdengine/client.go; TDengine 3, "REST API" and "Insert".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from edgesite.kube import json
from edgesite.mapper.push.sink import Away, Outside, Refused, Route, Sample, mapping, text
from edgesite.mapper.push.web import Place, Web, place

__all__ = ["TdengineSink", "insert", "route"]

_ESCAPES: Final = str.maketrans({"'": "\\'", "\\": "\\\\"})
_COLUMNS: Final = (
    "(ts timestamp, deviceid binary(512), propertyname binary(512), data binary(4096), type binary(64)) "
    "TAGS (localtion binary(512))"
)
_KNOWN: Final = 10_000
#: Codes that tell of the statement: syntax, values too long, wrong types. All others may pass.
_STATEMENT: Final = range(0x2600, 0x2700)
_NO_TABLE: Final = frozenset({0x2603, 0x2662, 0x0362})


def route(section: Mapping[str, Any]) -> Route:
    """Raises ValueError."""
    client = mapping(section, "TDEngineClientConfig")
    where, base = place(text(client, "addr"), 6041)
    if base.strip("/"):
        raise ValueError("addr is host:port")
    database = text(client, "dbName")
    return Route("tdengine", (where, database), lambda outside: TdengineSink(where, database, outside))


def super_table(sample: Sample) -> str:
    return f"{sample.namespace}/{sample.device}".replace("-", "_").replace("`", "_")


def insert(batch: Sequence[Sample]) -> str:
    """The statement that writes them all."""
    parts = []
    for one in batch:
        table, tag = super_table(one), one.property.replace("-", "_")
        at = datetime.fromtimestamp(one.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        values = (at, f"{one.namespace}/{one.device}", one.property, one.value, one.type)
        quoted = ", ".join(map(_text, values))
        parts.append(f"`{table}/{tag.replace('`', '_')}` USING `{table}` TAGS ({_text(tag)}) VALUES ({quoted})")
    return f"INSERT INTO {' '.join(parts)}"


def _text(value: str) -> str:
    return f"'{value.translate(_ESCAPES)}'"


class TdengineSink:
    """See the module docstring."""

    most = 200

    def __init__(self, where: Place, database: str, outside: Outside) -> None:
        self._web = Web(where, outside)
        self._target = f"/rest/sql/{quote(database, safe='')}"
        login = f"{outside.environ.get('USERNAME', '')}:{outside.environ.get('PASSWORD', '')}"
        self._headers = {
            "Authorization": f"Basic {b64encode(login.encode()).decode()}",
            "Content-Type": "text/plain; charset=utf-8",
        }
        self._known: set[str] = set()

    async def send(self, batch: Sequence[Sample]) -> None:
        for table in {super_table(one) for one in batch} - self._known:
            await self._execute(f"CREATE STABLE IF NOT EXISTS `{table}` {_COLUMNS}")
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known.add(table)
        await self._execute(insert(batch))

    async def _execute(self, statement: str) -> None:
        """Raises OSError, Refused."""
        said = await self._web.post(self._target, self._headers, statement.encode())
        try:
            answer = json.loads(said)
            code, why = int(answer["code"]) & 0xFFFF, str(answer.get("desc", ""))[:200]
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise Away("the answer is not TDengine's") from exc
        if code in _NO_TABLE:
            self._known.clear()
            raise Away(f"code {code:#06x}: {why}")
        if code in _STATEMENT:
            raise Refused(f"code {code:#06x}: {why}")
        if code:
            raise Away(f"code {code:#06x}: {why}")

    async def close(self) -> None:
        await self._web.close()
