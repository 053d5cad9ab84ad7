"""Tar archives that depend on nothing but the files: sorted, without owners, every time the same.

Errors  OSError.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

__all__ = ["pack", "settle"]


def pack(folder: Path, time: int, prefix: str = "") -> bytes:
    """Return a folder as a ustar archive; its names begin with ``prefix``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in _sorted(folder):
            entry = archive.gettarinfo(path, prefix + str(path.relative_to(folder)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = time
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            if entry.issym():
                entry.mode = 0o777
            if entry.isreg():
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)
    return out.getvalue()


def settle(folder: Path, time: int) -> None:
    """Give all files of a folder one time and plain rights, as the archive has them."""
    for path in [*_sorted(folder), folder]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (time, time), follow_symlinks=False)


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)
