"""Drives one connection to the cloud: bytes and time between a transport and an `EdgeSession`, which decides everything."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.net.messagesocket import MessageSocket, Stall
from edgesite.net.websocket import SocketClosed
from edgesite.wire.edge_session import EdgeSession
from edgesite.wire.events import Answer, Event
from edgesite.wire.frames import Lane
from edgesite.wire.message import InvalidMessage, Message, error_status

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["Connection"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_WRITE_S: Final = 30.0  #: a cloud that takes nothing for so long is lost
_BEHIND_S: Final = 1.0  #: while it takes nothing, the session is not asked more often


class Connection:
    """``run`` serves until the connection is over; ``on_event`` gets what the session tells."""

    def __init__(
        self,
        socket: MessageSocket,
        session: EdgeSession,
        clock: Clock,
        on_event: Callable[[Event], Awaitable[None]],
        log: Log,
    ) -> None:
        self._socket = socket
        self.session = session
        self._clock = clock
        self._on_event = on_event
        self._log = log
        self._wake = anyio.Event()
        self._room = anyio.Event()
        self._dropped = ""
        self._ended = False
        self.refused = 0
        socket.on_drain = self.wake

    async def run(self) -> str:
        """Serve; returns why it ended."""
        reason = ""

        async def until_end(work: Callable[[], Awaitable[str]]) -> None:
            nonlocal reason
            ended = await work()
            reason = reason or ended
            tasks.cancel_scope.cancel()

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(until_end, self._read)
                tasks.start_soon(until_end, self._write)
        finally:
            self._ended = True
            self._socket.abort()
            self._room.set()
        return self._dropped or reason

    async def send(self, message: Message) -> bool:
        """Queue a message, waiting while too many requests wait already; False if the connection is over."""
        while not self.session.has_room and not self._ended:
            self._room = anyio.Event()
            await self._room.wait()
        if self._ended:
            return False
        self.session.send(message, self._clock.monotonic())
        self.wake()
        return True

    def wake(self) -> None:
        """There is more to write."""
        self._wake.set()

    def drop(self, reason: str) -> None:
        """End the connection from this side."""
        self._dropped = reason
        self._socket.abort()

    async def _read(self) -> str:
        while True:
            try:
                received = await self._socket.recv()
            except SocketClosed as exc:
                return str(exc)
            try:
                self.session.receive_frame(received.data, self._clock.monotonic(), text=received.text)
            except InvalidMessage as exc:
                self.refused += 1
                self._log.warning("the cloud sent what is no message: %s", exc)
                continue
            while self.session.events:
                await self._on_event(self.session.events.popleft())
            self.wake()

    async def _write(self) -> str:
        stall = Stall(_WRITE_S)
        while True:
            self._wake = anyio.Event()
            now = self._clock.monotonic()
            self.session.handle_timer(now)
            if self.session.closed:
                return self.session.reason
            try:
                if self._socket.lanes > 1:
                    self._write_lane(Lane.URGENT, now)
                    self._write_lane(Lane.BULK, now)
                else:
                    self._write_lane(None, now)
            except SocketClosed as exc:
                return str(exc)
            while self.session.left_out:
                error = self.session.left_out.popleft()
                self._log.warning(
                    "not sent: %s: %s", error.resource, (error_status(error.content) or {}).get("message")
                )
                await self._on_event(Answer(error))
            if stall.is_over(now, self._socket):
                return f"the cloud has taken nothing for {_WRITE_S:g} s"
            self._room.set()
            due = self.session.next_timer()
            wait = min(math.inf if due is None else due, stall.due) - self._clock.monotonic()
            with anyio.move_on_after(max(wait, _BEHIND_S if stall.due < math.inf else 0.0)):
                await self._wake.wait()

    def _write_lane(self, lane: Lane | None, now: float) -> None:
        """Raises SocketClosed."""
        socket, number = self._socket, lane or 0
        while not socket.is_behind(number) and (frame := self.session.take_frame(now, lane)) is not None:
            socket.send_nowait(frame.data, text=frame.text, lane=number)
