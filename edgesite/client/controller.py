"""The loop around a reconcile function: workers, retries, deadlines. It owns every error, reconcile knows nothing of it.

Units   Times are seconds.
Errors  TerminalError: only a change of the object can help. ApiError Conflict: the newer version is on its way.
State   None but the queue.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import anyio

from edgesite.client.workqueue import RateLimiter, WorkQueue
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    import random

    from edgesite.client.informer import Informer
    from edgesite.context import Clock

__all__ = ["Controller", "Result", "TerminalError"]

K = TypeVar("K", bound=Hashable)
DEADLINE_S: Final = 120.0  #: of one reconcile: an API server that hangs must not hold a worker for ever
WARN_AFTER: Final = 3  #: failures of one key before the log gets more than a debug line: brief trouble is normal


@dataclass(frozen=True, slots=True)
class Result:
    """``requeue_after_s``: look at the key again then. For waiting, not for errors."""

    requeue_after_s: float | None = None


class TerminalError(Exception):
    """Retrying cannot help; the key is reconciled again only when something about it changes."""


class Controller(Generic[K]):
    """Reconciles keys with a number of workers."""

    def __init__(
        self,
        name: str,
        reconcile: Callable[[K], Awaitable[Result | None]],
        clock: Clock,
        random: random.Random,
        *,
        workers: int = 1,
        deadline_s: float = DEADLINE_S,
        limiter: RateLimiter[K] | None = None,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None,
    ) -> None:
        self.name = name
        self.queue: WorkQueue[K] = WorkQueue(clock, limiter or RateLimiter(clock, random))
        self._reconcile = reconcile
        self._workers = workers
        self._deadline_s = deadline_s
        self._log = log or logging.getLogger(__name__)

    async def run(self, synced: Iterable[Informer] = (), *, ready: Callable[[], None] | None = None) -> None:
        """Wait until the informers have synced, call ``ready``, then work until cancelled."""
        for informer in synced:
            await informer.wait_synced()
        if ready is not None:
            ready()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.queue.run, name=f"{self.name}: delays")
            for number in range(self._workers):
                tasks.start_soon(self._work, name=f"{self.name}: worker {number}")

    async def _work(self) -> None:
        while True:
            async with self.queue.take() as key:
                await self._one(key)

    async def _one(self, key: K) -> None:
        try:
            with anyio.fail_after(self._deadline_s):
                result = await self._reconcile(key)
        except TerminalError as exc:
            self._log.error("%s: key=%s: %s", self.name, key, exc)
            self.queue.forget(key)
        except Exception as exc:  # whatever a reconcile raises is retried; cancellation passes
            self._retry(key, exc)
        else:
            self.queue.forget(key)
            if result is not None and result.requeue_after_s is not None:
                self.queue.add_after(key, result.requeue_after_s)

    def _retry(self, key: K, exc: Exception) -> None:
        delay_s = self.queue.add_rate_limited(key)
        expected = isinstance(exc, ApiError)
        stale = isinstance(exc, ApiError) and exc.reason == "Conflict"  # the newer version is on its way
        loud = not expected or (self.queue.failures(key) >= WARN_AFTER and not stale)
        level = logging.WARNING if loud else logging.DEBUG
        self._log.log(
            level,
            "%s: key=%s failed, again in %.3f s: %s",
            self.name,
            key,
            delay_s,
            exc or type(exc).__name__,
            exc_info=None if expected else exc,
        )
