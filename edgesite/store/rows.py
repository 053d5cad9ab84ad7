"""Rows, pages and events: the values that the store hands out. All of them are shared, none may be changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

__all__ = ["Event", "EventType", "Page", "Row"]


class Row(msgspec.Struct, frozen=True, gc=False):
    """One version of one key. ``gc=False``: rows never form cycles, and the collector need not visit each of them."""

    key: str
    value: bytes
    revision: int  #: of the write that made this version
    created: int  #: revision at which the key came into being
    attrs: Any = None  #: whatever the writer indexed; not on disk, made again by ``index`` when the store is opened


class Page(msgspec.Struct, frozen=True):
    """Part of a list, all of it as it was at ``revision``."""

    rows: list[Row]
    revision: int
    next_key: str | None  #: ``after`` of the next page; None on the last one
    remaining: int  #: rows behind this page


class EventType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Event:
    """One change. All watchers of it share one event.

    ``row`` of a deletion is the last state at the deletion's revision; ``previous`` is the version before, None for ADDED.
    ``memo`` is for an encoding that watchers share; the store forgets it when the event is no longer among the newest.
    """

    __slots__ = ("memo", "previous", "row", "type")

    def __init__(self, type: EventType, row: Row, previous: Row | None) -> None:
        self.type = type
        self.row = row
        self.previous = previous
        self.memo: Any = None

    @property
    def revision(self) -> int:
        return self.row.revision

    def __repr__(self) -> str:
        return f"Event({self.type.value}, {self.row.key}@{self.row.revision})"
