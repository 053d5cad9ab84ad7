"""The last message of each topic that was published to be retained.

Bounds  `count` messages and `size` bytes in all: what is beyond is refused, so that garbage does not push out what is in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgesite.wire.mqtt.messages import Message

__all__ = ["Budget", "Retained"]

_LEVEL: Final = 300
_USUAL: Final = 8
_Node = dict[str, "_Level"]


class _Level:
    __slots__ = ("below", "message")

    def __init__(self) -> None:
        self.below: _Node = {}
        self.message: Message | None = None


class Budget:
    """How many levels may be looked at; filters with many "+" match little and cost much."""

    __slots__ = ("left",)

    def __init__(self, left: int = 1 << 62) -> None:
        self.left = left

    def spend(self) -> bool:
        self.left = max(0, self.left - 1)
        return self.left > 0


class Retained:
    """Messages by topic; found by filter."""

    def __init__(self, count: int, size: int) -> None:
        self._limits = (count, size)
        self._root = _Level()
        self.count = self.size = 0

    def put(self, message: Message) -> bool:
        """Keep a message, or forget its topic's if it has no payload; False if there is no room."""
        if not message.payload:
            self.remove(message.topic)
            return True
        level = self._root
        old = self.get(message.topic)
        freed, size = 0 if old is None else _cost(old), _cost(message)
        if self.size - freed + size > self._limits[1] or (old is None and self.count >= self._limits[0]):
            return False
        for name in message.topic.split("/"):
            below = level.below.get(name)
            if below is None:
                below = level.below[name] = _Level()
            level = below
        level.message = message
        self.count += old is None
        self.size += size - freed
        return True

    def get(self, topic: str) -> Message | None:
        level: _Level | None = self._root
        for name in topic.split("/"):
            level = None if level is None else level.below.get(name)
        return None if level is None else level.message

    def remove(self, topic: str) -> None:
        path: list[tuple[_Level, str]] = []
        level = self._root
        for name in topic.split("/"):
            below = level.below.get(name)
            if below is None:
                return
            path.append((level, name))
            level = below
        if level.message is None:
            return
        self.count -= 1
        self.size -= _cost(level.message)
        level.message = None
        while path and level.message is None and not level.below:
            level, name = path.pop()
            del level.below[name]

    def expired(self, now: float) -> list[Message]:
        return [
            one for one in _all(self._root, False, Budget()) if one.expires_at is not None and one.expires_at <= now
        ]

    def find(self, pattern: str, budget: Budget | None = None) -> Iterator[Message]:
        """Give what matches a filter, as it is at the call; of what ``budget`` allows to be looked at."""
        return iter(list(_found(self._root, pattern.split("/"), 0, budget or Budget())))


def _cost(message: Message) -> int:
    """Bytes of memory, with the levels of the tree that it is alone in, if it has many."""
    return message.size + _LEVEL * max(0, message.topic.count("/") - _USUAL)


def _found(level: _Level, wanted: list[str], at: int, budget: Budget) -> Iterator[Message]:
    if not budget.spend():
        return
    if at == len(wanted):
        if level.message is not None:
            yield level.message
        return
    name = wanted[at]
    if name == "#":
        yield from _all(level, at == 0, budget)
    elif name == "+":
        for text, below in level.below.items():
            if at or not text.startswith("$"):
                yield from _found(below, wanted, at + 1, budget)
    elif (child := level.below.get(name)) is not None:
        yield from _found(child, wanted, at + 1, budget)


def _all(level: _Level, is_top: bool, budget: Budget) -> Iterator[Message]:
    if not budget.spend():
        return
    if level.message is not None:
        yield level.message
    for text, below in level.below.items():
        if not is_top or not text.startswith("$"):
            yield from _all(below, False, budget)
