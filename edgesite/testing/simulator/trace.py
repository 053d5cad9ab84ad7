"""What happened in a world, line by line, and the hash of it all: two runs of one seed must have the same."""

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


class Trace(logging.Handler):
    """Call it with a line. As a logging handler it takes log records in."""

    def __init__(self, now: Callable[[], float], *, echo: bool = False) -> None:
        super().__init__()
        self.lines = 0
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._hash = hashlib.blake2b(digest_size=16)
        self._now, self._echo = now, echo

    def __call__(self, text: str) -> None:
        line = f"{self._now():12.6f} {text}"
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
        if self._echo and record.exc_info:
            sys.stdout.write(logging.Formatter().formatException(record.exc_info) + "\n")

    def digest(self) -> str:
        return self._hash.hexdigest()
