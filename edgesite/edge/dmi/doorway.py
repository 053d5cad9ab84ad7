"""A listener that loads the gRPC server and what it serves when somebody comes: that costs 4 MiB, and most nodes have no mapper.

Errors  OSError from `open`.
Bounds  `WAITING_BYTES` of each connection until the server is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast

import anyio

if TYPE_CHECKING:
    from edgesite.context import Listener, Net
    from edgesite.net.grpc_server import GrpcServer, Handler

__all__ = ["Doorway"]

WAITING_BYTES: Final = 1 << 20


class Doorway:
    """Listens at once; serves in `run`. ``handlers`` is called when somebody has come."""

    def __init__(self, handlers: Callable[[], Mapping[str, Handler]]) -> None:
        self._handlers = handlers
        self._server: GrpcServer | None = None
        self._waiting: list[_Guest] = []
        self._knocked = anyio.Event()

    async def open(self, net: Net, address: str) -> Listener:
        """Take connections. Raises OSError."""
        return await net.listen(self._protocol, address)

    def _protocol(self) -> asyncio.Protocol:
        return _Guest(self) if self._server is None else self._server.protocol()

    def knock(self, guest: _Guest) -> None:
        if self._server is not None:  # it came up since this connection was accepted
            guest.go_in(self._server.protocol())
            return
        self._waiting.append(guest)
        self._knocked.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._knocked.wait()
        from edgesite.net.grpc_server import GrpcServer

        async with GrpcServer(self._handlers()) as server:
            self._server = server
            try:
                for guest in self._waiting:
                    guest.go_in(server.protocol())
                self._waiting.clear()
                await anyio.sleep_forever()
            finally:
                self._server = None


class _Guest(asyncio.Protocol):
    """A connection that waits for the server. What it says meanwhile is kept: it is read once even if reading is paused at once (uvloop)."""

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway
        self._transport: asyncio.Transport | None = None
        self._said = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()
        self._doorway.knock(self)

    def data_received(self, data: bytes) -> None:
        self._said += data
        if len(self._said) > WAITING_BYTES and self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def go_in(self, protocol: asyncio.Protocol) -> None:
        """Hand the connection over."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._said:
            protocol.data_received(bytes(self._said))
        transport.resume_reading()
