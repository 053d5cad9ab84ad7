"""What ends a command of keadm."""

from __future__ import annotations

__all__ = ["KeadmError"]


class KeadmError(Exception):
    """The command failed; the message says why, and what would help. Exit code 1."""
