"""Sub-paths of volumes, held fast: what was checked is what gets mounted, whatever a container does meanwhile.

A container that writes to the volume could swap a folder for a link to anywhere on the host, between our look and the runtime's mount.
So the path is opened step by step without following links, and the very inode that was found is bound to a place of ours, from
which the runtime mounts it. Blocking: call it in a thread.

    <root>/pods/<uid>/volume-subpaths/<volume>/<container>/<number>

Places are never removed with what is below them: that is the volume's, perhaps the host's own.

Errors  VolumeError where a path leads out of its volume; OSError.
State   The mounts, until `release`.
Source  openat(2), mount(2); CVE-2017-1002101 (what happens otherwise).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import Final

from edgesite.edge.edged.volumes.host import resolve_sub_path
from edgesite.edge.edged.volumes.payload import VolumeError

__all__ = ["pin", "release"]

_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_LAYERS: Final = 16  #: binds over one place, should several starts have been cut off


def pin(volume: Path, sub_path: str, place: Path) -> Path:
    """Return from where to mount the sub-path of a volume: ``place``, or where we may not mount, the path itself.

    Raises VolumeError, OSError.
    """
    root = volume.resolve()
    target = resolve_sub_path(volume, sub_path, make=False)
    descriptor = _open_below(root, target.relative_to(root).parts)
    try:
        return place if _bind(descriptor, place) else target
    finally:
        os.close(descriptor)


def release(places: Path) -> None:
    """Unmount and remove all places of a pod. Raises OSError."""
    if not places.is_dir():
        return
    for place in places.glob("*/*/*"):
        _unbind(place)
        place.rmdir() if place.is_dir() else place.unlink()
    for folder in (*places.glob("*/*"), *places.iterdir(), places):
        folder.rmdir()


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """Open ``parts`` below ``root``, making folders that are missing and following no link. Raises VolumeError, OSError."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    current = os.open(root, os.O_PATH | os.O_CLOEXEC)
    try:
        for part in parts:
            try:
                below = os.open(part, flags, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(part, 0o750, dir_fd=current)
                below = os.open(part, flags, dir_fd=current)
            os.close(current)
            current = below
            if stat.S_ISLNK(os.fstat(current).st_mode):
                raise VolumeError(f"subPath {'/'.join(parts)!r} was changed into a link while it was looked at")
    except BaseException:
        os.close(current)
        raise
    return current


def _bind(descriptor: int, place: Path) -> bool:
    """Bind what is open to ``place``; False if we may not. Raises OSError."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    if place.is_symlink() or place.exists():
        _unbind(place)
        place.rmdir() if place.is_dir() else place.unlink()  # what was there may have been a file
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        place.mkdir(mode=0o750)
    else:
        place.touch(mode=0o640)
    source = f"/proc/self/fd/{descriptor}".encode()
    if ctypes.CDLL(None, use_errno=True).mount(source, os.fsencode(place), None, _MS_BIND, None) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EPERM, errno.EACCES):  # not root, or a container without the right
        place.rmdir() if place.is_dir() else place.unlink()
        return False
    raise OSError(number, os.strerror(number), str(place))


def _unbind(place: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(_LAYERS):
        if libc.umount2(os.fsencode(place), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
            number = ctypes.get_errno()
            if number in (errno.EINVAL, errno.EPERM):  # nothing is mounted there, or we never may
                return
            raise OSError(number, os.strerror(number), str(place))
