"""Drives one node's connection: bytes and time between a transport and a `NodeSession`, by callbacks, without a task of its own.

What the edge sends is handed to the hub's line at once; while that line is long, the edge is not read from. What the session
wants to write is written as long as the peer takes it: a slow peer is waited for, one that takes nothing for ``stall_s`` is cut.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from edgesite.net.messagesocket import MessageSocket, Stall
from edgesite.net.websocket import Message as Frame
from edgesite.net.websocket import SocketClosed
from edgesite.wire.events import Closed, Event
from edgesite.wire.frames import Lane
from edgesite.wire.message import Message
from edgesite.wire.node_session import NodeSession

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["HubSide", "NodeConnection"]


class HubSide(Protocol):
    """What a connection needs of its hub."""

    def on_event(self, connection: NodeConnection, event: Event) -> None: ...

    def on_end(self, connection: NodeConnection, reason: str) -> None: ...

    def arm(self, connection: NodeConnection) -> None: ...


class NodeConnection:
    """``identity`` is the common name that the node has shown."""

    __slots__ = (
        "_clock",
        "_ended",
        "_held",
        "_hub",
        "_socket",
        "_stall",
        "has_left",
        "identity",
        "in_process",
        "node",
        "session",
        "timer_at",
        "waiting_upstream",
    )

    def __init__(
        self,
        node: str,
        identity: str,
        socket: MessageSocket,
        session: NodeSession,
        clock: Clock,
        hub: HubSide,
        *,
        stall_s: float,
        in_process: bool = False,
    ) -> None:
        self.node = node
        self.in_process = in_process
        self.identity = identity
        self.session = session
        self.timer_at = math.inf
        self.has_left = False  #: the node has ended the connection, with a goodbye
        self.waiting_upstream = 0  #: messages of this node in the hub's line
        self._socket = socket
        self._clock = clock
        self._hub = hub
        self._stall = Stall(stall_s)
        self._ended = False
        self._held = False
        socket.on_message = self._on_frame
        socket.on_close = self._on_close
        socket.on_drain = self.settle

    def start(self) -> None:
        """The hub knows the connection now."""
        self._hub.arm(self)

    def send(self, message: Message) -> None:
        """Give the session a message for the edge."""
        self.queue(message)
        self.settle()

    def queue(self, message: Message) -> None:
        """The same, to be written with others by `settle`."""
        self.session.send(message, self._clock.monotonic())

    @property
    def may_gather(self) -> bool:
        """Whether what is queued may wait a moment for more."""
        return not self.in_process and self.session.may_gather

    def hold(self, hold: bool) -> None:
        """Stop or go on reading from the edge."""
        if hold != self._held:
            self._held = hold
            (self._socket.pause if hold else self._socket.resume)()

    def drop(self, reason: str) -> None:
        """End the connection from this side."""
        self.session.close(reason)
        self.settle()

    def _on_frame(self, frame: Frame) -> None:
        self.session.receive_frame(frame.data, self._clock.monotonic(), text=frame.text)
        self.settle()

    def _on_close(self, closed: SocketClosed) -> None:
        self.has_left = closed.is_goodbye
        self._end(str(closed))

    def next_timer(self) -> float | None:
        due = None if self._ended else self.session.next_timer()
        return due if due is None else min(due, self._stall.due)

    def on_timer(self, now: float) -> None:
        self.session.handle_timer(now)
        self.settle()

    def settle(self) -> None:
        """Act on what the last call to the session has brought."""
        self._tell()
        self.flush()
        self._tell()
        if not self._ended:
            self._hub.arm(self)

    def _tell(self) -> None:
        events = self.session.events
        while events and not self._ended:
            event = events.popleft()
            if isinstance(event, Closed):
                self._end(event.reason)
            else:
                self._hub.on_event(self, event)

    def flush(self) -> None:
        """Write what may leave."""
        if self._ended:
            return
        now = self._clock.monotonic()
        try:
            if self._socket.lanes > 1:
                self._write(Lane.URGENT, now)
                self._write(Lane.BULK, now)
            else:
                self._write(None, now)
        except SocketClosed as exc:
            self._end(str(exc))
            return
        if self._stall.is_over(now, self._socket):
            self._end("the node takes nothing any more")

    def _write(self, lane: Lane | None, now: float) -> None:
        """Raises SocketClosed."""
        socket, number = self._socket, lane or 0
        while not socket.is_behind(number) and (frame := self.session.take_frame(now, lane)) is not None:
            socket.send_nowait(frame.data, text=frame.text, lane=number)

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = True
        self.session.close(reason)
        self._socket.abort()
        self._hub.on_end(self, reason)
