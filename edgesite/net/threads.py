"""Blocking calls off the loop: a small pool, and workers that run calls in order.

Errors  What a call raises reaches its awaiter.
State   Threads start with the first call and end with `RealThreads.close`. A cancelled await does not stop its call.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

__all__ = ["RealThreads", "RealWorker"]

T = TypeVar("T")
POOL_SIZE: Final = 4

_Call = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class _Crew:
    """Threads that take calls from one queue. Results that come close together wake the loop once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._waking = False
        self._closed = False
        self._under_way = 0  # calls whose results have not been delivered; the loop counts
        self._threads: list[threading.Thread] = []

    def _start(self, run: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=run, name=self.name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Queue a call. Raises RuntimeError once closed."""
        if self._closed:
            raise RuntimeError("this worker is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._under_way += 1
        self._calls.put((future, function, args))
        return future

    def _finish(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._done.append((future, result, error))
        if not self._waking:
            self._waking = True
            self._tell(self._deliver)

    def _tell(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._done.clear()

    def _deliver(self) -> None:
        self._waking = False  # before looking: a result that comes now wakes the loop again
        while self._done:
            future, result, error = self._done.popleft()
            self._under_way -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            elif isinstance(error, StopIteration):
                future.set_exception(RuntimeError(f"StopIteration from {error}"))  # a future refuses it
            else:
                future.set_exception(error)


class RealWorker(_Crew):
    """One thread that runs calls in order.

    A call runs even if its future was cancelled meanwhile: whoever gave it up does not know how far it is.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.running_call = 0  #: the how-manieth runs now; 0: none
        self._ended = asyncio.Event()
        self._thread = self._start(self._run)

    @property
    def native_id(self) -> int | None:
        """The thread, as the kernel calls it."""
        return self._thread.native_id

    async def close(self) -> None:
        """Run what is queued, then end the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        await self._ended.wait()
        self._thread.join()

    def _run(self) -> None:
        count = 0
        while (call := self._calls.get()) is not None:
            future, function, args = call
            self.running_call = count = count + 1
            try:
                self._finish(future, function(*args), None)
            except BaseException as exc:  # whatever it is belongs to the awaiter
                self._finish(future, None, exc)
            self.running_call = 0
            del call, future, function, args  # keep nothing alive while waiting
        self._tell(self._ended.set)


class _Pool(_Crew):
    """Up to ``size`` threads, started as there is work for them. A call that was cancelled before its turn is not run."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name)
        self._size = size

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Queue a call."""
        future = super().submit(function, *args)
        if len(self._threads) < min(self._under_way, self._size):
            self._start(self._run)
        return future

    def close(self) -> None:
        """Run what is queued, then end the threads. Blocking."""
        self._closed = True
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function, args = call
            try:
                self._finish(future, None if future.cancelled() else function(*args), None)
            except BaseException as exc:  # whatever it is belongs to the awaiter
                self._finish(future, None, exc)
            del call, future, function, args  # keep nothing alive while waiting


class RealThreads:
    """A pool for single calls, and workers. Make and close it on the loop that it serves."""

    def __init__(self, size: int = POOL_SIZE) -> None:
        self._size = size
        self._pool: _Pool | None = None
        self._workers: list[RealWorker] = []

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run one blocking call in the pool."""
        if self._pool is None:
            self._pool = _Pool("edgesite", self._size)
        return await self._pool.submit(function, *args)

    @property
    def workers(self) -> Sequence[RealWorker]:
        """Those that have been started; some may have ended."""
        return self._workers

    def worker(self, name: str) -> RealWorker:
        """Start a thread of one's own."""
        self._workers = [one for one in self._workers if not one._ended.is_set()]
        worker = RealWorker(name)
        self._workers.append(worker)
        return worker

    async def close(self) -> None:
        """End all threads after what they still have to do."""
        for worker in self._workers:
            await worker.close()
        self._workers.clear()
        if self._pool is not None:
            pool, self._pool = self._pool, None
            closer = RealWorker("edgesite-closer")  # waiting for the pool blocks
            await closer.submit(pool.close)
            await closer.close()
