"""What a command says while it works: numbered steps on a terminal, nothing but results and warnings in a pipe."""

from __future__ import annotations

import sys
from typing import TextIO

__all__ = ["Progress"]


class Progress:
    """Results go to standard output, the rest to standard error."""

    def __init__(self, *, dry_run: bool = False, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._shows = dry_run or self._err.isatty()
        self._count = 0
        self.dry_run = dry_run

    def step(self, text: str) -> None:
        """A step that begins now; with ``--dry-run`` one that would."""
        self._count += 1
        if self._shows:
            print(
                f"{self._count}. {'would ' if self.dry_run else ''}{text}",
                file=self._out if self.dry_run else self._err,
                flush=True,
            )

    def note(self, text: str) -> None:
        """Good to know; only on a terminal."""
        if self._shows and not self.dry_run:
            print(f"   {text}", file=self._err, flush=True)

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=self._err, flush=True)

    def say(self, text: str) -> None:
        """A result, for people and scripts."""
        print(text, file=self._out, flush=True)
