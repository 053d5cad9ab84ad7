"""Values to InfluxDB 2 as line protocol: a point each, the value a text field as KubeEdge's mappers write it, the token from TOKEN.

Errors  Those of `web`.
Source  KubeEdge v1.23 mapper-framework, _template/mapper/data/dbmethod/influxdb2; InfluxDB OSS v2, "Line protocol" and "/api/v2/write".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from edgesite.mapper.push.sink import Outside, Route, Sample, mapping, text
from edgesite.mapper.push.web import Place, Web, place

__all__ = ["InfluxSink", "line", "route"]

_NAME: Final = str.maketrans({",": "\\,", " ": "\\ ", "\n": " ", "\r": " "})  # of a measurement
_KEY: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\=", "\n": " ", "\r": " "})  # of tags and fields
_TEXT: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})


def route(section: Mapping[str, Any]) -> Route:
    """Raises ValueError."""
    client, data = mapping(section, "influxdb2ClientConfig"), mapping(section, "influxdb2DataConfig")
    where, base = place(text(client, "url"), 8086)
    query = urlencode({"bucket": text(client, "bucket"), "org": text(client, "org"), "precision": "ns"})
    target = f"{base.rstrip('/')}/api/v2/write?{query}"
    tags = mapping(data, "tag")
    head = text(data, "measurement").translate(_NAME)
    for name in sorted(tags):
        if value := text(tags, name, needed=False):
            head += f",{name.translate(_KEY)}={_tag(value)}"
    start = f"{head} {text(data, 'fieldKey').translate(_KEY)}="
    return Route("influxdb2", (where, target), lambda outside: InfluxSink(where, target, outside), start)


def _tag(value: str) -> str:
    """A backslash at the end would take the separator with it."""
    return value.rstrip("\\").translate(_KEY)


def line(sample: Sample) -> str:
    return f'{sample.detail}"{sample.value.translate(_TEXT)}" {sample.at_ms * 1_000_000}\n'


class InfluxSink:
    """See the module docstring."""

    most = 1000

    def __init__(self, where: Place, target: str, outside: Outside) -> None:
        self._web, self._target = Web(where, outside), target
        self._headers = {"Content-Type": "text/plain; charset=utf-8"}
        if token := outside.environ.get("TOKEN"):
            self._headers["Authorization"] = f"Token {token}"

    async def send(self, batch: Sequence[Sample]) -> None:
        await self._web.post(self._target, self._headers, "".join(map(line, batch)).encode())

    async def close(self) -> None:
        await self._web.close()
