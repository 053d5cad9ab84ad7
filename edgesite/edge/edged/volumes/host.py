"""The host's side of volumes: mounts in memory, checks of hostPath types, safe sub-paths. Blocking: call it in a thread.

Errors  OSError; VolumeError with kubelet's words where a check fails.
Source  mount(2); core/v1 HostPathType.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from edgesite.edge.edged.runtime import HostMount
from edgesite.edge.edged.volumes.payload import VolumeError

__all__ = [
    "give_all_to_group",
    "give_to_group",
    "is_mount",
    "mount_all",
    "mount_memory",
    "prepare_host_path",
    "remove_tree",
    "resolve_sub_path",
    "unmount",
]

_MS_NOSUID, _MS_NODEV = 2, 4
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 32, 4096, 16384
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_LAYERS: Final = 16  #: mounts over one place that are taken away at once
_GROUP_FOLDER: Final = 0o2770
_GROUP_FILE: Final = 0o660
_ESCAPED: Final = frozenset(b" \t\n\\#")  #: what mountinfo writes otherwise
_KINDS: Final[dict[str, tuple[Callable[[int], bool], str]]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def mount_memory(target: Path, size_bytes: int = 0) -> bool:
    """Mount a tmpfs at ``target`` and return whether that was possible: it takes root. Raises OSError."""
    return _mount_kind("tmpfs", target, f"size={size_bytes}" if size_bytes else "")


def mount_huge_pages(target: Path, page_bytes: int, size_bytes: int = 0) -> None:
    """Mount huge pages of one size at ``target``. Raises OSError."""
    options = f"pagesize={page_bytes}" + (f",size={size_bytes}" if size_bytes else "")
    if not _mount_kind("hugetlbfs", target, options):
        raise PermissionError(errno.EPERM, "huge pages cannot be mounted without root", str(target))


def _mount_kind(kind: str, target: Path, options: str) -> bool:
    target.mkdir(parents=True, exist_ok=True)
    if is_mount(target):
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_NOSUID | _MS_NODEV
    if libc.mount(kind.encode(), os.fsencode(target), kind.encode(), flags, options.encode()) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EPERM, errno.EACCES):  # not root, or a container without the right
        return False
    raise OSError(number, os.strerror(number), str(target))


def unmount(target: Path) -> None:
    """Take away what is mounted at ``target``, layer by layer; nothing there is fine. The mounted file system is not asked: its
    server may be gone. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(_LAYERS):
        if libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
            continue
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT) or (number == errno.EPERM and not is_in_mount_table(target)):
            return
        raise OSError(number, os.strerror(number), str(target))


def mount_all(mounts: Iterable[HostMount], target: Path) -> None:
    """Make a list of mounts over one folder, read-only. Raises OSError."""
    target.mkdir(parents=True, exist_ok=True, mode=0o750)
    libc = ctypes.CDLL(None, use_errno=True)
    for one in mounts:
        binds = bool({"bind", "rbind"} & set(one.options)) or one.kind == "bind"
        rest = [option for option in one.options if option not in ("bind", "rbind", "ro", "rw")]
        flags = _MS_BIND | (_MS_REC if "rbind" in one.options else 0) if binds else _MS_RDONLY
        steps = [(flags, None if binds else ",".join(rest).encode())]
        if binds:  # the kernel takes no other flags with a bind
            steps.append((_MS_BIND | _MS_REMOUNT | _MS_RDONLY, None))
        for flag, data in steps:
            kind = None if binds else one.kind.encode()
            if libc.mount(os.fsencode(one.source), os.fsencode(target), kind, flag, data) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(target))


def is_in_mount_table(path: Path) -> bool:
    """Whether something is mounted there, without a look at it. Raises OSError."""
    return str(_as_mounted(path)) in _mount_points()


def _as_mounted(path: Path) -> Path:
    """Return how the kernel names a place: with no link on the way, be it edged's root or what is above it."""
    return Path(os.path.realpath(path.parent)) / path.name


def _mount_points(name: bytes = b"") -> list[str]:
    """All of them, or some, among them those with ``name`` in their path."""
    if _ESCAPED.intersection(name):
        name = b""  # it is written otherwise there
    with open("/proc/self/mountinfo", "rb") as table:
        lines = [line for line in table if name in line]
    return [_unescaped(os.fsdecode(line.split(b" ", 5)[4])) for line in lines]


