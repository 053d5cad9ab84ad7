"""What a connection to the supervisor carries once it is given over to a container's streams: see `sessions`.

Units   Bytes; terminal sizes in characters.
Errors  ClosedByPeer when the supervisor has gone.
State   The frame that is coming in.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from edgesite.kube import json
from edgesite.net.bytestream import ByteStream
from edgesite.net.errors import ClosedByPeer

__all__ = ["STDERR", "STDOUT", "Streamed"]

STDOUT: Final = 1
STDERR: Final = 2
_STDIN, _END, _RESIZE = 0, 3, 4
_MOST: Final = 256 * 1024  #: of a frame that we send
_HEAD: Final = struct.Struct(">BI")


class Streamed:
    """The streams of one command or attachment."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def receive(self) -> tuple[int, bytes] | dict[str, Any]:
        """Return channel and data, or at the end what became of it. Raises ClosedByPeer."""
        while True:
            if len(self._received) >= _HEAD.size:
                channel, length = _HEAD.unpack_from(self._received)
                end = _HEAD.size + length
                if len(self._received) >= end:
                    data = bytes(memoryview(self._received)[_HEAD.size : end])
                    del self._received[:end]
                    if channel != _END:
                        return channel, data
                    told: dict[str, Any] = json.loads(data)
                    return told
            more = await self._stream.receive()
            if not more:
                raise ClosedByPeer("the supervisor of host processes has gone")
            self._received += more

    async def feed(self, data: bytes) -> None:
        """Send to standard input. Raises ClosedByPeer."""
        for at in range(0, len(data), _MOST):
            piece = data[at : at + _MOST]
            await self._stream.send(_HEAD.pack(_STDIN, len(piece)) + piece)

    async def end_input(self) -> None:
        """Raises ClosedByPeer."""
        await self._stream.send(_HEAD.pack(_STDIN, 0))

    async def resize(self, rows: int, columns: int) -> None:
        """Raises ClosedByPeer."""
        size = struct.pack(">HH", min(max(rows, 0), 65535), min(max(columns, 0), 65535))
        await self._stream.send(_HEAD.pack(_RESIZE, len(size)) + size)

    def close(self) -> None:
        """Leave: a command finds its terminal hung up, or its pipes closed."""
        self._stream.abort()
