"""Items that wait for one worker, which takes all of them at once: how several writes share one fsync."""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio

__all__ = ["Batch"]

T = TypeVar("T")


class Batch(Generic[T]):
    """A bounded line. ``add`` waits while it is full, ``take`` while it is empty."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: list[T] = []
        self._filled = anyio.Event()
        self._emptied = anyio.Event()

    async def add(self, item: T) -> None:
        while len(self._items) >= self._size:
            await self._emptied.wait()
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
