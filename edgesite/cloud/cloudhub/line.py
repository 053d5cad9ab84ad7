"""Messages of edges on their way to the cloud's modules, in the order in which they came.

Renewals of leases have a line of their own: behind the requests of thousands of nodes that join they would come so late that nodes
which are well count as lost.

State   Bounded by each node's share: who has `SHARE` messages in the lines is not read from until they are fewer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.wire import resource
from edgesite.wire.message import Message, Operation
from edgesite.wire.renewal import RENEW

if TYPE_CHECKING:
    from edgesite.cloud.cloudhub.connection import NodeConnection

__all__ = ["SHARE", "Line", "is_renewal"]

SHARE: Final = 256  #: messages of one node
_RENEWALS: Final = frozenset({Operation.UPDATE.value, RENEW})


def is_renewal(message: Message) -> bool:
    """Whether it renews a lease."""
    return message.operation in _RENEWALS and resource.parse(message.resource).type == "lease"


class Line:
    """``pass_on`` is called with one message after the other, and who sent it: None for the hub itself."""

    def __init__(self, pass_on: Callable[[NodeConnection | None, Message], Awaitable[None]]) -> None:
        self._pass_on = pass_on
        self._waiting: deque[tuple[NodeConnection | None, Message]] = deque()
        self._filled = anyio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, connection: NodeConnection | None, message: Message) -> None:
        self._waiting.append((connection, message))
        self._filled.set()
        if connection is None:
            return
        connection.waiting_upstream += 1
        if connection.waiting_upstream >= SHARE:
            connection.hold(True)

    async def run(self) -> None:
        """Pass on what comes, until cancelled."""
        while True:
            if not self._waiting:
                self._filled = anyio.Event()
                await self._filled.wait()
            connection, message = self._waiting.popleft()
            if connection is not None:
                connection.waiting_upstream -= 1
                if connection.waiting_upstream < SHARE // 4:
                    connection.hold(False)
            await self._pass_on(connection, message)
