"""edgesite's end of the connection to the supervisor: starts it where none answers, asks, and hears of changes.

Units   Seconds.
Errors  RuntimeFault: RuntimeUnavailable while there is no connection, NotInRuntime, DeadlineReached, else the supervisor's text.
State   One connection; requests under way fail when it is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

import anyio

from edgesite.context import Clock, Net, Threads
from edgesite.edge.edged.runtime import DeadlineReached, NotInRuntime, RuntimeFault, RuntimeUnavailable
from edgesite.kube import json
from edgesite.net.bytestream import ByteStream
from edgesite.net.errors import ClosedByPeer

__all__ = ["ProcessLink", "Spawn", "spawn_supervisor"]

logger = logging.getLogger(__name__)

CONNECT_S: Final = 10.0
RETRY_S: Final = 0.02
MAX_LINE_BYTES: Final = 64 << 20
_KINDS: Final = {"missing": NotInRuntime, "deadline": DeadlineReached}

Spawn = Callable[[Path], None]


def spawn_supervisor(root: Path) -> None:
    """Start the supervisor of ``root``; it outlives us. Blocking: call it in a thread. Raises OSError."""
    if getattr(sys, "frozen", False):
        argv = [sys.executable, "--internal", "edgesite.edge.edged.process.supervisor", str(root)]
    else:
        argv = [sys.executable, "-I", "-S", "-E", str(Path(__file__).with_name("supervisor.py")), str(root)]
    empty, closed = os.pipe()  # in place of /dev/null, which an empty root does not have
    os.close(closed)
    log = os.open(root / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, empty, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        # A session of its own: what ends edgesite's does not end the supervisor's.
        pid = os.posix_spawn(argv[0], argv, {"LANG": "C.UTF-8"}, file_actions=actions, setsid=True)
    finally:
        os.close(log)
        os.close(empty)
    os.waitpid(pid, 0)  # it leaves the work to a child of its own, which is nobody's but init's


def _socket_in(place: int) -> str:
    return f"unix:///proc/self/fd/{place}/supervisor.sock"


async def _line(stream: ByteStream) -> tuple[bytes, bytes]:
    """Return the first line, and what came after it. Raises ClosedByPeer."""
    data = b""
    while b"\n" not in data:
        piece = await stream.receive()
        if not piece:
            raise ClosedByPeer("the connection was closed")
        data += piece
    line, _, rest = data.partition(b"\n")
    return line, rest


class _Connection(asyncio.Protocol):
    """Lines of JSON."""

    def __init__(self, taken: Callable[[dict[str, Any]], None], lost: Callable[[], None]) -> None:
        self._taken = taken
        self._lost = lost
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\n" not in data:
            if len(self._received) > MAX_LINE_BYTES and self._transport is not None:
                self._transport.abort()
            return
        *lines, rest = bytes(self._received).split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            self._taken(json.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


class ProcessLink:
    """``changed`` is told of each container's new state, as the supervisor has it."""

    def __init__(
        self,
        root: Path,
        net: Net,
        clock: Clock,
        threads: Threads,
        changed: Callable[[str, dict[str, Any]], None],
        spawn: Spawn = spawn_supervisor,
    ) -> None:
        self._root = root
        self._net = net
        self._clock = clock
        self._threads = threads
        self._changed = changed
        self._spawn = spawn
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._down = anyio.Event()

    async def run(self, connected: Callable[[dict[str, Any]], Awaitable[None]], tried: Callable[[], None]) -> None:
        """Keep a connection: ``connected`` is called with the supervisor's greeting after each new one, ``tried`` after the first try."""
        try:
            while True:
                try:
                    await self._connect()
                    await connected(await self.ask("hello"))
                except RuntimeFault as exc:
                    logger.error("%s", exc)
                    self._lose()
                tried()
                await self._down.wait()
                logger.warning("the supervisor of host processes has gone; starting another")
                await self._clock.sleep(RETRY_S)
        finally:
            self._lose()

    async def _connect(self) -> None:
        """Raises RuntimeUnavailable."""
        deadline = self._clock.monotonic() + CONNECT_S
        spawned_at = -CONNECT_S
        place = os.open(self._root, os.O_PATH | os.O_DIRECTORY)  # a socket's path must be short; this one always is
        try:
            while True:
                self._down = anyio.Event()
                try:
                    self._transport, _ = await self._net.connect(
                        lambda: _Connection(self._take, self._lose), _socket_in(place)
                    )
                    return
                except OSError as exc:
                    now = self._clock.monotonic()
                    if now > deadline:
                        raise RuntimeUnavailable(f"the supervisor of host processes does not start: {exc}") from exc
                    if now - spawned_at > 1.0:
                        await self._threads.run(self._spawn, self._root)
                        spawned_at = now
                await self._clock.sleep(RETRY_S)
        finally:
            os.close(place)

    def _lose(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RuntimeUnavailable("the supervisor of host processes has gone"))
        self._waiting.clear()
        self._down.set()

    def _take(self, message: dict[str, Any]) -> None:
        if "n" not in message:
            self._changed(message["id"], message["state"])
            return
        future = self._waiting.pop(message["n"], None)
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(_KINDS.get(message.get("kind", ""), RuntimeFault)(message["error"]))
        else:
            future.set_result(message)

    async def stream(self, **wish: Any) -> ByteStream:
        """Open a connection of its own for the streams of a container; `streamed` says what it carries. Raises RuntimeFault."""
        place = await self._threads.run(os.open, self._root, os.O_PATH | os.O_DIRECTORY)
        stream = None
        try:
            with anyio.fail_after(CONNECT_S):
                _, stream = await self._net.connect(ByteStream, _socket_in(place))
                await stream.send(json.dumps({"n": 0, "op": "stream", **wish}) + b"\n")
                message = {}
                while "n" not in message:  # else it is an event
                    line, rest = await _line(stream)
                    stream.give_back(rest)
                    message = json.loads(line)
            if "error" in message:
                raise _KINDS.get(message.get("kind", ""), RuntimeFault)(message["error"])
            ready, stream = stream, None
            return ready
        except OSError as exc:
            raise RuntimeUnavailable(f"the supervisor of host processes does not answer: {exc}") from exc
        finally:
            os.close(place)
            if stream is not None:
                stream.abort()

    async def ask(self, op: str, timeout_s: float = 30.0, **arguments: Any) -> dict[str, Any]:
        """Return the supervisor's answer. Raises RuntimeFault."""
        if self._transport is None:
            raise RuntimeUnavailable("the supervisor of host processes is not there yet")
        self._number += 1
        number = self._number
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._transport.write(json.dumps({"n": number, "op": op, **arguments}) + b"\n")
        try:
            with anyio.fail_after(timeout_s):
                return await future
        except TimeoutError:
            raise DeadlineReached(f"the supervisor of host processes did not answer within {timeout_s:.0f} s") from None
        finally:
            self._waiting.pop(number, None)
