"""The supervisor's event loop: file descriptors and timers, on epoll. Standard library only.

Units   Seconds, monotonic.
Errors  What a handler raises ends the loop.
"""

from __future__ import annotations

import heapq
import os
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PollLoop"]


class PollLoop:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], object]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def watch(self, fd: int, handler: Callable[[int], object]) -> None:
        """Call ``handler`` with epoll's events while ``fd`` is readable."""
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def want_write(self, fd: int, wanted: bool) -> None:
        if fd in self._handlers:
            self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def forget(self, fd: int, *, close: bool = True) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        if close:
            os.close(fd)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._sequence += 1  # equal times run in order, and actions are never compared
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._sequence, action))

    def turn(self, most_s: float | None) -> None:
        """Wait for something to do, at most ``most_s``, and do it."""
        wait_s = most_s
        if self._timers:
            due_s = max(self._timers[0][0] - time.monotonic(), 0.0)
            wait_s = due_s if wait_s is None else min(wait_s, due_s)
        for fd, events in self._epoll.poll(wait_s):
            if fd in self._handlers:  # a handler before may have closed it
                self._handlers[fd](events)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
