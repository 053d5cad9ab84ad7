"""Exec and attach over WebSocket: channels of one socket, translated into the streams of a SPDY connection.

    0 stdin    1 stdout    2 stderr    3 error    4 resize        the first byte of each message
    255        version 5: the next byte names a channel of which nothing more comes: how stdin ends

Version 4 and 5 tell the end of the command as a Status on the error channel, earlier ones say in words what went wrong. In the base64
variants the channel is a digit and the rest is base64 text.

Units   Seconds, bytes.
Errors  None leave `RemoteSocket.run`: when either side leaves, the other is closed.
State   None beyond the two connections, which bound what is under way.
Source  Kubernetes: kubectl's and kubelet's stream protocols over WebSocket (KEP-4006).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.kube import json
from edgesite.net.errors import ClosedByPeer
from edgesite.net.websocket import Message

if TYPE_CHECKING:
    from edgesite.context import Clock
    from edgesite.edge.edged.streams import StreamOptions
    from edgesite.net.spdy import SpdyConnection, SpdyStream
    from edgesite.net.websocket import WebSocket

__all__ = ["PROTOCOLS", "RemoteSocket"]

#: In order of preference; "" is what a client speaks that names none.
PROTOCOLS: Final = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
    "",
)
_TELL_STATUS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_MESSAGE_BYTES: Final = 64 * 1024
_OPEN_S: Final = 30.0
_STATUS_BYTES: Final = 64 * 1024


class RemoteSocket:
    """Carries one exec or attach."""

    def __init__(self, socket: WebSocket, connection: SpdyConnection, protocol: str, options: StreamOptions) -> None:
        self._socket = socket
        self._connection = connection
        self._protocol = protocol
        self._base64 = "base64" in protocol
        self._options = options
        self._active = True

    async def run(self, clock: Clock, idle_s: float) -> None:
        """Carry streams until the command has ended, either side leaves, or nothing has passed for ``idle_s``."""
        try:
            streams = await self._open()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._from_client, streams, tasks)
                tasks.start_soon(self._watch_idle, clock, idle_s, tasks)
                async with anyio.create_task_group() as outputs:
                    for channel in (_STDOUT, _STDERR):
                        if channel in streams:
                            outputs.start_soon(self._to_client, channel, streams[channel])
                    outputs.start_soon(self._status_to_client, streams[_ERROR])
                await self._socket.close()
                tasks.cancel_scope.cancel()
        except* (ClosedByPeer, TimeoutError):
            self._socket.close_nowait(1011, "the container's streams broke")
        finally:
            if self._socket.closed is None:
                with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
                    await self._socket.close(1001)
                self._socket.abort()

    async def _open(self) -> Mapping[int, SpdyStream]:
        """Open the streams; the error stream first, as kubectl does. Raises ClosedByPeer, TimeoutError."""
        options = self._options
        wanted = [(_ERROR, "error")]
        wanted += [(_STDIN, "stdin")] if options.stdin else []
        wanted += [(_STDOUT, "stdout")] if options.stdout else []
        wanted += [(_STDERR, "stderr")] if options.stderr and not options.tty else []
        wanted += [(_RESIZE, "resize")] if options.tty else []
        with anyio.fail_after(_OPEN_S):
            streams = {channel: await self._connection.open({"streamtype": name}) for channel, name in wanted}
        streams[_ERROR].end()
        for channel in (_STDOUT, _STDERR):
            if channel in streams:
                streams[channel].end()
        # An empty message tells clients of early versions that the streams stand.
        await self._send(_STDOUT if options.stdout else _STDERR if options.stderr else _ERROR, b"")
        return streams

    async def _from_client(self, streams: Mapping[int, SpdyStream], tasks: anyio.abc.TaskGroup) -> None:
        """Hand on what the client sends, until it leaves: then everything ends."""
        async for message in self._socket:
            self._active = True
            channel, data = self._parse(message)
            if channel == _CLOSE:
                channel = data[0] if data else -1
                if channel in (_STDIN, _RESIZE) and channel in streams:
                    streams[channel].end()
            elif data and channel in (_STDIN, _RESIZE) and channel in streams:
                with contextlib.suppress(
                    ClosedByPeer
                ):  # the command reads no more; its end is told on the error channel
                    await streams[channel].send(data)
        tasks.cancel_scope.cancel()

    def _parse(self, message: Message) -> tuple[int, bytes]:
        """Return channel and data; -1 for what cannot be read."""
        data = message.data
        if not data:
            return -1, b""
        if not self._base64:
            return data[0], data[1:]
        try:
            return data[0] - ord("0"), base64.b64decode(data[1:], validate=True)
        except binascii.Error:
            return -1, b""

    async def _to_client(self, channel: int, stream: SpdyStream) -> None:
        """Runtimes end streams in any way; whether all is well is told on the error stream. Raises SocketClosed."""
        while data := await _received(stream):
            for at in range(0, len(data), _MESSAGE_BYTES):
                await self._send(channel, data[at : at + _MESSAGE_BYTES])

    async def _send(self, channel: int, data: bytes) -> None:
        """Raises ClosedByPeer."""
        self._active = True
        if self._base64:
            await self._socket.send(b"%d%b" % (channel, base64.b64encode(data)), text=True)
        else:
            await self._socket.send(bytes((channel,)) + data)

    async def _status_to_client(self, stream: SpdyStream) -> None:
        """Raises ClosedByPeer."""
        status = b""
        while len(status) <= _STATUS_BYTES and (data := await _received(stream)):
            status += data
        if not status:
            raise ClosedByPeer("the runtime does not say how the command ended")
        if self._protocol not in _TELL_STATUS:
            status = _words(status)
        if status:
            await self._send(_ERROR, status)

    async def _watch_idle(self, clock: Clock, idle_s: float, tasks: anyio.abc.TaskGroup) -> None:
        while self._active:
            self._active = False
            await clock.sleep(idle_s)
        tasks.cancel_scope.cancel()


async def _received(stream: SpdyStream) -> bytes:
    """Return the next data, b"" when the stream has ended or broken."""
    try:
        return await stream.receive()
    except ClosedByPeer:
        return b""


def _words(status: bytes) -> bytes:
    """What a Status says of a failure, for clients that know no Status."""
    try:
        told: Any = json.loads(status)
    except ValueError:
        return status
    if not isinstance(told, dict) or told.get("status") == "Success":
        return b""
    return str(told.get("message") or "").encode()
