"""HTTP for sinks: URLs, and what answers mean.

Errors  ValueError for a URL. `Web.post` raises Refused for what will never be taken (400, 405, 411, 413, 414, 415, 422, 501), Away and other
        OSErrors for all other failures: credentials, paths and databases may yet come right.
State   Connections that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from edgesite.mapper.push.sink import Away, Outside, Refused
from edgesite.net import address
from edgesite.net.client import HttpClient
from edgesite.net.tls import client_context

if TYPE_CHECKING:
    from edgesite.net.client import StreamAnswer

__all__ = ["Place", "Web", "place"]

_REFUSALS: Final = frozenset({400, 405, 411, 413, 414, 415, 422, 501})
_ANSWER_BYTES: Final = 64 * 1024
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads: what shares connections is equal."""

    host: str
    port: int
    tls: bool

    def client(self, outside: Outside) -> HttpClient:
        """Raises OSError."""
        at = address.join(self.host, self.port)
        if self.tls:
            return HttpClient(outside.host.net, at, tls=client_context(), server_hostname=self.host, idle=1)
        return HttpClient(outside.host.net, at, idle=1)


def place(url: str, port: int = 0) -> tuple[Place, str]:
    """Return where it leads, and path with query; ``port`` is for URLs that have none. Raises ValueError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("that is no URL of a host by http or https, without a user in it")
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or not target.isprintable() or " " in target:
        raise ValueError("its path has to be written in URL encoding")
    tls = parts.scheme == "https"
    return Place(parts.hostname, parts.port or port or (443 if tls else 80), tls), target


class Web:
    """Requests to one place."""

    def __init__(self, where: Place, outside: Outside) -> None:
        self._where, self._outside = where, outside
        self._client: HttpClient | None = None

    async def post(self, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Return the answer's body. Raises OSError, Refused."""
        if self._client is None:
            self._client = self._where.client(self._outside)
        async with self._client.stream("POST", target, headers, body) as answer:
            said = await answer.read_all(_ANSWER_BYTES)
            if 200 <= answer.status < 300:
                return said
        why = f"status {answer.status} {said[:_SHOWN].decode(errors='replace').strip()!r}"
        if answer.status in _REFUSALS:
            raise Refused(why)
        raise Away(why, _after(answer))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def _after(answer: StreamAnswer) -> float:
    said = answer.headers.get("retry-after", "") or ""
    return float(said) if said.isascii() and said.isdigit() and len(said) < 6 else 0.0
