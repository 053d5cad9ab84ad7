"""Tells when something changes in a folder, by inotify: nothing is polled.

Errors  OSError: no such folder, or the kernel has no watch left.
State   One descriptor, closed by `FolderWatch.close`.
Source  inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

import anyio

__all__ = ["FolderWatch"]

_IN_MOVED: Final = 0xC0
_IN_CREATE, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_IN_ONLYDIR: Final = 0x01000000
_MASK: Final = _IN_MOVED | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_EVENT: Final = struct.Struct("iIII")
_BUFFER: Final = 64 * 1024


class FolderWatch:
    """Watches the folders that it was told of; which of them changed is not told: look at all."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._descriptor = -1
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _error("inotify")

    def add(self, folder: Path) -> None:
        """Watch one more folder; one that is watched already stays so. Raises OSError."""
        if self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK) < 0:
            raise _error(str(folder))

    async def changed(self) -> None:
        """Wait until something has come or gone since the last call."""
        await anyio.wait_readable(self._descriptor)
        try:
            while len(os.read(self._descriptor, _BUFFER)) >= _EVENT.size:
                continue  # all that waits is one change
        except BlockingIOError:
            return

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()  # whoever is killed in the simulator runs no other clean-up, and a host has only 128 of these


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
