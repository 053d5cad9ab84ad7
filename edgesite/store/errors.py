"""What the store refuses, and why.

StoreError
├── Conflict         the key is not at the revision that the writer expected
├── NotFound         nothing to delete
├── Compacted        that revision is no longer held: list again
├── FutureRevision   that revision does not exist yet
├── Lagged           a watcher read too slowly and was cut off: watch again from the last event
├── WriteFailed      the disk failed; the write is undone in memory and was not acknowledged
├── FormatTooNew     the file was written by a later version of the program
└── StoreClosed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesite.store.rows import Row

__all__ = [
    "Compacted",
    "Conflict",
    "FormatTooNew",
    "FutureRevision",
    "Lagged",
    "NotFound",
    "StoreClosed",
    "StoreError",
    "WriteFailed",
]


class StoreError(Exception):
    """Any failure of the store."""


class Conflict(StoreError):
    """``actual`` is the newest row, with writes under way counted; None if there is none."""

    def __init__(self, key: str, expected: int, actual: Row | None) -> None:
        super().__init__(f"{key} is at revision {actual.revision if actual else 0}, not at {expected}")
        self.key = key
        self.expected = expected
        self.actual = actual


class NotFound(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"{key} does not exist")
        self.key = key


class Compacted(StoreError):
    """``floor`` is the oldest revision that may still be asked for."""

    def __init__(self, asked: int, floor: int) -> None:
        super().__init__(f"revision {asked} is compacted; the oldest one held is {floor}")
        self.asked = asked
        self.floor = floor


class FutureRevision(StoreError):
    """``newest`` is the newest readable revision."""

    def __init__(self, asked: int, newest: int) -> None:
        super().__init__(f"revision {asked} is in the future; the newest one is {newest}")
        self.asked = asked
        self.newest = newest


class Lagged(StoreError):
    def __init__(self, prefix: str, size: int) -> None:
        super().__init__(f"a watch on {prefix} fell more than {size} events behind")


class WriteFailed(StoreError):
    """``__cause__`` is what SQLite said."""


class FormatTooNew(StoreError):
    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(f"{path} has format {found}; this program knows formats up to {known}")


class StoreClosed(StoreError):
    def __init__(self) -> None:
        super().__init__("the store is closed")
