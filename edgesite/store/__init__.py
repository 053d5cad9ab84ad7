"""Revisioned key-value store on SQLite: group commit, watch cache, compaction.

`Store` is the whole interface; start reading in ``store.py``. Everything is read from memory, in which all rows live
(`history` orders them and holds recent events); `commit` groups writes and `log` alone touches the disk, in a thread.
"""

from edgesite.store.errors import (
    Compacted,
    Conflict,
    FormatTooNew,
    FutureRevision,
    Lagged,
    NotFound,
    StoreClosed,
    StoreError,
    WriteFailed,
)
from edgesite.store.rows import Event, EventType, Page, Row
from edgesite.store.store import Limits, Store
from edgesite.store.watch import Watch

__all__ = [
    "Compacted",
    "Conflict",
    "Event",
    "EventType",
    "FormatTooNew",
    "FutureRevision",
    "Lagged",
    "Limits",
    "NotFound",
    "Page",
    "Row",
    "Store",
    "StoreClosed",
    "StoreError",
    "Watch",
    "WriteFailed",
]
