"""Run calls at the same time and let each come to its end, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

__all__ = ["together"]


async def together(*calls: Callable[[], Awaitable[object]]) -> None:
    """Return when all have ended. Raises the first failure as it is, not as a group: callers sort failures by type."""
    if len(calls) == 1:
        await calls[0]()
        return
    failures: list[Exception] = []

    async def run(call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except Exception as exc:  # handed on below, once the others have ended
            failures.append(exc)

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(run, call)
    if failures:
        raise failures[0]
