"""A machine's disk: SQLite files in memory that lose what was not synced when the power goes.

What was written but not synced is, after a power cut, there or not, sector by sector, as the seed decides. A killed process
loses nothing that it wrote: the kernel has it. Faults: a full disk, I/O errors, a power cut in the middle of a transaction.

Errors  apsw.FullError, apsw.IOError, apsw.BusyError as SQLite's own VFS would cause them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

__all__ = ["Disk", "SimDisk"]

SECTOR: Final = 512
_names = itertools.count(1)


@dataclass(slots=True)
class _Inode:
    """One file: what programs see, what is safe, and what lies between."""

    data: bytearray = field(default_factory=bytearray)
    safe: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)  # (offset, data); offset < 0: truncated to ~offset
    named: bool = False  # its name would survive a power cut
    opened_by: object | None = None

    def write(self, offset: int, data: bytes) -> None:
        _apply(self.data, offset, data)
        self.unsynced.append((offset, data))

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.unsynced.append((~size, b""))

    def sync(self) -> None:
        for offset, piece in self.unsynced:
            if offset < 0:
                del self.safe[~offset:]
            else:
                _apply(self.safe, offset, piece)
        self.unsynced.clear()
        self.named = True

    def after_power_cut(self, rng: random.Random) -> bytes | None:
        """What the platter holds: the safe part and any of the sectors written since."""
        if not self.named and rng.random() < 0.5:
            return None
        data = bytearray(self.safe)
        for offset, piece in self.unsynced:
            if offset < 0:
                if rng.random() < 0.5:
                    del data[~offset:]
                continue
            for start in range(0, len(piece), SECTOR):
                if rng.random() < 0.5:
                    _apply(data, offset + start, piece[start : start + SECTOR])
        return bytes(data)


def _apply(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


class Disk:
    """The disk of one machine; it outlives its processes."""

    def __init__(self, rng: random.Random, now: Callable[[], float]) -> None:
        self.full = False  #: writes that need new space fail
        self.broken = False  #: every write and sync fails
        self.written = 0  #: bytes, all told
        self.changes = 0  #: moments at which what is safe has changed
        self.on_power_cut: Callable[[], None] | None = None  #: called when a cut that was armed has come
        self.files: dict[str, _Inode] = {}
        self.rng = rng
        self._cut_after: int | None = None
        self._platter: dict[str, bytes] | None = None
        self._vfs = _Vfs(self, now)

    @property
    def vfs_name(self) -> str:
        return self._vfs.name

    def arm_power_cut(self, operations: int) -> None:
        """The power goes at the given write or sync from now: in the middle of a transaction, if one is made."""
        self._cut_after = operations

    def mend(self) -> None:
        """No fault from now on."""
        self.full = self.broken = False
        self._cut_after = None

    def corrupt(self, ending: str) -> bool:
        """Overwrite the header of each database whose name ends so, and drop its log. False if there is none."""
        found = [path for path in self.files if path.endswith(ending)]
        for path in found:
            inode = self.files[path]
            inode.write(0, self.rng.randbytes(min(512, len(inode.data))))
            inode.sync()
            self.files.pop(f"{path}-wal", None)
        return bool(found)

    def power_cut(self) -> None:
        """Lose what was not synced. All files must be closed (see `SimDisk.die`)."""
        if self._platter is None:
            self._freeze()
        assert self._platter is not None
        self.files = {
            name: _Inode(bytearray(data), bytearray(data), named=True) for name, data in self._platter.items()
        }
        self._platter = self._cut_after = None
        self.changes += 1

    def backup(self) -> dict[str, bytes]:
        """What stands on it, synced: a copy that a backup program takes of all files at one moment."""
        return {name: bytes(inode.safe) for name, inode in self.files.items() if inode.named}

    def restore(self, files: Mapping[str, bytes]) -> None:
        """Put a backup in place of what is there. All files must be closed."""
        self.files = {name: _Inode(bytearray(data), bytearray(data), named=True) for name, data in files.items()}
        self.changes += 1

    def synced_copy(self, path: str, target: Path) -> Path | None:
        """Write what is safe of a database and of its log to ``target``, a plain file; None if it would not be there."""
        inode = self.files.get(path)
        if inode is None or not inode.named:
            return None
        log = self.files.get(f"{path}-wal")
        target.write_bytes(inode.safe)
        target.with_name(f"{target.name}-wal").write_bytes(log.safe if log is not None and log.named else b"")
        target.with_name(f"{target.name}-shm").unlink(missing_ok=True)
        return target

    def count(self) -> None:
        """One write or sync is about to be done."""
        if self._cut_after is not None:
            self._cut_after -= 1
            if self._cut_after <= 0:
                self._cut_after = None
                self._freeze()
                if self.on_power_cut is not None:
                    self.on_power_cut()

    def _freeze(self) -> None:
        outcomes = ((name, inode.after_power_cut(self.rng)) for name, inode in sorted(self.files.items()))
        self._platter = {name: data for name, data in outcomes if data is not None}

    def close(self) -> None:
        """Unregister from SQLite."""
        self._vfs.unregister()


class SimDisk:
    """`edgesite.context.Disk` of one process on a machine."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._connections: list[apsw.Connection] = []
        self.dead = False

    def connect(self, path: Path) -> apsw.Connection:
        """Raises apsw.Error."""
        with _opening(self):
            connection = apsw.Connection(str(path), vfs=self._disk.vfs_name)
            self._connections.append(connection)
            try:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # what WAL without shared memory asks for
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                    connection.execute(f"PRAGMA {pragma}")
            except BaseException:
                connection.close()
                raise
        return connection

    def set_aside(self, path: Path) -> Path:
        files = self._disk.files
        number = next(n for n in itertools.count(1) if f"{path}.corrupt-{n}" not in files)
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        for suffix in ("-wal", "-shm", ""):
            if f"{path}{suffix}" in files:
                files[f"{aside}{suffix}"] = files.pop(f"{path}{suffix}")
        return aside

    def open_databases(self) -> list[str]:
        """What was not closed."""
        files = self._disk.files
        return sorted(path for path, inode in files.items() if inode.opened_by is self and not path.endswith("-wal"))

    def die(self) -> None:
        """The process is killed: nothing that it still does reaches the disk."""
        self.dead = True
        for inode in self._disk.files.values():
            if inode.opened_by is self:
                inode.opened_by = None
        for connection in self._connections:
            try:
                connection.close(True)
            except apsw.Error:
                continue  # it could not checkpoint any more, as intended
        self._connections.clear()


