"""WebSocket (RFC 6455) on a raw transport: the opening handshake of either end.

    socket = accept(request)                                    # in an HTTP handler, which then returns None
    socket = await connect(net, "cloud:10000", "/e632/node/events", {"ProjectID": "e632"}, tls=context)

What a `WebSocket` does from there on is in `websocket_connection`; whoever uses one imports its names from here.

Errors  HandshakeError, UpgradeRefused, OSError.
State   None.
Source  RFC 6455, 4 (opening handshake).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from edgesite.net.client import HttpClient, UpgradeRefused
from edgesite.net.errors import NetError
from edgesite.net.websocket_connection import (
    MESSAGE_BYTES,
    QUEUE_BYTES,
    Message,
    Side,
    SocketClosed,
    WebSocket,
)

if TYPE_CHECKING:
    import ssl

    from edgesite.context import Net
    from edgesite.net.http_messages import Request

__all__ = ["HandshakeError", "Message", "Side", "SocketClosed", "UpgradeRefused", "WebSocket", "accept", "connect"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class HandshakeError(NetError):
    """The peer's opening handshake is not WebSocket's. ``status`` is what to answer it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()).decode("ascii")


def accept(
    request: Request,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    max_message_bytes: int = MESSAGE_BYTES,
    queue_bytes: int = QUEUE_BYTES,
    write_bytes: int = 0,
) -> WebSocket:
    """Answer a WebSocket handshake; the connection is then the socket's. Header lines that come twice are tolerated.
    ``subprotocols`` are ours in order of preference. Raises HandshakeError, ClosedByPeer."""
    received = request.headers
    if request.method != "GET" or not received.has_token("upgrade", "websocket"):
        raise HandshakeError(426, "this is a WebSocket endpoint")
    if (received.get("sec-websocket-version") or "").strip() != "13":
        raise HandshakeError(426, "WebSocket version 13 is spoken here")
    key = (received.get("sec-websocket-key") or "").strip()
    try:
        well_formed = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        well_formed = False
    if not well_formed:
        raise HandshakeError(400, "Sec-WebSocket-Key is missing or malformed")
    chosen = next((one for one in subprotocols if received.has_token("sec-websocket-protocol", one)), "")
    answer = {"Upgrade": "websocket", "Sec-WebSocket-Accept": _accept_key(key), **(headers or {})}
    if chosen:
        answer["Sec-WebSocket-Protocol"] = chosen
    socket = WebSocket(
        Side.SERVER,
        max_message_bytes=max_message_bytes,
        queue_bytes=queue_bytes,
        write_bytes=write_bytes,
        subprotocol=chosen,
    )
    request.upgrade(socket, answer)
    return socket


async def connect(
    net: Net,
    address: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    server_hostname: str | None = None,
    subprotocols: Sequence[str] = (),
    max_message_bytes: int = MESSAGE_BYTES,
    queue_bytes: int = QUEUE_BYTES,
    write_bytes: int = 0,
) -> WebSocket:
    """Open a WebSocket; the caller sets the deadline. Raises OSError, UpgradeRefused, HandshakeError."""
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    lines = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key, **(headers or {})}
    if subprotocols:
        lines["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)

    def make() -> WebSocket:
        return WebSocket(
            Side.CLIENT, max_message_bytes=max_message_bytes, queue_bytes=queue_bytes, write_bytes=write_bytes
        )

    async with HttpClient(net, address, tls=tls, server_hostname=server_hostname) as client:
        _, socket, answered = await client.connect_upgrade(path, lines, make)
    chosen = answered.get("sec-websocket-protocol", "") or ""
    if answered.get("sec-websocket-accept") != _accept_key(key) or (chosen and chosen not in subprotocols):
        socket.abort()
        raise HandshakeError(400, "the server's WebSocket handshake does not fit ours")
    socket.subprotocol = chosen
    socket.headers = dict(answered)
    return socket
