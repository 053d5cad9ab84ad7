"""Writes into a pipe or terminal that may be full, without waiting. Standard library only.

Errors  None: what nobody reads any more is dropped.
State   What waits; whoever feeds looks at ``waiting`` and stops for a while.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesite.edge.edged.process.pollloop import PollLoop

__all__ = ["Feeder"]

WRITE_BYTES = 65536


class Feeder:
    """Owns ``fd``. ``on_room`` is called when all that waited is written, or nobody reads any more."""

    def __init__(self, loop: PollLoop, fd: int, on_room: Callable[[], None] = lambda: None) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.on_room = on_room
        self._loop = loop
        self._waiting = bytearray()
        self._ending = False
        self.closed = False
        loop.watch(fd, lambda events: self._drained(), 0)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def write(self, data: bytes) -> None:
        if not self.closed and not self._ending:
            self._waiting += data
            self._flush()

    def end(self) -> None:
        """Close once what waits is written."""
        self._ending = True
        self._flush()

    def close(self) -> None:
        """Drop what waits, and close; idempotent."""
        if not self.closed:
            self.closed = True
            self._waiting.clear()
            self._loop.forget(self.fd)

    def _drained(self) -> None:
        self._flush()
        if not self._waiting:
            self.on_room()

    def _flush(self) -> None:
        if self.closed:
            return
        try:
            while self._waiting:
                with memoryview(self._waiting) as view:
                    written = os.write(self.fd, view[:WRITE_BYTES])
                del self._waiting[:written]
        except BlockingIOError:
            self._loop.want(self.fd, select.EPOLLOUT)
            return
        except OSError:
            self.close()
            return
        if self._ending:
            self.close()
        else:
            self._loop.want(self.fd, 0)