_opener: list[SimDisk] = []


class _opening:
    """Tells the VFS which process opens files, as SQLite's interface has no place for it."""

    def __init__(self, owner: SimDisk) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        _opener.append(self._owner)

    def __exit__(self, *exc: object) -> None:
        _opener.pop()


class _Vfs(apsw.VFS):
    """The system calls that SQLite makes, on `Disk`."""

    def __init__(self, disk: Disk, now: Callable[[], float]) -> None:
        self.name = f"simulated-{next(_names)}"
        self._disk = disk
        self._now = now
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        flags[1] = flags[0]
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:
            return _File(self._disk, _Inode(), None)
        inode = self._disk.files.get(path)
        if inode is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            inode = self._disk.files[path] = _Inode()
        owner = _opener[-1] if _opener else self._owner_of(path)
        if inode.opened_by is not None and inode.opened_by is not owner:
            raise apsw.BusyError(f"{path} is open in another process")
        inode.opened_by = owner
        return _File(self._disk, inode, owner)

    def _owner_of(self, path: str) -> object | None:
        """A log belongs to who has its database open."""
        inode = self._disk.files.get(path.removesuffix("-wal").removesuffix("-journal"))
        return inode.opened_by if inode else None

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._disk.count()
        self._disk.changes += 1
        if self._disk.files.pop(filename, None) is None:
            raise apsw.IOError(f"no file {filename}")

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self._disk.files

    def xFullPathname(self, name: str) -> str:
        return name

    def xRandomness(self, numbytes: int) -> bytes:
        return self._disk.rng.randbytes(numbytes)

    def xSleep(self, microseconds: int) -> int:
        return microseconds

    def xCurrentTime(self) -> float:
        return self._now() / 86400.0 + 2440587.5

    def xCurrentTimeInt64(self) -> int:
        return int(self.xCurrentTime() * 86400_000)

    def xGetLastError(self) -> tuple[int, str]:
        return 0, ""


class _File:
    """One open file of one process."""

    def __init__(self, disk: Disk, inode: _Inode, owner: Any) -> None:
        self._disk, self._inode, self._owner = disk, inode, owner

    def _check(self) -> None:
        if self._owner is not None and self._owner.dead:
            raise apsw.IOError("the process is dead")

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._inode.data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._check()
        disk = self._disk
        if disk.broken:
            raise apsw.IOError("simulated I/O error")
        if disk.full and offset + len(data) > len(self._inode.data):
            raise apsw.FullError("simulated full disk")
        disk.count()
        disk.written += len(data)
        self._inode.write(offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        self._check()
        self._disk.count()
        self._inode.truncate(newsize)

    def xSync(self, flags: int) -> None:
        self._check()
        if self._disk.broken:
            raise apsw.IOError("simulated I/O error")
        self._disk.count()
        self._disk.changes += 1
        self._inode.sync()

    def xFileSize(self) -> int:
        return len(self._inode.data)

    def xClose(self) -> None:
        if self._inode.opened_by is self._owner:
            self._inode.opened_by = None

    def xLock(self, level: int) -> None:
        """One process at a time has the file: see ``opened_by``."""

    def xUnlock(self, level: int) -> None:
        """See xLock."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR

    def xDeviceCharacteristics(self) -> int:
        return int(apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE)
