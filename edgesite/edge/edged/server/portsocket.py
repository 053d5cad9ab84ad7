"""Port-forward over WebSocket, in its two forms.

`tunnel`          the bytes of a SPDY connection in binary messages, as kubectl since 1.30: they pass as they are
`ForwardSocket`   two channels for each port that the query names, data and error, 0 and 1 for the first, which begin with a message that
                  holds the port, as other clients: carried to the runtime as SPDY streams

Units   Seconds, bytes.
Errors  None leave: when either side leaves, the other is closed.
State   None beyond the connections, which bound what is under way.
Source  Kubernetes: KEP-4006 (SPDY/3.1+portforward.k8s.io); kubelet's port-forward over WebSocket (v4.channel.k8s.io).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.net.errors import ClosedByPeer
from edgesite.net.pipe import Pipe

if TYPE_CHECKING:
    from edgesite.context import Clock
    from edgesite.net.spdy import SpdyConnection, SpdyStream
    from edgesite.net.websocket import Message, SocketClosed, WebSocket

__all__ = ["TUNNEL", "ForwardSocket", "tunnel"]

TUNNEL: Final = "SPDY/3.1+portforward.k8s.io"
_MESSAGE_BYTES: Final = 64 * 1024
_BEHIND_BYTES: Final = 256 * 1024
_OPEN_S: Final = 30.0


def tunnel(socket: WebSocket, far: Pipe, idle_s: float) -> None:
    """Join a WebSocket with a connection; returns at once, both end together."""
    near = Pipe()
    near.connection_made(_SocketTransport(socket, near))
    near.join(far, idle_s=idle_s)


class _SocketTransport(asyncio.Transport):
    """What a `Pipe` needs of a transport, over the binary messages of a WebSocket."""

    def __init__(self, socket: WebSocket, pipe: Pipe) -> None:
        super().__init__()
        self._socket = socket
        self._pipe = pipe
        self._full = False
        socket.on_close = self._lost
        socket.on_drain = self._drained
        asyncio.get_running_loop().call_soon(self._begin)  # once the pipe is joined

    def _begin(self) -> None:
        if self._socket.closed is not None:
            self._pipe.connection_lost(None)
        else:
            self._socket.deliver_to(self._taken)

    def _taken(self, message: Message) -> None:
        if message.data:
            self._pipe.data_received(message.data)

    def _lost(self, closed: SocketClosed) -> None:
        self._pipe.connection_lost(None)

    def _drained(self) -> None:
        if self._full:
            self._full = False
            self._pipe.resume_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._socket.is_open:
            self._socket.send_nowait(bytes(data))
            if not self._full and self._socket.buffered_bytes > _BEHIND_BYTES:
                self._full = True
                self._pipe.pause_writing()

    def pause_reading(self) -> None:
        self._socket.pause()

    def resume_reading(self) -> None:
        self._socket.resume()

    def close(self) -> None:
        self._socket.close_nowait()

    def abort(self) -> None:
        self._socket.abort()

    def is_closing(self) -> bool:
        return not self._socket.is_open


class ForwardSocket:
    """Carries one connection to each port."""

    def __init__(self, socket: WebSocket, connection: SpdyConnection, ports: Sequence[int]) -> None:
        self._socket = socket
        self._connection = connection
        self._ports = ports
        self._active = True

    async def run(self, clock: Clock, idle_s: float) -> None:
        """Carry bytes until either side leaves, or nothing has passed for ``idle_s``."""
        try:
            streams = await self._open()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._from_client, streams, tasks)
                tasks.start_soon(self._watch_idle, clock, idle_s, tasks)
                for channel, stream in enumerate(streams):
                    tasks.start_soon(self._to_client, channel, stream)
        except* (ClosedByPeer, TimeoutError):
            self._socket.close_nowait(1011, "the pod's ports cannot be reached any more")
        finally:
            if self._socket.closed is None:
                with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
                    await self._socket.close(1001)
                self._socket.abort()

    async def _open(self) -> list[SpdyStream]:
        """Raises ClosedByPeer, TimeoutError."""
        streams: list[SpdyStream] = []
        with anyio.fail_after(_OPEN_S):
            for number, port in enumerate(self._ports):
                names = {"port": str(port), "requestid": str(number)}
                error = await self._connection.open({"streamtype": "error", **names})
                error.end()
                streams += (await self._connection.open({"streamtype": "data", **names}), error)
        for channel in range(len(streams)):
            await self._socket.send(struct.pack("<BH", channel, self._ports[channel // 2]))
        return streams

    async def _from_client(self, streams: Sequence[SpdyStream], tasks: anyio.abc.TaskGroup) -> None:
        """Raises ClosedByPeer."""
        async for message in self._socket:
            self._active = True
            data = message.data
            if len(data) > 1 and data[0] % 2 == 0 and data[0] < len(streams):
                await streams[data[0]].send(data[1:])
        tasks.cancel_scope.cancel()

    async def _to_client(self, channel: int, stream: SpdyStream) -> None:
        """Raises ClosedByPeer."""
        while data := await stream.receive():
            self._active = True
            for at in range(0, len(data), _MESSAGE_BYTES):
                await self._socket.send(bytes((channel,)) + data[at : at + _MESSAGE_BYTES])

    async def _watch_idle(self, clock: Clock, idle_s: float, tasks: anyio.abc.TaskGroup) -> None:
        while self._active:
            self._active = False
            await clock.sleep(idle_s)
        tasks.cancel_scope.cancel()
