"""Removing the cgroup that held a pod's containers, and what is left in it: the runtime made it on the way to theirs and leaves it behind.

Blocking: call it in a thread.

Source  cgroups(7): one hierarchy at the root with version 2, one for each controller with version 1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["end_cgroup", "remove_cgroup"]

ROOT: Final = Path("/sys/fs/cgroup")
_FINE: Final = frozenset({errno.ENOENT, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS})


def remove_cgroup(parent: str, root: Path = ROOT) -> bool:
    """Remove the cgroup ``parent`` (an absolute path, as the cgroupfs driver has it) where it is empty. Raises OSError.

    False if it is still busy. One that this process may not touch is left alone. Slices of systemd are systemd's own business.
    """
    gone = True
    for top in _tops(parent, root):
        for folder, _, _ in os.walk(top, topdown=False):
            gone &= _remove(folder)
    return gone


def end_cgroup(parent: str, root: Path = ROOT) -> None:
    """Kill what is left in a cgroup whose pod has ended: a runtime that was killed while it made a sandbox may have lost it, and
    its program would run for ever. Raises OSError."""
    for top in _tops(parent, root):
        for folder, _, _ in os.walk(top):
            with contextlib.suppress(FileNotFoundError):
                for pid in Path(folder, "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(int(pid), signal.SIGKILL)


def _tops(parent: str, root: Path) -> Iterator[str]:
    if not parent.startswith("/") or ".." in parent.split("/"):
        return
    for hierarchy in _hierarchies(root):
        if os.path.isdir(top := os.path.join(hierarchy, parent.lstrip("/"))):
            yield top


def _hierarchies(root: Path) -> Iterator[str]:
    if os.path.exists(os.path.join(root, "cgroup.controllers")):
        yield str(root)
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(root) as entries:
            yield from [one.path for one in entries if one.is_dir(follow_symlinks=False)]


def _remove(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except OSError as exc:
        if exc.errno not in _FINE:
            raise
        return exc.errno != errno.EBUSY
    return True
