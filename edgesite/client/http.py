"""A `Transport` to a remote API server, over ``ctx.net``.

Units   Seconds.
Errors  OSError when there is no answer, or none in time.
        A server that is too busy (429 with Retry-After) is asked again after that time.
State   A pool of idle connections; `HttpTransport.close` ends them.
"""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.net import tls
from edgesite.net.address import join
from edgesite.net.client import HttpClient

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from edgesite.client.kubeconfig import Access
    from edgesite.client.ratelimit import RateLimit
    from edgesite.context import Clock, Net
    from edgesite.net.client import Answer, StreamAnswer
    from edgesite.net.headers import Headers

__all__ = ["HttpTransport"]

TOKEN_S: Final = 60.0  #: how long a token that was read from a file is used
_TRIES: Final = 10  #: of a request that the server asks to send later
ANSWER_S: Final = 120.0  #: for a whole answer, twice what API servers give themselves: a link that died silently must hold nobody for ever


class HttpTransport:
    """Requests to the API server that an `Access` describes."""

    def __init__(
        self,
        net: Net,
        clock: Clock,
        access: Access,
        *,
        answer_s: float = ANSWER_S,
        limit: RateLimit | None = None,
        draw: random.Random | None = None,
    ) -> None:
        """``limit`` holds back requests, not watches. Raises OSError for certificates that cannot be used."""
        self._path = access.path
        self._limit = limit
        self._clock = clock
        self._random = draw or random.Random(access.port)  # spreads those who were asked to wait
        self._answer_s = answer_s
        headers = {}
        if access.basic:
            headers["Authorization"] = "Basic " + base64.b64encode(access.basic.encode()).decode("ascii")
        self._client = HttpClient(
            net,
            join(access.host, access.port),
            tls=_context(access) if access.tls else None,
            server_hostname=(access.server_name or access.host) if access.tls else None,
            headers=headers,
            token=_TokenFile(access.token_file, clock) if access.token_file else access.token or None,
        )

    async def close(self) -> None:
        """Close idle connections; idempotent."""
        await self._client.close()

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, Mapping[str, str], bytes]:
        with anyio.fail_after(self._answer_s) as scope:  # TimeoutError is an OSError
            for tried in range(1, _TRIES + 1):
                if self._limit is not None:
                    await self._limit.take(headers.get("user-agent", ""))
                answer = await self._client.request(method, self._path + target, headers, body)
                wait_s = _wait_asked_for(answer) * (1 + self._random.random() / 2)
                if not wait_s or tried == _TRIES or anyio.current_time() + wait_s >= scope.deadline:
                    break
                await self._clock.sleep(wait_s)
        return answer.status, _mapping(answer.headers), answer.body

    @asynccontextmanager
    async def stream(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncIterator[_Stream]:
        async with self._client.stream(method, self._path + target, headers, body) as answer:
            yield _Stream(answer.status, _mapping(answer.headers), answer)


@dataclass(frozen=True, slots=True)
class _Stream:
    status: int
    headers: Mapping[str, str]
    answer: StreamAnswer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self.answer)


class _TokenFile:
    """The token in a file, read again when it may have been rotated. Raises OSError while there has never been one."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._token, self._until = "", 0.0

    def __call__(self) -> str:
        now = self._clock.monotonic()
        if not self._token or now >= self._until:
            try:
                self._token = self._path.read_text("utf-8").strip()
            except OSError:
                if not self._token:  # else the old one may still serve
                    raise
            self._until = now + TOKEN_S
        return self._token


def _wait_asked_for(answer: Answer) -> float:
    """Seconds for which an overloaded server has refused to look at a request; 0 for every other answer."""
    text = answer.headers.get("retry-after") or ""
    return float(text) if answer.status == 429 and text.isascii() and text.isdigit() else 0.0


def _context(access: Access) -> ssl.SSLContext:
    return tls.client_context(ca=access.ca, certificate=access.certificate, key=access.key, verify=access.verify)


def _mapping(headers: Headers) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers.raw}
