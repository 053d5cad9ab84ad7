"""A log over a WebSocket, for clients in browsers, which cannot read a plain answer as it comes.

    binary.k8s.io, or no subprotocol     each message is a piece of the log
    base64.binary.k8s.io                 the same, as base64 text

Errors  ApiError 400 for a handshake that is none. A client that leaves ends the log; a road that breaks cuts the connection.
State   None.
Source  Kubernetes v1.20, k8s.io/apiserver/pkg/util/wsstream (names of the subprotocols).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.kube import errors
from edgesite.kube.errors import ApiError
from edgesite.net import websocket

if TYPE_CHECKING:
    from edgesite.context import NodeStream
    from edgesite.net.http import Request

__all__ = ["forward", "is_asked"]

_BINARY: Final = "binary.k8s.io"
_BASE64: Final = "base64.binary.k8s.io"
_MOST_FROM_CLIENT: Final = 64 * 1024  #: it has nothing to say


def is_asked(request: Request) -> bool:
    """Whether the client wants a WebSocket."""
    return request.headers.has_token("connection", "upgrade") and request.headers.has_token("upgrade", "websocket")


async def forward(request: Request, stream: NodeStream) -> None:
    """Hand on a log as it comes until it ends or the client leaves. Raises ApiError."""
    try:
        socket = websocket.accept(request, subprotocols=(_BINARY, _BASE64), max_message_bytes=_MOST_FROM_CLIENT)
    except websocket.HandshakeError as exc:
        raise errors.bad_request(str(exc)) from exc
    is_text = socket.subprotocol == _BASE64
    async with anyio.create_task_group() as tasks:

        async def watch_client() -> None:
            async for _ in socket:
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch_client)
        try:
            async for chunk in stream:
                if chunk:
                    await socket.send(base64.b64encode(chunk) if is_text else chunk, text=is_text)
            await socket.close()
        except (OSError, ApiError):  # the client has left, or must see that this is not the end of the log
            socket.abort()
        finally:
            if socket.is_open:
                socket.abort()
        tasks.cancel_scope.cancel()
