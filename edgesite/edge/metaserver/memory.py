"""Memory that large answers have passed through, given back to the system soon after.

A list is in memory several times on its way: as it came, to be written down, to be sent. Freed, it stays with the C library and with SQLite's
cache, on a node for ever, unless it is given back.

Units   Bytes, seconds.
Errors  None leave but cancellation.
State   How much has passed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.metamanager.store import StoreError
from edgesite.net.tls import trim_allocator

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.edge.metamanager.replica import Replica

__all__ = ["Memory"]

LARGE: Final = 64 * 1024  #: answers below leave no holes that others do not fill
ENOUGH: Final = 1024 * 1024
AFTER_S: Final = 1.5  #: until then it is written down
PAUSE_S: Final = 5.0


class Memory:
    """`run` gives back what `passed` has told of."""

    def __init__(self, ctx: Context, replica: Replica) -> None:
        self._ctx = ctx
        self._replica = replica
        self._size = 0
        self._enough = anyio.Event()

    def passed(self, size: int) -> None:
        """An answer of this size was here."""
        if size >= LARGE:
            self._size += size
            if self._size >= ENOUGH:
                self._enough.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._enough.wait()
            await self._ctx.clock.sleep(AFTER_S)
            self._size, self._enough = 0, anyio.Event()
            try:
                await self._replica.give_back()
            except StoreError as exc:
                self._ctx.log.debug("the database keeps its memory: %s", exc)
            await self._ctx.threads.run(trim_allocator)
            await self._ctx.clock.sleep(PAUSE_S)
