"""When queued messages are written: those for one node that come together leave in one frame.

A node that is quiet gets its messages in the turn of the loop in which they were queued. While objects are on their way to it, further
ones wait a moment for company, or for its acknowledgement: under load a frame, its compression and its TLS record then
carry many. Nothing else waits: deletes, answers and keepalives leave at once.

Units   Seconds.
State   Which connections have something queued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from edgesite.cloud.cloudhub.connection import NodeConnection
    from edgesite.context import Clock

__all__ = ["Outlet"]

_GATHER_S: Final = 0.02
_TURN: Final = 64  #: connections written to before others get their turn of the loop


class Outlet:
    """``run`` writes for all connections that were added, until cancelled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._filled: dict[NodeConnection, None] = {}  # in this turn of the loop
        self._gathering: dict[NodeConnection, None] = {}
        self._is_filled = anyio.Event()
        self._is_gathering = anyio.Event()

    def add(self, connection: NodeConnection) -> None:
        """It has something queued."""
        self._filled[connection] = None
        self._is_filled.set()

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write_gathered)
            while True:
                self._is_filled = anyio.Event()
                await self._is_filled.wait()
                while self._filled:
                    filled, self._filled = self._filled, {}
                    for connection in filled:
                        if connection.may_gather:
                            self._gathering[connection] = None
                        else:
                            connection.settle()
                    if self._gathering:
                        self._is_gathering.set()
                    await anyio.lowlevel.checkpoint()

    async def _write_gathered(self) -> None:
        while True:
            self._is_gathering = anyio.Event()
            await self._is_gathering.wait()
            await self._clock.sleep(_GATHER_S)
            gathered, self._gathering = self._gathering, {}
            for at, connection in enumerate(gathered, 1):
                connection.settle()
                if at % _TURN == 0:
                    await anyio.lowlevel.checkpoint()
