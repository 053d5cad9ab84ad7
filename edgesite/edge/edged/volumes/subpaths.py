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
import struct
from pathlib import Path
from typing import Final

from edgesite.edge.edged.volumes.host import resolve_sub_path
from edgesite.edge.edged.volumes.payload import VolumeError

__all__ = ["can_hold_read_only", "hold_read_only", "pin", "release"]

_MS_BIND: Final = 4096
_MS_REC: Final = 16384
_MS_PRIVATE: Final = 1 << 18
_MOUNT_SETATTR: Final = 442  #: number of the system call, the same on all architectures but alpha
_ATTR_RDONLY: Final = 1
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
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


def hold_read_only(source: Path, place: Path) -> Path:
    """Bind a whole tree of mounts to ``place``, each of them read-only; return ``place``. Raises OSError."""
    descriptor = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        if not _bind(descriptor, place, _MS_BIND | _MS_REC):
            raise PermissionError(errno.EPERM, "mounting takes root", str(place))
    finally:
        os.close(descriptor)
    libc = ctypes.CDLL(None, use_errno=True)
    # What is mounted below the source later must not come in here, writable.
    done = libc.mount(None, os.fsencode(place), None, _MS_REC | _MS_PRIVATE, None) == 0
    attributes = struct.pack("QQQQ", _ATTR_RDONLY, 0, 0, 0)
    if not done or libc.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(place), _AT_RECURSIVE, attributes, len(attributes)
    ):
        number = ctypes.get_errno()
        _unbind(place)
        raise OSError(number, os.strerror(number), str(place))
    return place


def can_hold_read_only() -> bool:
    """Whether `hold_read_only` works here: as root, on Linux 5.12 or newer."""
    if os.geteuid() != 0:
        return False
    ctypes.set_errno(0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(
        _MOUNT_SETATTR, -1, b"", 0, None, 0
    )  # nonsense, which only a kernel that knows the call refuses as such
    return ctypes.get_errno() != errno.ENOSYS


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
    """Open ``parts`` below ``root``, following no link. Folders that are missing are made, as open to others as the volume itself.

    Raises VolumeError, OSError.
    """
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    current = os.open(root, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(current).st_mode) & ~stat.S_ISUID
        for part in parts:
            try:
                below = os.open(part, flags, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(part, 0o700, dir_fd=current)
                below = os.open(part, flags, dir_fd=current)
                _open_to_others(below, mode)
            os.close(current)
            current = below
            if stat.S_ISLNK(os.fstat(current).st_mode):
                raise VolumeError(f"subPath {'/'.join(parts)!r} was changed into a link while it was looked at")
    except BaseException:
        os.close(current)
        raise
    return current


def _open_to_others(descriptor: int, mode: int) -> None:
    """Set the permissions of a folder that was just made; its group may come from the folder above. Raises OSError."""
    made = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(made):  # else something else has taken its place
        os.chmod(f"/proc/self/fd/{descriptor}", mode | (made & stat.S_ISGID))


def _bind(descriptor: int, place: Path, flags: int = _MS_BIND) -> bool:
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
    if ctypes.CDLL(None, use_errno=True).mount(source, os.fsencode(place), None, flags, None) == 0:
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