def is_mount(path: Path) -> bool:
    """Whether another file system begins here; binds within one are not seen."""
    return path.is_dir() and os.path.ismount(path)


def remove_tree(path: Path) -> None:
    """Remove a folder with everything below it, mounts first. Raises OSError."""
    if not path.exists():
        return
    if mounted := _mounts_below(path):
        detached = [_detach(target) for target in reversed(mounted)]
        if not all(detached) and (left := _mounts_below(path)):  # what is mounted there is not ours to remove
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), left[0])
    shutil.rmtree(path)


def _mounts_below(path: Path) -> list[str]:
    below = f"{_as_mounted(path)}/"
    return [target for target in _mount_points(os.fsencode(path.name)) if target.startswith(below)]


def _detach(target: str) -> bool:
    """Whatever it is: a folder or file bound from the same file system does not look like a mount. False if it was none any more.
    Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        return True
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):
        raise OSError(number, os.strerror(number), target)
    return False


def _unescaped(text: str) -> str:
    """mountinfo writes spaces and the like as three octal digits behind a backslash."""
    return text if "\\" not in text else re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def prepare_host_path(path: str, kind: str) -> None:
    """Check, or make, what a hostPath volume of ``kind`` points at. Raises VolumeError."""
    if kind == "":
        return  # no check: the runtime makes a missing folder, as it always has
    if kind == "DirectoryOrCreate":
        if not os.path.exists(path):
            os.makedirs(path, 0o755, exist_ok=True)
        kind = "Directory"
    elif kind == "FileOrCreate":
        if not os.path.exists(path):
            _touch(path)
        kind = "File"
    if kind not in _KINDS:
        raise VolumeError(f"hostPath type check failed: unknown type {kind}")
    matches, words = _KINDS[kind]
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        raise VolumeError(f"hostPath type check failed: {path} is not {words}") from exc
    if not matches(mode):
        raise VolumeError(f"hostPath type check failed: {path} is not {words}")


def _touch(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    except OSError as exc:
        raise VolumeError(f"hostPath type check failed: {path}: {exc.strerror}") from exc


def give_to_group(folder: Path, group: int) -> None:
    """Let a group (fsGroup) read and write a folder, and own what is made in it later. Raises OSError."""
    os.chown(folder, -1, group)
    folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o2770)


def give_all_to_group(root: Path, group: int, lazily: bool = False) -> None:
    """Let a group (fsGroup) read and write all that is below a folder, links themselves and not what they point at.

    ``lazily``: only if the folder itself is not like that yet, as fsGroupChangePolicy OnRootMismatch wants. Raises OSError.
    """
    about = root.stat()
    if lazily and about.st_gid == group and about.st_mode & _GROUP_FOLDER == _GROUP_FOLDER:
        return
    for _, names, files, folder in os.fwalk(root, topdown=False, onerror=_raise):
        for name in files:
            _give(name, folder, group, _GROUP_FILE)
        for name in names:
            _give(name, folder, group, _GROUP_FOLDER)
    _give(str(root), None, group, _GROUP_FOLDER)  # last: a change that was cut off begins anew


def _give(name: str, folder: int | None, group: int, bits: int) -> None:
    """What is open is what is changed: a container may put a link in a file's place meanwhile."""
    try:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return  # whoever else uses the volume has removed it
    try:
        mode = os.fstat(descriptor).st_mode
        place = f"/proc/self/fd/{descriptor}"
        if stat.S_ISLNK(mode):
            os.chown(name, -1, group, dir_fd=folder, follow_symlinks=False)
        else:
            os.chown(place, -1, group)
            os.chmod(place, stat.S_IMODE(mode) | bits)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error


def resolve_sub_path(volume: Path, sub_path: str, *, make: bool = True) -> Path:
    """Return what a subPath means, links followed, made as a folder if missing; never outside the volume. Raises VolumeError.

    Whoever writes to the volume may have changed it a moment later; `subpaths.pin` holds it fast.
    """
    if sub_path.startswith("/") or ".." in Path(sub_path).parts:
        raise VolumeError(f"subPath {sub_path!r} must be a relative path inside the volume")
    root = volume.resolve()
    wanted = (volume / sub_path).resolve()
    if wanted != root and root not in wanted.parents:
        raise VolumeError(f"subPath {sub_path!r} leads out of its volume")
    if make and not wanted.exists():
        wanted.mkdir(parents=True, mode=0o750)
    return wanted
