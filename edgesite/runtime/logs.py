"""Log output: text for people, JSON for machines. Standard logging underneath; both go to standard error.

A reader that does not read never stops the site: lines wait in a bounded queue for a thread that writes them, and beyond the
bound they are dropped and counted; the count is told as soon as somebody reads again.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from typing import Final

__all__ = ["QueuedHandler", "configure"]

_MOST_LINES: Final = 8192
_FAREWELL_S: Final = 1.0  #: at the end of the process, for what still waits
_LEVELS: Final = (logging.INFO, logging.DEBUG)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        node = getattr(record, "node", "")
        name = record.name.removeprefix("edgesite.")
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{stamp}.{int(record.msecs):03d} {record.levelname[0]} {f'{node}/' if node else ''}{name}: {_one_line(record.getMessage())}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _one_line(text: str) -> str:
    """Names from outside may hold line ends; they must not look like lines of ours."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "ts": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if node := getattr(record, "node", ""):
            entry["node"] = node
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class QueuedHandler(logging.Handler):
    """Writes to a file descriptor from a thread of its own; `emit` never waits."""

    def __init__(self, fd: int, most_lines: int = _MOST_LINES) -> None:
        super().__init__()
        self._fd = fd
        self._most = most_lines
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() >= self._most:
            self._dropped += 1
            return
        self._lines.put((self.format(record) + "\n").encode(errors="backslashreplace"))

    def close(self) -> None:
        """Write what waits, as far as the reader takes it in a second."""
        if self._thread.is_alive():
            self._lines.put(None)
            self._thread.join(_FAREWELL_S)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                line += f"{dropped} lines of the log were dropped: nobody read them in time\n".encode()
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError:
                return  # nobody will ever read it


def configure(*, form: str, verbosity: int, quiet: bool = False) -> None:
    """Set up logging of this process. ``form`` is "text" or "json"; ``quiet`` shows warnings and errors only."""
    handler = QueuedHandler(sys.stderr.fileno())
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level = logging.WARNING if quiet else _LEVELS[min(verbosity // 2, 1)]
    logging.getLogger("edgesite").setLevel(level)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
