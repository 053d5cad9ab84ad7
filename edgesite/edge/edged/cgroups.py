"""Removing the cgroup that held a pod's containers: the runtime made it on the way to theirs and leaves it behind.

Blocking: call it in a thread.

Source  cgroups(7): one hierarchy at the root with version 2, one for each controller with version 1.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["remove_cgroup"]

ROOT: Final = Path("/sys/fs/cgroup")
_FINE: Final = frozenset({errno.ENOENT, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS})


def remove_cgroup(parent: str, root: Path = ROOT) -> None:
    """Remove the cgroup ``parent`` (an absolute path, as the cgroupfs driver has it) where it is empty. Raises OSError.

    One that is still busy, or that this process may not touch, is left alone. Slices of systemd are systemd's own business.
    """
    if not parent.startswith("/") or ".." in Path(parent).parts:
        return
    for hierarchy in _hierarchies(root):
        top = hierarchy / parent.lstrip("/")
        if top.is_dir():
            for folder, _, _ in os.walk(top, topdown=False):
                _remove(folder)


def _hierarchies(root: Path) -> Iterator[Path]:
    if (root / "cgroup.controllers").exists():
        yield root
    elif root.is_dir():
        yield from (one for one in root.iterdir() if one.is_dir() and not one.is_symlink())


def _remove(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError as exc:
        if exc.errno not in _FINE:
            raise
