"""The message bus of one role: modules send to a module or to a group, or call and wait for the answer.

Bounds  Each inbox holds ``size`` messages; senders wait when it is full, so a slow module slows its senders and loses nothing.
        One that takes nothing at all for `STUCK_S` is put off the bus, so that it stops nobody else.
Source  KubeEdge v1.12, its package beehive (routing by module and group; answers matched by parent id).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from edgesite.wire.message import Message

__all__ = ["LocalBus"]

logger = logging.getLogger(__name__)
STUCK_S: Final = 60.0
_BURST: Final = 16  #: messages that a module takes in one turn of the loop


class _Inbox:
    def __init__(self, bus: LocalBus, module: str, group: str, size: int) -> None:
        self.module, self.group = module, group
        self._bus = bus
        self._left = 0  # of the burst
        self.sender: MemoryObjectSendStream[Message]
        self._receiver: MemoryObjectReceiveStream[Message]
        self.sender, self._receiver = anyio.create_memory_object_stream(size)

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def receive(self) -> Message:
        # A turn of the loop for each message would be slow where turns are long, as when thousands of nodes shake hands.
        if self._left:
            self._left -= 1
            with contextlib.suppress(anyio.WouldBlock):
                return self._receiver.receive_nowait()
        self._left = _BURST
        return await self._receiver.receive()

    def close(self) -> None:
        self._bus.leave(self)
        self.sender.close()
        self._receiver.close()


class _Waiter:
    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.answer: Message | None = None


class LocalBus:
    """Implements `edgesite.context.Bus`."""

    def __init__(self) -> None:
        self._by_module: dict[str, _Inbox] = {}
        self._waiters: dict[str, _Waiter] = {}

    def join(self, module: str, group: str, *, size: int = 1024) -> _Inbox:
        """Raises ValueError when a module of that name has joined already."""
        if module in self._by_module:
            raise ValueError(f"module {module} has joined the bus already")
        inbox = self._by_module[module] = _Inbox(self, module, group, size)
        return inbox

    def leave(self, inbox: _Inbox) -> None:
        if self._by_module.get(inbox.module) is inbox:
            del self._by_module[inbox.module]

    async def send(self, module: str, message: Message) -> None:
        inbox = self._by_module.get(module)
        if inbox is None:
            raise LookupError(
                f"no module {module!r} on the bus; there are {', '.join(sorted(self._by_module)) or 'none'}"
            )
        await _deliver(inbox, message)

    async def send_group(self, group: str, message: Message) -> None:
        for inbox in [one for one in self._by_module.values() if one.group == group]:
            await _deliver(inbox, message)

    async def call(self, module: str, message: Message, *, timeout_s: float = 30.0) -> Message:
        waiter = self._waiters[message.msg_id] = _Waiter()
        try:
            with anyio.fail_after(timeout_s):
                await self.send(module, message)
                await waiter.answered.wait()
        finally:
            del self._waiters[message.msg_id]
        assert waiter.answer is not None
        return waiter.answer

    def respond(self, message: Message) -> bool:
        waiter = self._waiters.get(message.parent_msg_id)
        if waiter is None or waiter.answer is not None:
            return False
        waiter.answer = message
        waiter.answered.set()
        return True


async def _deliver(inbox: _Inbox, message: Message) -> None:
    try:
        try:
            inbox.sender.send_nowait(message)
        except anyio.WouldBlock:
            with anyio.fail_after(STUCK_S):
                await inbox.sender.send(message)
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):
        return  # the module left meanwhile: as if it had not joined
    except TimeoutError:
        logger.error("module %s has taken no message for %.0f s and is put off the bus", inbox.module, STUCK_S)
        inbox.close()  # whoever reads there next fails, and is restarted by the supervisor
