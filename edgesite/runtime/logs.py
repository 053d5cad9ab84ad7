"""Log output: text for people, JSON for machines. Standard logging underneath; both go to standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final

__all__ = ["configure"]

_LEVELS: Final = (logging.INFO, logging.DEBUG)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        node = getattr(record, "node", "")
        name = record.name.removeprefix("edgesite.")
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{stamp}.{int(record.msecs):03d} {record.levelname[0]} {f'{node}/' if node else ''}{name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


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


def configure(*, form: str, verbosity: int, quiet: bool = False) -> None:
    """Set up logging of this process. ``form`` is "text" or "json"; ``quiet`` shows warnings and errors only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    level = logging.WARNING if quiet else _LEVELS[min(verbosity // 2, 1)]
    logging.getLogger("edgesite").setLevel(level)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
