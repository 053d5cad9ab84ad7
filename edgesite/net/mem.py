"""``mem:name`` connections: two asyncio transports in one process, with the flow control of real ones.

Bytes are delivered in a later turn of the loop, joined; a peer that has paused reading lets them pile up at the writer, which
is then asked to pause as over a socket.

Units   Bytes.
Errors  None: writing to a closed transport is dropped, as asyncio's do.
State   What was written and not yet delivered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["MemTransport", "connect_pair"]

_HIGH_BYTES: Final = 64 * 1024
_MOST_BYTES: Final = 256 * 1024  #: handed over at once, as one read of a socket


class MemTransport(asyncio.Transport):
    """One end. ``get_extra_info("in_process")`` is True: the peer is this process, and as trusted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, protocol: asyncio.BaseProtocol) -> None:
        super().__init__({"peername": f"mem:{name}", "sockname": f"mem:{name}", "in_process": True})
        self._loop = loop
        self._protocol: asyncio.Protocol = protocol  # type: ignore[assignment]
        self._peer: MemTransport | None = None
        self._out: deque[bytes] = deque()
        self._size = 0
        self._eof: bool = False  # we end our side after what waits
        self._eof_told = False
        self._closing = False
        self._lost = False
        self._reading = True
        self._writing_paused = False
        self._high, self._low = _HIGH_BYTES, _HIGH_BYTES // 4
        self._scheduled = False

    def pair(self, peer: MemTransport) -> None:
        """Join with the other end."""
        self._peer, peer._peer = peer, self

    # What a protocol calls

    def write(self, data: Any) -> None:
        if self._closing or self._eof or not data:
            return
        self._out.append(bytes(data))
        self._size += len(data)
        self._pump_soon()
        if self._size > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if not self._closing:
            self._eof = True
            self._pump_soon()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._pump_soon()

    def abort(self) -> None:
        self._closing = True
        self._out.clear()
        self._size = 0
        self._pump_soon()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            if self._peer is not None:
                self._peer._pump_soon()

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol  # type: ignore[assignment]

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = _HIGH_BYTES if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    # Delivery

    def _pump_soon(self) -> None:
        if not self._scheduled and not self._lost:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._scheduled = False
        peer = self._peer
        if self._lost or peer is None:
            return
        if self._out and not peer._closing and peer._reading:
            self._hand_over(peer)
        elif self._out and peer._closing:
            self._out.clear()
            self._size = 0
        self._resume_writer()
        if self._out:
            if peer._reading:
                self._pump_soon()
            return
        if self._closing:
            self._lose(None)
            peer._peer_closed()
        elif self._eof and not self._eof_told and peer._reading:
            self._eof_told = True
            if not peer._closing and not peer._protocol.eof_received():
                peer.close()

    def _hand_over(self, peer: MemTransport) -> None:
        data = self._out.popleft()
        if self._out and len(data) < _MOST_BYTES:
            parts, size = [data], len(data)
            while self._out and size + len(self._out[0]) <= _MOST_BYTES:
                parts.append(self._out.popleft())
                size += len(parts[-1])
            data = b"".join(parts)
        self._size -= len(data)
        peer._protocol.data_received(data)

    def _resume_writer(self) -> None:
        if self._writing_paused and not self._closing and self._size <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()

    def _peer_closed(self) -> None:
        """The other end is gone; what we wrote can no longer arrive."""
        if self._lost:
            return
        if not self._eof_told and not self._closing:
            self._protocol.eof_received()
        self._closing = True
        self._out.clear()
        self._size = 0
        self._lose(None)

    def _lose(self, exc: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._protocol.connection_lost, exc)
            self._loop.call_soon(self._part)

    def _part(self) -> None:
        self._peer = None


def connect_pair(
    loop: asyncio.AbstractEventLoop, name: str, client: asyncio.BaseProtocol, server: asyncio.BaseProtocol
) -> tuple[MemTransport, MemTransport]:
    """Join two protocols; ``connection_made`` has been called on both when this returns."""
    near, far = MemTransport(loop, name, client), MemTransport(loop, name, server)
    near.pair(far)
    server.connection_made(far)
    client.connection_made(near)
    return near, far
