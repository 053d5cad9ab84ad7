"""Plain files of a machine (certificates, tokens, checkpoints, volumes): what a power cut leaves of them.

They are real files in the machine's folder. What a program synced is safe: content by ``fsync`` of the file, names (new files,
renames, removals) by ``fsync`` of the folder. Of all else the seed decides, file by file: the new state, the one before, or a
part of the new content. Folders themselves, and what a killed process has written, are never lost.

State   For each file that was synced, its content; for each folder that was synced, its names.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PlainFiles", "syncing"]


@dataclass(frozen=True, slots=True)
class _File:
    """What a name stands for: a file by its inode, or a symbolic link by its target."""

    inode: int
    link: str = ""


class PlainFiles:
    """The files below ``root``."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root = root
        self.lost = 0  #: files that power cuts have left in an older or a broken state
        self._rng = rng
        self._contents: dict[int, tuple[bytes, int]] = {}  # inode -> content and mode when it was synced last
        self._names: dict[Path, _File] = {}  # as the folders had them when they were synced last

    def synced(self, path: Path) -> None:
        """A program has called fsync on this."""
        if path.is_dir():
            self._forget_names(path)
            for name, file in _entries(path):
                self._names[name] = file
        elif path.is_file():
            status = path.stat()
            self._contents[status.st_ino] = (path.read_bytes(), status.st_mode & 0o777)

    def _forget_names(self, folder: Path) -> None:
        self._names = {name: file for name, file in self._names.items() if name.parent != folder}

    def power_cut(self) -> None:
        """Leave what a disk would."""
        now = dict(one for folder in _folders(self.root) for one in _entries(folder))
        for path in sorted({*now, *self._names}):
            there, safe = now.get(path), self._names.get(path)
            kept = there if there == safe or self._rng.random() < 0.5 else safe
            if kept is None:
                path.unlink(missing_ok=True)
            elif kept.link:
                _link(path, kept.link)
            else:
                self._leave(path, kept, is_there=kept == there)
            self.lost += kept != there
        self._contents.clear()  # what stands there now is on the platter
        self._names.clear()
        for folder in _folders(self.root):
            for name, file in _entries(folder):
                self._names[name] = file
                if not file.link:
                    self._contents[file.inode] = (name.read_bytes(), name.stat().st_mode & 0o777)

    def _leave(self, path: Path, file: _File, *, is_there: bool) -> None:
        """Write what is left of a file's content."""
        if not path.parent.is_dir():
            return  # the folder was removed with it
        safe, mode = self._contents.get(file.inode, (b"", 0o600))
        if is_there:
            content = path.read_bytes()
            if content == safe and file.inode in self._contents:
                return
            draw = self._rng.random()
            if draw < 0.4:
                return  # it had reached the disk all the same
            left = safe if draw < 0.7 else content[: self._rng.randint(0, len(content))]
            self.lost += left != content
            path.write_bytes(left)
            return
        path.unlink(missing_ok=True)
        path.write_bytes(safe)
        path.chmod(mode)


def _folders(root: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(root):
        names.sort()
        yield Path(folder)


def _entries(folder: Path) -> Iterator[tuple[Path, _File]]:
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda one: one.name):
            if entry.is_symlink():
                yield Path(entry.path), _File(0, os.readlink(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path), _File(entry.inode())


def _link(path: Path, target: str) -> None:
    if not path.parent.is_dir():
        return
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@contextlib.contextmanager
def syncing(machines: Callable[[], Iterable[PlainFiles]]) -> Iterator[None]:
    """While the block lasts, fsync of a file of a machine is noted for it, and costs nothing."""
    original = os.fsync

    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        for files in machines():
            if path.is_relative_to(files.root):
                files.synced(path)
                return
        original(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = original
