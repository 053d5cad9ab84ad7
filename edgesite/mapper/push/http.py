"""Values to an HTTP server: one POST of a form with ``<property>=<value>&time=<YYYY-MM-DD HH:MM:SS>`` each, as KubeEdge's mappers send it.

Of property and value, what would break the form is percent-encoded (KubeEdge sends it as it is).

Errors  Those of `web`.
Source  KubeEdge v1.23 mapper-framework, _template/mapper/data/publish/http/client.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from edgesite.mapper.push.sink import Outside, Route, Sample, number, text, wall_text
from edgesite.mapper.push.web import Place, Web, place

__all__ = ["HttpSink", "route"]

_SAFE: Final = " !\"'()*,-./:;<>?@[\\]^_`{|}~$"
_HEADERS: Final = {"Content-Type": "application/x-www-form-urlencoded"}


def route(section: Mapping[str, Any]) -> Route:
    """``hostName`` has the scheme, too. Raises ValueError."""
    port = number(section, "port", 0, 65535)
    where, base = place(text(section, "hostName"), port)
    path = text(section, "requestPath", needed=False)
    path = base.rstrip("/") + (path if path.startswith("/") or not path else f"/{path}")
    if not path.isascii() or " " in path:
        raise ValueError("requestPath has to be written in URL encoding")
    return Route("http", where, lambda outside: HttpSink(where, outside), path or "/")


class HttpSink:
    """See the module docstring."""

    most = 1

    def __init__(self, where: Place, outside: Outside) -> None:
        self._web = Web(where, outside)

    async def send(self, batch: Sequence[Sample]) -> None:
        for one in batch:
            name, value = quote(one.property, safe=_SAFE), quote(one.value, safe=_SAFE)
            await self._web.post(one.detail, _HEADERS, f"{name}={value}&time={wall_text(one.at_ms)}".encode())

    async def close(self) -> None:
        await self._web.close()
