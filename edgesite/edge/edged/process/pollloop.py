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
        self._wanted: dict[int, int] = {}  # epoll's events of each fd
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def watch(self, fd: int, handler: Callable[[int], object], events: int = select.EPOLLIN) -> None:
        """Call ``handler`` with epoll's events when one of ``events`` is there."""
        self._handlers[fd] = handler
        self._wanted[fd] = 0
        self.want(fd, events)

    def want(self, fd: int, events: int) -> None:
        """Look for other events from now on. 0: for none, not even for the end, of which epoll would tell again and again."""
        before = self._wanted.get(fd)
        if before is None or before == events:
            return
        self._wanted[fd] = events
        if not before:
            self._epoll.register(fd, events)
        elif events:
            self._epoll.modify(fd, events)
        else:
            self._epoll.unregister(fd)

    def want_write(self, fd: int, wanted: bool) -> None:
        self.want(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def forget(self, fd: int, *, close: bool = True) -> None:
        self._handlers.pop(fd, None)
        if self._wanted.pop(fd, 0):
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
            if self._wanted.get(fd):  # a handler before may have closed it
                self._handlers[fd](events)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
