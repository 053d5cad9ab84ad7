"""Upgrades that pass through to a node: what is handed on of the request, and joining both ends.

Errors  ClosedByPeer: the client has left.
State   None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.net.http import Response
from edgesite.net.pipe import Pipe

if TYPE_CHECKING:
    from edgesite.context import NodeStream
    from edgesite.net.http import Request

__all__ = ["close_stream", "join", "upgrade_headers", "upgraded_headers"]

_UPGRADE: Final = ("upgrade", "x-stream-protocol-version")  #: and all of Sec-WebSocket-
_MOST_REFUSAL: Final = 64 * 1024
_CLOSE_S: Final = 5.0


def upgrade_headers(request: Request) -> dict[str, Sequence[str]]:
    """Return what a request says of the upgrade that it asks for; without ``upgrade`` it asks for none."""
    if not request.headers.has_token("connection", "upgrade"):
        return {}
    names = [name for name, _ in request.headers]
    kept = [one for one in dict.fromkeys(names) if one in (*_UPGRADE, "user-agent") or one.startswith("sec-websocket-")]
    return {name: request.headers.get_all(name) for name in kept}


def upgraded_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what the answer to an upgrade says of it."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() in _UPGRADE or name.lower().startswith("sec-websocket-")
    }


async def join(request: Request, stream: NodeStream) -> Response | None:
    """Join the client with a node that has taken the upgrade, else answer what the node says. Raises ClosedByPeer."""
    if stream.status == 101:
        near, far = Pipe(), Pipe()
        stream.hand_over(far)
        try:
            request.upgrade(near, upgraded_headers(stream.headers))
        except OSError:
            far.abort()
            raise
        near.join(far)
        return None
    try:
        body = b""
        async for chunk in stream:
            body += chunk
            if len(body) > _MOST_REFUSAL:
                break
        content_type = stream.headers.get("content-type") or "text/plain; charset=utf-8"
        return Response(stream.status, {"content-type": content_type}, body[:_MOST_REFUSAL])
    finally:
        await close_stream(stream)


async def close_stream(stream: NodeStream) -> None:
    """End a stream, whatever becomes of us."""
    with anyio.move_on_after(_CLOSE_S, shield=True):
        await stream.close()
