"""One line on the terminal that tells how far a run is; on a file, a line now and then."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["Progress"]

_LIVE_S: Final = 0.2
_LINES_S: Final = 5.0


class Progress:
    def __init__(self, clock: Clock, out: TextIO = sys.stderr) -> None:
        self._clock = clock
        self._out = out
        self._live = out.isatty()
        self._shown_at = float("-inf")
        self._open = False

    def show(self, what: str) -> None:
        """Tell, if the last time is long enough ago."""
        now = self._clock.monotonic()
        if now - self._shown_at < (_LIVE_S if self._live else _LINES_S):
            return
        self._shown_at = now
        if self._live:
            self._open = True
            self._out.write(f"\r\x1b[K{what}")
        else:
            self._out.write(f"{what}\n")
        self._out.flush()

    def done(self, what: str) -> None:
        """Tell for good."""
        self._out.write(f"\r\x1b[K{what}\n" if self._live else f"{what}\n")
        self._out.flush()
        self._open = False
        self._shown_at = float("-inf")
