"""What happened in a world, line by line, and the hash of it all: two runs of one seed must have the same.

Log records are lines too; one with an exception that can only be a bug fails the world.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import deque
from collections.abc import Callable
from typing import Final

from edgesite.testing.simulator.loop import PROCESS

__all__ = ["Trace"]

KEPT_LINES: Final = 200  #: The last ones are shown with a failure.
#: No fault of the world explains these: a module that logs one has a bug.
BUGS: Final = (
    TypeError,
    AttributeError,
    NameError,
    KeyError,
    IndexError,
    AssertionError,
    ArithmeticError,
    RecursionError,
)


class Trace(logging.Handler):
    """Call it with a line. As a logging handler it takes log records in."""

    def __init__(
        self, now: Callable[[], float], on_bug: Callable[[BaseException], None], root: str, *, echo: bool = False
    ) -> None:
        """``root`` is the folder of this run: lines show it as "~", for its name differs from run to run."""
        super().__init__()
        self._root = root
        self.lines = 0
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._hash = hashlib.blake2b(digest_size=16)
        self._now, self._on_bug, self._echo = now, on_bug, echo

    def __call__(self, text: str) -> None:
        line = f"{self._now():12.6f} {text}".replace(self._root, "~")
        self._hash.update(line.encode("utf-8", "backslashreplace"))
        self.last.append(line)
        self.lines += 1
        if self._echo:
            sys.stdout.write(line + "\n")

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" [{type(record.exc_info[1]).__name__}: {record.exc_info[1]}]"
        self(f"log {PROCESS.get()} {record.levelname} {record.name} {text}")
        if record.exc_info and (bug := _bug_in(record.exc_info[1])) is not None:
            self._on_bug(bug)
        if self._echo and record.exc_info:
            sys.stdout.write(logging.Formatter().formatException(record.exc_info) + "\n")

    def digest(self) -> str:
        return self._hash.hexdigest()


def _bug_in(error: BaseException | None) -> BaseException | None:
    """An exception that no fault of the world explains, looked for in groups too."""
    if isinstance(error, BaseExceptionGroup):
        return next((bug for bug in map(_bug_in, error.exceptions) if bug is not None), None)
    return error if isinstance(error, BUGS) else None
