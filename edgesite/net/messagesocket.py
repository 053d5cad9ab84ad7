"""What the link needs of a transport for messages: `WebSocket` has one lane, `QuicSocket` two.

Units   Bytes, seconds.
Errors  SocketClosed from sending and receiving once the connection is over.
State   `Stall` keeps how long a peer has taken nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from edgesite.net.websocket import Message, SocketClosed

__all__ = ["WRITE_BYTES", "MessageSocket", "Stall"]

#: Beyond this more should wait for the peer: what is urgent stands behind it on a single lane.
WRITE_BYTES: Final = 128 * 1024
_LOOK_S: Final = 5.0


class MessageSocket(Protocol):
    """One end of a connection that carries messages. Lane 0 is the most urgent."""

    lanes: int
    on_message: Callable[[Message], None] | None  #: called with each message, instead of queueing it for `recv`
    on_close: Callable[[SocketClosed], None] | None  #: called once, when the connection is over
    on_drain: Callable[[], None] | None  #: called when a lane that was behind no longer is

    @property
    def buffered_bytes(self) -> int:
        """What was sent and not yet taken by the peer."""
        ...

    def is_behind(self, lane: int = 0) -> bool:
        """Whether the peer has not taken most of what was sent on this lane, so that more should wait for ``on_drain``."""
        ...

    def send_nowait(self, data: bytes | str, *, text: bool | None = None, lane: int = 0) -> None: ...

    async def recv(self) -> Message: ...

    def pause(self) -> None:
        """Stop reading from the peer (for owners with ``on_message``)."""
        ...

    def resume(self) -> None: ...

    def abort(self) -> None: ...


class Stall:
    """Tells a peer that reads slowly, which may, from one that does not read at all, for which nobody should wait."""

    __slots__ = ("_least", "_most_s", "_since", "due")

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._least = 0
        self._since = 0.0
        self.due = math.inf  #: when to look again

    def is_over(self, now: float, socket: MessageSocket) -> bool:
        """Look; returns whether the peer has taken nothing for ``most_s`` though something waits."""
        if not any(socket.is_behind(lane) for lane in range(socket.lanes)):
            self.due = math.inf
            return False
        waiting = socket.buffered_bytes
        if self.due == math.inf or waiting < self._least:
            self._least, self._since = waiting, now
        elif now - self._since >= self._most_s:
            return True
        self.due = min(now + _LOOK_S, self._since + self._most_s)
        return False
