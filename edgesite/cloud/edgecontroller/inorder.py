"""Requests of edges, several at once, but those about one object one after the other, in the order in which they came.

Two reports about one pod on their way at the same time, say the first delayed by a look at the API, could change places, and the older
status would stand over the newer one.

State   What waits, bounded by ``at_once`` together with what is under way: then the sender waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from edgesite.wire.message import Message

__all__ = ["InOrder"]


class InOrder:
    """``work`` is called with each message; it raises nothing."""

    def __init__(self, tasks: TaskGroup, work: Callable[[Message], Awaitable[None]], at_once: int) -> None:
        self._tasks = tasks
        self._work = work
        self._places = anyio.Semaphore(at_once, fast_acquire=True)
        self._waiting: dict[str, deque[Message]] = {}  # by resource, the node in front: those behind the one under way

    async def add(self, message: Message) -> None:
        """Wait for a place, and have the message worked on in its turn."""
        await self._places.acquire()
        if (line := self._waiting.get(message.resource)) is not None:
            line.append(message)
            return
        self._waiting[message.resource] = deque()
        self._tasks.start_soon(self._run, message)

    async def _run(self, message: Message) -> None:
        line = self._waiting[message.resource]
        try:
            while True:
                try:
                    await self._work(message)
                finally:
                    self._places.release()
                if not line:
                    return
                message = line.popleft()
        finally:
            del self._waiting[message.resource]
