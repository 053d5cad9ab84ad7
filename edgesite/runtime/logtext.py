"""Log records as lines: text for people, JSON for machines."""

from __future__ import annotations

import json
import logging
import time

__all__ = ["Json", "Text", "one_line"]


class Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        node = getattr(record, "node", "")
        name = record.name.removeprefix("edgesite.")
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{stamp}.{int(record.msecs):03d} {record.levelname[0]} {f'{node}/' if node else ''}{name}: {one_line(record.getMessage())}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def one_line(text: str) -> str:
    """Names from outside may hold line ends; they must not look like lines of ours."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


class Json(logging.Formatter):
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
