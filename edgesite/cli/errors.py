"""Errors of the command line."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["UsageError"]


class UsageError(Exception):
    """Bad usage or configuration: printed line by line, exit code 2."""

    def __init__(self, *lines: str | Sequence[str]) -> None:
        self.lines = [text for one in lines for text in ([one] if isinstance(one, str) else one)]
        super().__init__("; ".join(self.lines))
