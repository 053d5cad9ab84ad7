"""One request under way, and how it is answered.

Errors  ApiError for a query that cannot be read.
State   None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgesite.apiserver.views import in_format
from edgesite.kube import json
from edgesite.kube.errors import ApiError
from edgesite.kube.negotiate import DEFAULT_VIEW, BodyFormat, View
from edgesite.net.http import Response

if TYPE_CHECKING:
    from edgesite.apiserver.authn import User
    from edgesite.apiserver.kinds import Kind
    from edgesite.kube.requestinfo import Route
    from edgesite.net.http import Request

__all__ = ["JSON_HEADERS", "PRETTY_AGENTS", "Call", "answer", "error_response", "warning_lines"]

_COMMON: Final = b"cache-control: no-cache, private\r\n"
JSON_HEADERS: Final = _COMMON + b"content-type: application/json\r\n"
_YAML_HEADERS: Final = _COMMON + b"content-type: application/yaml\r\n"
_RETRY_AFTER: Final = b"retry-after: %d\r\n"
PRETTY_AGENTS: Final = ("curl", "Wget", "Mozilla/5.0")


@dataclass(slots=True)
class Call:
    """A request for a resource, let in by authorisation."""

    request: Request
    route: Route
    verb: str
    user: User
    kind: Kind
    warnings: list[str] = field(default_factory=list)

    @property
    def manager(self) -> str:
        """The field manager that the user agent stands for."""
        agent = self.request.headers.get("user-agent") or ""
        return agent.partition("/")[0][:128] or "unknown"


def warning_lines(warnings: list[str]) -> bytes:
    """Return Warning headers; each text once, as long as all are not longer than a client would take."""
    lines: list[bytes] = []
    left = 4096
    for text in dict.fromkeys(warnings):
        shown = "".join(one if one.isprintable() else "�" for one in text)[:1024]
        escaped = shown.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "replace")
        left -= len(escaped)
        if left < 0:
            break
        lines.append(b'warning: 299 - "%b"\r\n' % escaped)
    return b"".join(lines)


def answer(
    request: Request, body: bytes, *, status: int = 200, view: View = DEFAULT_VIEW, warnings: list[str] | None = None
) -> Response:
    """Answer with JSON bytes, in the encoding of the view."""
    headers = JSON_HEADERS
    if view.format is BodyFormat.YAML:
        body, headers = in_format(body, view), _YAML_HEADERS
    elif _wants_pretty(request):
        body = msgspec.json.format(body, indent=2)
    if warnings:
        headers = headers + warning_lines(warnings)
    return Response(status, headers, body)


def _wants_pretty(request: Request) -> bool:
    """By ``pretty`` in the query, else by user agents that show the answer to people."""
    if not request.raw_query or "pretty" not in request.query:
        agent = request.headers.get("user-agent")
        return agent is not None and agent.startswith(PRETTY_AGENTS)
    return request.query["pretty"][0].lower() not in ("false", "0")


def error_response(request: Request | None, error: ApiError, warnings: list[str] | None = None) -> Response:
    """Answer with the Status of an error."""
    status: dict[str, Any] = error.status()
    headers = JSON_HEADERS
    if error.retry_after_s is not None:
        headers += _RETRY_AFTER % error.retry_after_s
    if warnings:
        headers += warning_lines(warnings)
    body = json.dumps(status)
    if request is not None and _wants_pretty(request):
        body = msgspec.json.format(body, indent=2)
    return Response(error.code, headers, body)
