"""Publications of MQTT clients on their way to DeviceTwin and to the cloud.

While there is no link, publications for the cloud wait here, and arrive afterwards; KubeEdge loses them.

Bounds  `COUNT` publications and `BYTES` in each queue: the broker then reads its clients no more until there is room, so nothing is lost here. But
        of those that wait for a link the oldest are dropped, and counted: an outage of the cloud must not stop the site.
Source  KubeEdge v1.12.7, edge/pkg/eventbus/mqtt (messages to group twin and to group hub).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.edge.eventbus.topics import belongs_to_twin, resource_of
from edgesite.wire.message import Message, MessageMaker, Operation

if TYPE_CHECKING:
    from edgesite.context import Bus

__all__ = ["Incoming"]

COUNT: Final = 4096
BYTES: Final = 16 << 20
_TURN: Final = 64  #: publications that are taken before others have their turn


def _size(topic: str, payload: bytes) -> int:
    return len(topic) + len(payload)


class _Queue:
    """Publications for one group of the bus."""

    def __init__(self, group: str, make: Callable[[str, bytes], Message]) -> None:
        self.group = group
        self.make = make
        self.waiting: deque[tuple[str, bytes]] = deque()
        self.size = 0
        self.came = anyio.Event()
        self.open = anyio.Event()
        self.open.set()

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= COUNT or self.size >= BYTES


class Incoming:
    """Takes publications without waiting; hands them on in order, those of the cloud not behind those of DeviceTwin."""

    def __init__(self, bus: Bus, maker: MessageMaker) -> None:
        self._bus, self._maker = bus, maker
        self._twin = _Queue("twin", self._for_twin)
        self._cloud = _Queue("hub", self._for_cloud)
        self._room = anyio.Event()
        self._filled = False
        self.dropped = 0
        self.on_room: Callable[[], None] = lambda: None

    @property
    def is_full(self) -> bool:
        return self._twin.is_full or (self._cloud.is_full and self._cloud.open.is_set())

    def set_linked(self, is_linked: bool) -> None:
        """Whether the cloud can be reached."""
        if not is_linked and self._cloud.open.is_set():
            self._cloud.open = anyio.Event()
        elif is_linked:
            self._cloud.open.set()

    def put(self, topic: str, payload: bytes) -> None:
        """Take a publication, also where it is full: whoever gives many looks at `is_full`."""
        queue = self._twin if belongs_to_twin(topic) else self._cloud
        while queue.is_full and not queue.open.is_set():
            queue.size -= _size(*queue.waiting.popleft())
            self.dropped += 1
        queue.waiting.append((topic, payload))
        queue.size += _size(topic, payload)
        self._filled = self._filled or queue.is_full
        if len(queue.waiting) == 1:
            queue.came.set()

    async def run(self) -> None:
        """Hand on until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hand_on, self._twin)
            tasks.start_soon(self._hand_on, self._cloud)

    async def wait_for_room(self) -> None:
        """Wait as long as it is full."""
        while self.is_full:
            self._room = anyio.Event()
            await self._room.wait()

    async def _hand_on(self, queue: _Queue) -> None:
        while True:
            queue.came = anyio.Event()
            if not queue.waiting:
                await queue.came.wait()
            await queue.open.wait()
            for _ in range(min(_TURN, len(queue.waiting))):
                topic, payload = queue.waiting.popleft()
                queue.size -= _size(topic, payload)
                await self._bus.send_group(queue.group, queue.make(topic, payload))
            if self._filled and not self.is_full:
                self._filled = False
                self._room.set()
                self.on_room()

    def _for_twin(self, topic: str, payload: bytes) -> Message:
        return self._maker.make("bus", "user", Operation.RESPONSE, resource_of(topic), payload)

    def _for_cloud(self, topic: str, payload: bytes) -> Message:
        return self._maker.make("bus", "user", Operation.UPLOAD, topic, payload.decode("utf-8", "replace"))
