"""Items that wait for one worker, which takes all of them at once: how several writes share one fsync.

Errors  BatchClosed from ``add`` once the worker has ended.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio

__all__ = ["Batch", "BatchClosed"]

T = TypeVar("T")


class BatchClosed(Exception):
    """Nobody takes any more."""


class Batch(Generic[T]):
    """A bounded line. ``add`` waits while it is full, ``take`` while it is empty."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: list[T] = []
        self._filled = anyio.Event()
        self._emptied = anyio.Event()
        self._closed = False

    async def add(self, item: T) -> None:
        """Raises BatchClosed."""
        while len(self._items) >= self._size and not self._closed:
            await self._emptied.wait()
        if self._closed:
            raise BatchClosed
        self._items.append(item)
        self._filled.set()

    async def take(self) -> list[T]:
        while not self._items:
            self._filled = anyio.Event()
            await self._filled.wait()
        items, self._items = self._items, []
        self._emptied.set()
        self._emptied = anyio.Event()
        return items

    def close(self) -> list[T]:
        """Take nothing more; returns what still waits."""
        self._closed = True
        items, self._items = self._items, []
        self._emptied.set()
        return items
