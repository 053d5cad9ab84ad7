"""Replacing a small file so that a crash or a power cut leaves the old one or the new one, whole. Blocking.

Errors  OSError.
Source  rename(2), fsync(2): a rename is lost with its folder's last write unless that is synced, too.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["replace_file"]


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put ``data`` where ``path`` is; its folder is there. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    with open(fresh, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
