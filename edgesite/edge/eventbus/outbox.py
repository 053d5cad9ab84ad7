"""What waits to be told to an external broker. One side fills it, the other takes from it, in two threads.

Bounds  ``most`` publications and `BYTES`; beyond, the oldest is dropped and counted: a broker that is away must not fill this device's memory.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["BYTES", "Command", "Outbox"]

BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Command:
    operation: Literal["publish", "subscribe", "unsubscribe"]
    topic: str
    payload: bytes = b""

    @property
    def size(self) -> int:
        return len(self.topic) + len(self.payload)


class Outbox:
    """Commands in order."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.dropped = 0
        self._lock = threading.Lock()  # held for some instructions at a time
        self._waiting: deque[Command] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, command: Command) -> bool:
        """Queue a command; True if it is the only one, so that whoever takes them may be asleep."""
        with self._lock:
            self._waiting.append(command)
            self._size += command.size
            while len(self._waiting) > self.most or self._size > BYTES:
                if not self._drop_oldest():
                    break
            return len(self._waiting) == 1

    def take(self) -> Command | None:
        with self._lock:
            if not self._waiting:
                return None
            command = self._waiting.popleft()
            self._size -= command.size
            return command

    def drop_subscriptions(self) -> None:
        """Whoever connects anew subscribes to all that is wanted then."""
        with self._lock:
            self._waiting = deque(one for one in self._waiting if one.operation == "publish")
            self._size = sum(one.size for one in self._waiting)

    def _drop_oldest(self) -> bool:
        for at, command in enumerate(self._waiting):
            if command.operation == "publish":
                del self._waiting[at]
                self._size -= command.size
                self.dropped += 1
                return True
        return False
