"""One watcher's queue of events: bounded, in revision order, without gaps or repeats.

Errors  Lagged once the queue overflowed and what it held has been read; StoreClosed after the store was closed.
State   In memory. A watch lasts until `Watch.close`; it belongs to one reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType

from edgesite.store.errors import Lagged
from edgesite.store.rows import Event

__all__ = ["Watch"]


class Watch:
    """Iterate it, or take what is there with `take` whenever ``on_ready`` was called. Made by ``Store.watch``."""

    __slots__ = (
        "_closed",
        "_error",
        "_limit",
        "_loop",
        "_newest",
        "_queue",
        "_size",
        "_unregister",
        "_waiter",
        "on_ready",
        "prefix",
    )

    def __init__(
        self,
        prefix: str,
        size: int,
        replay: Iterable[Event],
        newest: Callable[[], int],
        unregister: Callable[[Watch], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.prefix = prefix
        self.on_ready: Callable[[], None] | None = None  #: called on the loop when the first event waits, or the end
        self._queue = deque(replay)
        self._size = size
        self._limit = size + len(self._queue)  # what was asked for at the start does not count as slowness
        self._newest = newest
        self._unregister = unregister
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._closed = False

    @property
    def progress(self) -> int:
        """Everything up to this revision has been taken: what a bookmark may say."""
        return self._queue[0].revision - 1 if self._queue else self._newest()

    @property
    def ended(self) -> bool:
        """No further event will be queued."""
        return self._closed or self._error is not None

    def take(self) -> list[Event]:
        """Return the events that wait, perhaps none. Raises Lagged, StoreClosed once all have been taken."""
        events = list(self._queue)
        self._queue.clear()
        self._limit = self._size
        if not events and self._error is not None:
            raise self._error
        return events

    async def batch(self) -> list[Event]:
        """Wait for at least one event; an empty list means that the watch was closed. Raises Lagged, StoreClosed."""
        await self._wait()
        return self.take()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        """Raises Lagged, StoreClosed."""
        await self._wait()
        if self._queue:
            return self._queue.popleft()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def _wait(self) -> None:
        if self._queue or self.ended:
            return
        if self._waiter is not None:
            raise RuntimeError("a watch has one reader")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def push(self, event: Event) -> None:
        """Queue an event; called by the store."""
        if self.ended:
            return
        queue = self._queue
        if len(queue) >= self._limit:
            self.end(Lagged(self.prefix, self._size))
            return
        queue.append(event)
        if len(queue) == 1:
            self._wake()

    def end(self, error: Exception) -> None:
        """Deliver what is queued, then raise ``error``; called by the store."""
        if not self.ended:
            self._error = error
            self._unregister(self)
            self._wake()

    def close(self) -> None:
        """Stop watching; idempotent."""
        if not self.ended:
            self._unregister(self)
        self._closed = True
        self._queue.clear()
        self._wake()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.on_ready is not None:
            self._loop.call_soon(self.on_ready)
