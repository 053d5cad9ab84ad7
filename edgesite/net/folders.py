"""Tells when something comes into, or goes from, folders of this host: one inotify instance for all who ask, opened for the first of them.

Hosts allow each user 128 instances, and containerd needs some of them. Where there is none to be had, nor a watch, whoever waits
is woken now and then instead.

Units   Seconds.
Errors  OSError: no such folder.
State   One descriptor while somebody watches; it belongs to one event loop.
Source  inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import struct
from pathlib import Path
from typing import Final

import anyio

__all__ = ["LOOK_S", "RealFolders"]

logger = logging.getLogger(__name__)
LOOK_S: Final = 10.0  #: how often whoever waits looks for himself where the kernel tells nothing
_IN_MOVED: Final = 0xC0
_IN_CREATE, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_IN_OVERFLOW, _IN_IGNORED = 0x4000, 0x8000
_IN_ONLYDIR: Final = 0x01000000
_MASK: Final = _IN_MOVED | _IN_CREATE | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_EVENT: Final = struct.Struct("iIII")
_BUFFER: Final = 64 * 1024
#: inotify(7): no instance, no watch, no memory, or a kernel without any of it
_NONE_LEFT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM, errno.ENOSYS})


class RealFolders:
    """All watches of a process. Making one opens nothing."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._libc: ctypes.CDLL | None = None
        self._watches: dict[int, set[_Watch]] = {}  # who looks at a folder, by the kernel's number for it
        self._holders = 0
        self._said = False

    def watch(self) -> _Watch:
        """Begin to watch; close it at the end. To be called on the event loop."""
        self._holders += 1
        return _Watch(self)

    def add(self, folder: Path, watch: _Watch) -> bool:
        """Raises OSError."""
        try:
            number = self._add(folder)
        except OSError as exc:
            if exc.errno not in _NONE_LEFT:
                raise
            self._say(exc)
            watch.blind = True
            return False
        others = self._watches.setdefault(number, set())
        fresh = watch not in others
        others.add(watch)
        return fresh

    def release(self, watch: _Watch) -> None:
        """Forget a watch and its folders; the last one closes the descriptor."""
        for number, others in tuple(self._watches.items()):
            others.discard(watch)
            if not others:
                del self._watches[number]
                if self._libc is not None:
                    self._libc.inotify_rm_watch(self._descriptor, number)
        self._holders -= 1
        if not self._holders and self._descriptor >= 0:
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _add(self, folder: Path) -> int:
        """Return the kernel's number for a folder, the same for the same folder. Raises OSError."""
        libc = self._libc = self._libc or ctypes.CDLL(None, use_errno=True)
        if self._descriptor < 0:
            descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if descriptor < 0:
                raise _error("inotify")
            self._descriptor, self._loop = descriptor, asyncio.get_running_loop()
            self._loop.add_reader(descriptor, self._read)
        number: int = libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK)
        if number < 0:
            raise _error(str(folder))
        return number

    def _read(self) -> None:
        """Take all that waits, and wake whom it concerns."""
        woken: set[_Watch] = set()
        while True:
            try:
                data = os.read(self._descriptor, _BUFFER)
            except BlockingIOError:
                break
            at = 0
            while at < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                if mask & _IN_OVERFLOW:  # what is lost may concern anyone
                    woken.update(*self._watches.values())
                elif mask & _IN_IGNORED:  # the folder is gone, and its number with it
                    woken |= self._watches.pop(number, set())
                else:
                    woken |= self._watches.get(number, set())
        for watch in woken:
            watch.wake()

    def _say(self, exc: OSError) -> None:
        if not self._said:
            self._said = True
            logger.warning(
                "folders cannot be watched (%s); they are looked at every %d s instead. "
                "More is allowed by the sysctls fs.inotify.max_user_instances and max_user_watches",
                exc.strerror,
                LOOK_S,
            )


class _Watch:
    """The folders of one who asks; which of them changed is not told: look at all."""

    __slots__ = ("_changed", "_closed", "_folders", "blind")

    def __init__(self, folders: RealFolders) -> None:
        self._folders = folders
        self._changed = anyio.Event()
        self._closed = False
        self.blind = False  #: a folder of it is not watched

    def add(self, folder: Path) -> bool:
        """Watch one more folder; True if it was not watched yet, and so may have changed unnoticed. Raises OSError."""
        return self._folders.add(folder, self)

    async def changed(self) -> None:
        """Wait until something may have come or gone since the last call."""
        with anyio.move_on_after(LOOK_S if self.blind else None):
            await self._changed.wait()
        self._changed = anyio.Event()

    def wake(self) -> None:
        self._changed.set()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._folders.release(self)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
