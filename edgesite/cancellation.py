"""Tells a cancellation that is meant from one that is not."""

from __future__ import annotations

import asyncio

__all__ = ["is_being_cancelled"]


def is_being_cancelled() -> bool:
    """Whether somebody wants this task to end; a future that was cancelled raises the same error in who awaits it."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
