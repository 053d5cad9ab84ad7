"""How a watched device is shown: a picture that is redrawn on a terminal, a line for each change in a pipe.

Errors  BrokenPipeError when nobody reads.
State   The last `POINTS` numbers of each property, for its curve.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol, TextIO

from edgesite.cli.device.values import Change, Seen
from edgesite.kube import json

__all__ = ["Lines", "Screen", "View", "curve"]

POINTS: Final = 40
_BARS: Final = "▁▂▃▄▅▆▇█"


class View(Protocol):
    """Shows what the watcher has found. ``at`` is RFC 3339."""

    def show(self, at: str, name: str, now: Seen, changes: Sequence[Change]) -> None: ...


class Lines:
    """A line for each change: time, device, property, what, value; or the same as JSON."""

    def __init__(self, out: TextIO, *, as_json: bool = False) -> None:
        self._out, self._as_json = out, as_json

    def show(self, at: str, name: str, now: Seen, changes: Sequence[Change]) -> None:
        for one in changes:
            if self._as_json:
                said: dict[str, Any] = {"time": at, "device": name, "what": one.what, "value": one.value}
                if one.property:
                    said["property"] = one.property
                self._out.write(json.dumps(said).decode() + "\n")
            else:
                self._out.write(f"{at} {name} {one.property or '-'} {one.what} {one.value or '-'}\n")
        self._out.flush()


class Screen:
    """A table that stays in its place, with a curve of each number."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._curves: dict[str, deque[float]] = {}
        self._drawn = 0

    def show(self, at: str, name: str, now: Seen, changes: Sequence[Change]) -> None:
        for one in changes:
            if one.what == "reported":
                self._remember(one)
        width, height = shutil.get_terminal_size()
        lines = [line[: width - 1] for line in self._lines(at, name, now)][: height - 1]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out.write(_drawing(up, lines))
        self._out.flush()
        self._drawn = len(lines)

    def _remember(self, one: Change) -> None:
        try:
            value = float(one.value)
        except ValueError:
            return
        if math.isfinite(value):
            self._curves.setdefault(one.property, deque(maxlen=POINTS)).append(value)

    def _lines(self, at: str, name: str, now: Seen) -> list[str]:
        rows = [("PROPERTY", "DESIRED", "REPORTED", "")]
        for one in now.properties:
            points = self._curves.get(one, ())
            rows.append((one, now.desired.get(one, "") or "-", now.reported.get(one, "") or "-", curve(points)))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        table = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
        ]
        head = f"{name}  {now.state or 'unknown'}  model {now.model or '-'}  node {now.node or '-'}  {at}"
        return [head, "", *(line.rstrip() for line in table), "", "Ctrl-C ends."]


def _drawing(up: str, lines: Sequence[str]) -> str:
    return up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J"


def curve(points: Sequence[float] | deque[float]) -> str:
    """The points as bars between the least and the greatest of them; "" for fewer than two."""
    if len(points) < 2:
        return ""
    low, high = min(points), max(points)
    if high == low:
        return _BARS[0] * len(points)
    return "".join(_BARS[min(int((one - low) / (high - low) * len(_BARS)), len(_BARS) - 1)] for one in points)
