"""`Rows`: the edge's database for modules that keep tables of their own in it. Provided by module ``metamanager``.

One connection writes for all: what several want to write at the same moment shares a transaction and its fsync.

Errors  StoreError when the disk refuses: then nothing of the call has happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from edgesite.edge.metamanager.database import Statement

__all__ = ["Rows", "Statement"]


class Rows(Protocol):
    async def write(self, statements: Sequence[Statement]) -> None:
        """Run statements in one transaction; on return they are durable. A statement has the values of one row, or a list of
        rows. One that SQLite does not take takes the other callers' with it: make tables with IF NOT EXISTS, insert with REPLACE."""
        ...

    async def query(self, sql: str, values: tuple[Any, ...] = ()) -> Sequence[tuple[Any, ...]]:
        """Return all rows: ask for a bounded number."""
        ...
