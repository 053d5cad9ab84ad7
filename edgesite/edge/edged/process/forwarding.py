"""Port-forward on the process runtime: pods have the node's network, so their ports are those of the loopback.

Each connection has two streams of one request id: ``data``, and ``error``, which tells in words why the port could not be reached.

Units   Seconds.
Errors  None leave: they are told on the error stream.
State   Streams whose partner has not come yet; the client's bound on streams bounds them.
Source  Kubernetes' port-forward protocol: headers streamType, port, requestID.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from edgesite.net.bytestream import ByteStream
from edgesite.net.errors import ClosedByPeer
from edgesite.net.spdy import SpdyStream

if TYPE_CHECKING:
    from edgesite.context import Net

__all__ = ["forward"]

_CONNECT_S: Final = 10.0
_HOSTS: Final = ("127.0.0.1", "[::1]")


async def forward(arriving: MemoryObjectReceiveStream[SpdyStream], net: Net) -> None:
    """Serve connections until cancelled."""
    waiting: dict[str, SpdyStream] = {}
    async with anyio.create_task_group() as tasks:
        async for stream in arriving:
            number, kind = stream.headers.get("requestid", ""), stream.headers.get("streamtype", "")
            other = waiting.pop(number, None)
            if other is None:
                waiting[number] = stream
            elif {kind, other.headers.get("streamtype", "")} == {"data", "error"}:
                data, error = (stream, other) if kind == "data" else (other, stream)
                tasks.start_soon(_carry, data, error, net)
            else:
                stream.reset()
                other.reset()


async def _carry(data: SpdyStream, error: SpdyStream, net: Net) -> None:
    port = data.headers.get("port", "")
    with contextlib.suppress(ClosedByPeer):
        try:
            near = await _connect(port, net)
        except (OSError, ValueError) as exc:
            text = f"error forwarding port {port} to the pod: {exc}"
            await error.send(text.encode())
            error.end()
            data.discard()
            data.end()
            return
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_inward, data, near)
                tasks.start_soon(_outward, near, data)
        finally:
            near.abort()
        error.end()


async def _connect(port: str, net: Net) -> ByteStream:
    """Raises OSError, ValueError."""
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{port!r} is no port")
    with anyio.fail_after(_CONNECT_S):
        try:
            return (await net.connect(ByteStream, f"{_HOSTS[0]}:{port}"))[1]
        except OSError:
            with contextlib.suppress(OSError):
                return (await net.connect(ByteStream, f"{_HOSTS[1]}:{port}"))[1]
            raise


async def _inward(data: SpdyStream, near: ByteStream) -> None:
    try:
        while piece := await data.receive():
            await near.send(piece)
        near.end()
    except ClosedByPeer:  # either has gone: nothing more can be said to the other
        near.abort()
        data.discard()


async def _outward(near: ByteStream, data: SpdyStream) -> None:
    with contextlib.suppress(ClosedByPeer):
        while piece := await near.receive():
            await data.send(piece)
    data.end()
