"""What one client reads of an endless answer: first pieces made on demand, then frames as they come, written without a task.

Who reads slowly is held up to a bound, and then cut off: what it misses it asks for again.

Errors  None leave.
State   What could not be written yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from edgesite.net.errors import ClosedByPeer, WouldBlock

if TYPE_CHECKING:
    from edgesite.net.http import BodyWriter, Frame

__all__ = ["Outflow"]


class Outflow:
    """A base class, since there may be very many: who derives says in `left` what the end means. `flush` is for the writer's ``on_drain``,
    `leave` for its ``on_close``."""

    __slots__ = ("_backlog", "_backlog_bytes", "_ended", "_held", "_initial", "_writer")

    MOST_FRAMES: ClassVar[int]  #: held back before the client is cut off
    MOST_BYTES: ClassVar[int]

    def __init__(self) -> None:
        self._writer: BodyWriter | None = None
        self._initial: Iterator[bytes] | None = None
        self._held: bytes | Frame | None = None  # what there was no room for
        self._backlog: deque[bytes | Frame] = deque()
        self._backlog_bytes = 0
        self._ended = False

    def left(self) -> None:
        """It is over. Called once."""

    def begin(self, writer: BodyWriter, initial: Iterator[bytes]) -> None:
        """Write what comes first; frames may have come already."""
        self._writer, self._initial = writer, initial
        self.flush()

    def put(self, frame: bytes | Frame, size: int = 0) -> None:
        """Write or keep a frame. ``size``: what of it counts against `MOST_BYTES`."""
        if self._ended:
            return
        self._backlog.append(frame)
        self._backlog_bytes += size
        self.flush()
        if len(self._backlog) > self.MOST_FRAMES or self._backlog_bytes > self.MOST_BYTES:
            self.end()

    def flush(self) -> None:
        """Write what waits, as far as there is room."""
        writer = self._writer
        if writer is None:
            return
        try:
            while self._held is not None or self._next():
                writer.write_nowait(self._held)  # type: ignore[arg-type]
                self._held = None
        except WouldBlock:
            return
        except ClosedByPeer:
            self.leave()

    def _next(self) -> bool:
        """Take the next piece in hand; False if there is none."""
        if self._initial is not None:
            self._held = next(self._initial, None)
            if self._held is None:
                self._initial = None
        if self._held is None and self._backlog:
            self._held = self._backlog.popleft()
            if not self._backlog:
                self._backlog_bytes = 0
        return self._held is not None

    def leave(self) -> None:
        """The client is gone, or it is over. Idempotent."""
        if self._ended:
            return
        self._ended = True
        self._backlog.clear()
        self._initial = self._held = None
        self.left()

    def end(self) -> None:
        """End the answer in order."""
        if not self._ended:
            self.leave()
            if self._writer is not None:
                self._writer.close()
