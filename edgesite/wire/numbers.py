"""Numbers of messages that must be acknowledged, so that one number acknowledges many (between two ends of ours).

The sender numbers messages in the order in which they first leave; a repetition keeps its number. The receiver tells ``upto``,
up to which everything is stored, and the few ``more`` beyond it that are stored too. The sender tells its ``floor``, below which
nothing is outstanding: what it has given up leaves no gap for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["Outstanding", "Stored"]

_MORE: Final = 64  #: told in one frame


class Outstanding:
    """The sender's side."""

    __slots__ = ("_by_id", "_by_number", "_last")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_number: dict[int, str] = {}  # in order
        self._last = 0

    def number(self, msg_id: str) -> int:
        """The number of a message that leaves."""
        known = self._by_id.get(msg_id)
        if known is not None:
            return known
        self._last += 1
        self._by_id[msg_id] = self._last
        self._by_number[self._last] = msg_id
        return self._last

    def drop(self, msg_id: str) -> None:
        """It is acknowledged, or given up."""
        number = self._by_id.pop(msg_id, None)
        if number is not None:
            del self._by_number[number]

    @property
    def floor(self) -> int:
        """The lowest number that is outstanding, or the next one."""
        return next(iter(self._by_number), self._last + 1)

    def acknowledged(self, upto: int, more: Iterable[int]) -> list[str]:
        """The messages that the peer has stored; they are outstanding until dropped."""
        found: list[str] = []
        for number, msg_id in self._by_number.items():
            if number > upto:
                break
            found.append(msg_id)
        beyond = (self._by_number.get(number) for number in more if number > upto)
        found.extend(one for one in beyond if one is not None)
        return found


class Stored:
    """The receiver's side."""

    __slots__ = ("_beyond", "_waiting", "is_news", "upto")

    def __init__(self) -> None:
        self.upto = 0
        self.is_news = False  #: there is something to tell
        self._beyond: set[int] = set()
        self._waiting: dict[str, int] = {}  # msg_id -> number

    def came(self, msg_id: str, number: int) -> None:
        """A numbered message came; if it is stored already, that is told again."""
        if number <= self.upto or number in self._beyond:
            self.is_news = True
        else:
            self._waiting[msg_id] = number

    def is_waiting(self, msg_id: str) -> bool:
        return msg_id in self._waiting

    def stored(self, msg_id: str) -> bool:
        """Note that a message is stored; False if it had no number."""
        number = self._waiting.pop(msg_id, None)
        if number is None:
            return False
        self._beyond.add(number)
        self._advance()
        self.is_news = True
        return True

    def floor(self, floor: int) -> None:
        """The sender has nothing outstanding below this."""
        if floor - 1 > self.upto:
            self.upto = floor - 1
            self._beyond = {one for one in self._beyond if one > self.upto}
            self._waiting = {msg_id: number for msg_id, number in self._waiting.items() if number > self.upto}
        self._advance()

    def _advance(self) -> None:
        while self.upto + 1 in self._beyond:
            self.upto += 1
            self._beyond.discard(self.upto)

    def more(self) -> list[int]:
        return sorted(self._beyond)[:_MORE]
