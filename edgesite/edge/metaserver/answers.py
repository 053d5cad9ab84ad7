"""Answers of the MetaServer: JSON, errors as a Status, and the headers that say where an answer comes from.

Errors  None.
State   None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from edgesite.kube import json
from edgesite.kube.errors import ApiError, too_large
from edgesite.net.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "CACHED",
    "JSON_HEADERS",
    "cached_headers",
    "error",
    "passed_on",
    "rejected",
    "respond",
    "stream",
    "wants_pretty",
]

#: Says that an answer was made on this node, without the cloud.
CACHED: Final = b"x-edgesite-served-from: node-cache\r\n"
JSON_HEADERS: Final = b"cache-control: no-cache, private\r\ncontent-type: application/json\r\n"
_YAML_HEADERS: Final = b"cache-control: no-cache, private\r\ncontent-type: application/yaml\r\n"
_RETRY_AFTER: Final = b"retry-after: %d\r\n"
_PRETTY_AGENTS: Final = ("curl", "Wget", "Mozilla/5.0")
_REASONS: Final = {
    400: "BadRequest",
    408: "Timeout",
    429: "TooManyRequests",
    431: "RequestHeaderFieldsTooLarge",
    503: "ServiceUnavailable",
}


def cached_headers(text: str) -> bytes:
    """Lines that say that the answer is this node's, and a warning for whoever shows such."""
    return CACHED + b'warning: 299 - "%b"\r\n' % text.encode("ascii", "replace").replace(b'"', b"'")


def wants_pretty(request: Request) -> bool:
    if request.raw_query and "pretty" in request.query:
        return request.query["pretty"][0].lower() not in ("false", "0")
    agent = request.headers.get("user-agent")
    return agent is not None and agent.startswith(_PRETTY_AGENTS)


def respond(request: Request, body: bytes, *, yaml: bool = False, headers: bytes = b"", status: int = 200) -> Response:
    """Answer with JSON bytes, laid out for people where they look; or with YAML, made by the caller."""
    if yaml:
        return Response(status, _YAML_HEADERS + headers, body)
    if wants_pretty(request):
        body = msgspec.json.format(body, indent=2)
    return Response(status, JSON_HEADERS + headers, body)


async def stream(request: Request, pieces: Iterable[bytes], *, headers: bytes = b"") -> None:
    """Answer with JSON as the client takes it, piece by piece. Raises ClosedByPeer."""
    writer = request.open_stream(200, JSON_HEADERS + headers)
    for piece in pieces:
        await writer.write(piece)
    writer.close()


def error(request: Request | None, problem: ApiError, headers: bytes = b"") -> Response:
    """Answer with a Status."""
    lines = JSON_HEADERS + headers
    if problem.retry_after_s is not None:
        lines += _RETRY_AFTER % problem.retry_after_s
    body = json.dumps(problem.status())
    if request is not None and wants_pretty(request):
        body = msgspec.json.format(body, indent=2)
    return Response(problem.code, lines, body)


def rejected(status: int, message: str, body_bytes: int) -> Response:
    """Word the refusal of a request that breaks HTTP's rules or our limits."""
    if status == 413:
        return error(None, too_large(body_bytes))
    return error(None, ApiError(status, _REASONS.get(status, "Unknown"), message))


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of the cloud's answer for the client."""
    return {name: value for name, value in headers.items() if "\r" not in value and "\n" not in value}
