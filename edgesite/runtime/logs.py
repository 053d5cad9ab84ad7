"""Log output: text for people, JSON for machines, fields for the journal. Standard logging underneath.

A reader that does not read never stops the site: entries wait in a bounded queue for a thread that writes them, and beyond the
bound they are dropped and counted; the count is told as soon as somebody reads again.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

from edgesite.runtime import journal, logtext

__all__ = ["JournalHandler", "QueuedHandler", "configure", "set_levels"]

_MOST_LINES: Final = 8192
_FAREWELL_S: Final = 1.0  #: at the end of the process, for what still waits
_LEVELS: Final = (logging.INFO, logging.DEBUG)
_RETRIES_S: Final = (0.05, 0.2, 1.0, 3.0)  #: while the journal restarts; the queue holds what comes meanwhile
#: Where a module's loggers may be: its own, and those of the files of its package.
_PLACES: Final = ("edgesite", "edgesite.edge", "edgesite.cloud", "edgesite.controlplane")


class QueuedHandler(logging.Handler):
    """Writes lines to a file descriptor from a thread of its own; `emit` never waits."""

    def __init__(self, fd: int, most_lines: int = _MOST_LINES) -> None:
        super().__init__()
        self._fd = fd
        self._most = most_lines
        self._entries: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._dropped = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._entries.qsize() >= self._most:
            self._dropped += 1
            return
        self._entries.put(self._encode(record))

    def close(self) -> None:
        """Write what waits, as far as the reader takes it in a second."""
        if self._thread.is_alive():
            self._closing.set()
            self._entries.put(None)
            self._thread.join(_FAREWELL_S)
        super().close()

    def _encode(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode(errors="backslashreplace")

    def _deliver(self, entry: bytes) -> bool:
        """Called in the thread; False when this entry is lost. Raises OSError when nobody will ever read."""
        while entry:
            entry = entry[os.write(self._fd, entry) :]
        return True

    def _write(self) -> None:
        try:
            while (entry := self._entries.get()) is not None:
                if not self._deliver(entry):
                    self._dropped += 1
                elif (dropped := self._dropped) and self._deliver(self._confess(dropped)):
                    self._dropped -= dropped
        except OSError:
            return

    def _confess(self, dropped: int) -> bytes:
        return f"{dropped} lines of the log were dropped: nobody read them in time\n".encode()


class JournalHandler(QueuedHandler):
    """Sends entries with fields to the journal; waits some seconds for one that is being restarted."""

    def __init__(self, target: journal.Journal, identifier: str, most_lines: int = _MOST_LINES) -> None:
        self._target, self._identifier = target, identifier
        super().__init__(-1, most_lines)

    def _encode(self, record: logging.LogRecord) -> bytes:
        return journal.serialise(journal.fields_of(record, self._identifier))

    def _deliver(self, entry: bytes) -> bool:
        for delay_s in _RETRIES_S:
            try:
                self._target.send(entry)
                return True
            except OSError:
                if self._closing.wait(delay_s):
                    break
        return False

    def _write(self) -> None:
        super()._write()
        self._target.close()

    def _confess(self, dropped: int) -> bytes:
        text = super()._confess(dropped).decode().rstrip()
        fields = {"MESSAGE": text, "PRIORITY": "4", "SYSLOG_IDENTIFIER": self._identifier, "MODULE": "runtime"}
        return journal.serialise(fields)


def configure(*, form: str | None, verbosity: int, quiet: bool = False, identifier: str = "edgesite") -> None:
    """Set up logging of this process. ``form`` is "text", "json" or "journal"; None is "journal" where standard error leads
    there, else "text". ``quiet`` shows warnings and errors only."""
    handler = _handler(form, sys.stderr.fileno(), identifier)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level = logging.WARNING if quiet else _level(verbosity)
    logging.getLogger("edgesite").setLevel(level)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _handler(form: str | None, fd: int, identifier: str) -> logging.Handler:
    if form == "journal" or (form is None and journal.is_stream(fd, os.environ)):
        try:
            return JournalHandler(journal.Journal(), identifier)
        except OSError:
            form = "text"
    handler = QueuedHandler(fd)
    handler.setFormatter(logtext.Json() if form == "json" else logtext.Text())
    return handler


def set_levels(verbosity: int | None, levels: Mapping[str, Any]) -> None:
    """Make the levels of modules these, and the others' as before any; ``verbosity`` None leaves the general one as it is."""
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("edgesite."):
            logging.getLogger(name).setLevel(logging.NOTSET)
    if verbosity is not None:
        logging.getLogger("edgesite").setLevel(_level(verbosity))
    for module, level in levels.items():
        for place in _PLACES:
            logging.getLogger(f"{place}.{module}").setLevel(str(level).upper())


def _level(verbosity: int) -> int:
    return _LEVELS[min(verbosity // 2, 1)]
