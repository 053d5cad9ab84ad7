"""A relay between edgesite and a container runtime, with faults at named calls: for tests of what a crash or a bad runtime leaves.

    async with cri_proxy(path / "cri.sock", daemon.socket) as proxy:
        proxy.act("CreateContainer", When.ANSWERED, kill)          # the runtime has done it, and nobody hears of it
        proxy.refuse("StopContainer", "cannot be killed", times=3)

It relays HTTP/2 frames and reads no more of them than it needs: where a call goes. Headers are compressed anew for the runtime, whose
table must hold nothing of calls that it does not hear of.

Errors  OSError when the socket cannot be made.
State   Faults that have not happened yet; each happens once, or as often as it says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple

__all__ = ["CriProxy", "When", "cri_proxy"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER: Final = 9
_HEADERS: Final = 1
_END_STREAM, _END_HEADERS = 0x1, 0x4
_PATH: Final = re.compile(rb"/runtime\.v1\.(?:Runtime|Image)Service/(\w+)")


class When(Enum):
    """The moment of a call at which something happens."""

    ASKED = "asked"  #: before the runtime hears of it
    UNDER_WAY = "under way"  #: as soon as the runtime has it
    ANSWERED = "answered"  #: when the runtime has done it, before the answer is passed on


@dataclass(slots=True)
class _Fault:
    method: str
    when: When
    action: Callable[[], Awaitable[None]] | None  #: None refuses the call
    text: str = ""
    times: int = 1


@dataclass(slots=True)
class CriProxy:
    faults: list[_Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)  #: names of all calls so far

    def act(self, method: str, when: When, action: Callable[[], Awaitable[None]], *, times: int = 1) -> None:
        """Do something at a call; it is held up meanwhile."""
        self.faults.append(_Fault(method, when, action, times=times))

    def refuse(self, method: str, text: str, *, times: int = 1) -> None:
        """Answer a call with an error of the runtime's, which does not hear of it."""
        self.faults.append(_Fault(method, When.ASKED, None, text, times))

    def take(self, method: str, when: When) -> _Fault | None:
        for fault in self.faults:
            if fault.method == method and fault.when is when:
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
                return fault
        return None


class _Relay:
    """One connection."""

    def __init__(self, proxy: CriProxy, client: asyncio.StreamWriter, runtime: asyncio.StreamWriter) -> None:
        self._proxy, self._client, self._runtime = proxy, client, runtime
        self._methods: dict[int, str] = {}
        self._refused: set[int] = set()
        self._decoder, self._encoder = Decoder(), Encoder()

    async def to_runtime(self, reader: asyncio.StreamReader) -> None:
        self._runtime.write(await reader.readexactly(len(_PREFACE)))
        while True:
            kind, stream, frame = await _read_frame(reader)
            fault = None
            if kind == _HEADERS:
                headers = self._decoder.decode(frame[_HEADER:], raw=True)
                if found := _PATH.fullmatch(dict(headers)[b":path"]):
                    method = self._methods[stream] = found[1].decode()
                    self._proxy.calls.append(method)
                    if (fault := self._proxy.take(method, When.ASKED)) is not None:
                        await self._asked(fault, stream)
                    fault = self._proxy.take(method, When.UNDER_WAY)
                if stream not in self._refused:
                    frame = _headers_frame(frame[4], stream, self._encoder.encode(headers))
            if stream not in self._refused:
                self._runtime.write(frame)
                await self._runtime.drain()
            if fault is not None and fault.action is not None:
                _, _, frame = await _read_frame(reader)  # the request itself
                self._runtime.write(frame)
                await self._runtime.drain()
                await fault.action()

    async def _asked(self, fault: _Fault, stream: int) -> None:
        if fault.action is not None:
            await fault.action()
            return
        self._refused.add(stream)
        answer = (
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "2"),
            ("grpc-message", fault.text),
        )
        # The client's table belongs to the runtime: nothing that comes from here may go into it.
        block = Encoder().encode([NeverIndexedHeaderTuple(*one) for one in answer])
        self._client.write(_headers_frame(_END_HEADERS | _END_STREAM, stream, block))

    async def to_client(self, reader: asyncio.StreamReader) -> None:
        while True:
            kind, stream, frame = await _read_frame(reader)
            if kind == _HEADERS and frame[4] & _END_STREAM and stream in self._methods:
                fault = self._proxy.take(self._methods.pop(stream), When.ANSWERED)
                if fault is not None and fault.action is not None:
                    await fault.action()
            self._client.write(frame)
            await self._client.drain()


def _headers_frame(flags: int, stream: int, block: bytes) -> bytes:
    return len(block).to_bytes(3, "big") + bytes((_HEADERS, flags)) + stream.to_bytes(4, "big") + block


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    head = await reader.readexactly(_HEADER)
    body = await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3], int.from_bytes(head[5:9], "big"), head + body


@asynccontextmanager
async def cri_proxy(path: Path, runtime: Path) -> AsyncGenerator[CriProxy]:
    """Listen on the unix socket ``path`` and pass on to ``runtime``. Raises OSError."""
    proxy = CriProxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_unix_connection(runtime)
        except OSError:  # the runtime is down: so are we
            writer.close()
            return
        relay = _Relay(proxy, writer, back)
        # asyncio, not anyio: one side's end ends the other, and the streams are asyncio's own.
        ways = [asyncio.create_task(relay.to_runtime(reader)), asyncio.create_task(relay.to_client(there))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, back):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_unix_server(accept, path)
    try:
        yield proxy
    finally:
        server.close()
        for task in tuple(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
