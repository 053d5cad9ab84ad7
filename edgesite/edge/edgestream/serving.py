"""Answers the streams that the cloud opens, from this node's kubelet API and from nowhere else.

LOGS and METRICS: the body of the answer to a GET. EXEC and ATTACH: the request is written as it is, then bytes pass both ways
unchanged, the head of the answer included, so that a cloud of ours learns status and headers through them.

Errors  A stream that cannot be served is ended.
State   A task for each LOGS or METRICS stream, in the caller's task group; none for the others.
Source  `edgesite.wire.tunnel`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.net.client import HttpClient
from edgesite.net.errors import ClosedByPeer
from edgesite.net.headers import encode_headers
from edgesite.net.pipe import Pipe
from edgesite.wire.tunnel import Connect, FrameType

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.context import Net
    from edgesite.net.tunnel import Tunnel

__all__ = ["StreamServer"]

_RAW: Final = frozenset({FrameType.EXEC, FrameType.ATTACH})
_CONNECT_S: Final = 10.0
#: Of the connection between two neighbours, or decided here.
_HOP_BY_HOP: Final = frozenset({"host", "accept-encoding", "transfer-encoding", "te", "trailer", "proxy-authorization"})
_FOR_RAW_ALSO: Final = frozenset({"connection", "upgrade", "content-length"})


class StreamServer:
    """Serves the streams of one tunnel."""

    def __init__(
        self,
        net: Net,
        address: str,
        tasks: TaskGroup,
        most: int,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """``address`` is the kubelet API's; at most ``most`` streams are served at once."""
        self._net = net
        self._address = address
        self._tasks = tasks
        self._most = most
        self._log = log

    def on_connect(self, tunnel: Tunnel, number: int, kind: FrameType, connect: Connect) -> None:
        """Serve a new stream."""
        if tunnel.streams >= self._most:
            self._log.warning("refused stream=%d: %d streams are open", number, tunnel.streams)
            tunnel.refuse(number)
        elif kind in _RAW:
            pipe = Pipe()
            tunnel.accept(number, pipe)
            self._tasks.start_soon(self._connect_raw, pipe, connect)
        else:
            sink = _Sink()
            tunnel.accept(number, sink)
            self._tasks.start_soon(self._send_body, sink, connect)

    async def _connect_raw(self, near: Pipe, connect: Connect) -> None:
        """Join a stream with a connection to the API, and send the request there."""
        try:
            head = _request_head(connect)
            with anyio.fail_after(_CONNECT_S):
                transport, far = await self._net.connect(Pipe, self._address)
        except (OSError, ValueError) as exc:  # TimeoutError is an OSError
            self._log.warning("cannot serve a stream of the cloud: %s", exc)
            near.abort()
            return
        transport.write(head)
        near.join(far)

    async def _send_body(self, sink: _Sink, connect: Connect) -> None:
        """Send the body of an answer; cancelled when the stream ends first."""
        with anyio.CancelScope() as scope:
            sink.on_lost = scope.cancel
            if sink.lost:
                return
            try:
                headers = _headers(connect, raw=False)
                async with (
                    HttpClient(self._net, self._address) as client,
                    client.stream("GET", connect.target, headers) as answer,
                ):
                    async for chunk in answer:
                        await sink.write(chunk)
            except ClosedByPeer:
                pass  # of the stream: nobody is there to be told; of the API: it ends short, as in KubeEdge
            except (OSError, ValueError) as exc:
                self._log.warning("cannot serve a stream of the cloud: %s", exc)
        sink.close()


def _headers(connect: Connect, *, raw: bool) -> bytes:
    """Raises ValueError."""
    dropped = _HOP_BY_HOP if raw else _HOP_BY_HOP | _FOR_RAW_ALSO
    return b"".join(
        [
            encode_headers({name: value})
            for name, values in connect.headers.items()
            if name.lower() not in dropped
            for value in values
        ]
    )


def _request_head(connect: Connect) -> bytes:
    """Raises ValueError."""
    head = f"{connect.method} {connect.target} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode("ascii")
    return head + _headers(connect, raw=True) + b"\r\n"


class _Sink(asyncio.Protocol):
    """The end of a stream that only sends."""

    def __init__(self) -> None:
        self.on_lost = _nothing
        self._transport: asyncio.Transport | None = None
        self._room = anyio.Event()
        self._room.set()

    @property
    def lost(self) -> bool:
        return self._transport is None

    async def write(self, data: bytes) -> None:
        """Send, and wait for room. Raises ClosedByPeer."""
        if self._transport is None or self._transport.is_closing():
            raise ClosedByPeer("the stream ended")
        self._transport.write(data)
        await self._room.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def pause_writing(self) -> None:
        self._room = anyio.Event()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._room.set()
        self.on_lost()


def _nothing() -> None:
    """Until a task waits, nobody needs to know."""
