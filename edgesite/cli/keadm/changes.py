"""Changes to the host: each skipped where it is so already, said, written down, then made. With ``--dry-run`` only said.

Errors  OSError, SystemdError, KeadmError. A block that raises, or is interrupted, leaves the host as it was.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgesite.cli.keadm.failure import KeadmError
from edgesite.cli.keadm.files import PROGRAMS
from edgesite.cli.keadm.journal import BEFORE, Journal
from edgesite.cli.keadm.systemd import OWN_UNITS, Systemd, unit_text

if TYPE_CHECKING:
    from edgesite.cli.keadm.host import Host
    from edgesite.cli.keadm.progress import Progress

__all__ = ["Changes", "changing", "recover"]


def recover(host: Host, systemd: Systemd, progress: Progress) -> None:
    """Undo what a command before was killed over. Raises OSError."""
    journal = Journal(host, systemd)
    if journal.is_left() and not progress.dry_run:
        progress.warn("an earlier keadm was cut short; what it had changed is undone first")
        journal.undo(progress.warn)


@contextmanager
def changing(host: Host, systemd: Systemd, progress: Progress) -> Iterator[Changes]:
    """Make changes that belong together: all, or in the end none."""
    journal = Journal(host, systemd)
    try:
        yield Changes(host, systemd, progress, journal)
    except BaseException:
        if journal.is_left() and not progress.dry_run:
            progress.warn("failed; what was changed is undone")
            journal.undo(progress.warn)
        raise
    if not progress.dry_run:
        journal.close()


class Changes:
    """Paths are absolute, as on the host."""

    def __init__(self, host: Host, systemd: Systemd, progress: Progress, journal: Journal) -> None:
        self._host, self._systemd, self._progress, self._journal = host, systemd, progress, journal

    def folder(self, path: str, mode: int = 0o755, user: str = "") -> None:
        """Make a folder, and those above it."""
        missing = [one for one in (Path(path), *Path(path).parents) if not self._host.path(one).exists()]
        for one in reversed(missing):
            if self._begin(f"make the folder {one}"):
                self._journal.note("rmdir", self._host.path(one))
                self._host.path(one).mkdir()
                self._host.path(one).chmod(mode if str(one) == path else 0o755)  # whatever the umask
                self._give(self._host.path(one), user if str(one) == path else "")

    def file(self, path: str, data: bytes, mode: int, user: str = "") -> None:
        """Write a file, durable on return."""
        target = self._host.path(path)
        if target.is_file() and target.read_bytes() == data:
            return
        self.folder(str(Path(path).parent))
        if not self._begin(f"write {path}"):
            return
        fresh = target.with_name(f"{target.name}.keadm-new")
        self._journal.note("remove", fresh)
        if target.exists():
            before = Path(f"{target}{BEFORE}")
            self._journal.note("remove", before)
            _copy(target, before)
            self._journal.note("restore", target)
        else:
            self._journal.note("remove", target)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        self._give(fresh, user)
        os.replace(fresh, target)

    def made_by_program(self, *paths: str) -> None:
        """Files that a program of ours is about to make: gone again after a failure."""
        for path in paths:
            if not self._progress.dry_run and not self._host.path(path).exists():
                self._journal.note("remove", self._host.path(path))

    def filled_by_program(self, *folders: str) -> None:
        """Folders that a program of ours is about to put things into: gone again after a failure."""
        for path in folders if not self._progress.dry_run else ():
            place = self._host.path(path)
            if place.is_dir():
                self._journal.note("empty", place, keep=[one.name for one in place.iterdir()])
            else:
                self._journal.note("rmtree", place)

    def program(self, name: str) -> Path:
        """Where a program of ours is; the one binary gets a link of that name where no package has brought one. Raises KeadmError."""
        found = self._host.program(name)
        if found is not None:
            return found
        own = self._host.own_program()
        if own is None:
            raise KeadmError(f"the program {name} is not installed")
        place = f"{PROGRAMS}/{name}"
        self.link(place, own)
        return Path(place)

    def link(self, path: str, target: Path) -> None:
        """Let a name lead to a program."""
        self.folder(str(Path(path).parent))
        if self._begin(f"link {path} to {target}"):
            self._journal.note("remove", self._host.path(path))
            self._host.path(path).symlink_to(target)

    def unit(self, name: str, program: Path) -> None:
        """Write the unit, unless a package has brought one."""
        if self._systemd.unit_file(name) is None:
            if not self._progress.dry_run:
                self._journal.note("daemon-reload", "systemd")  # undone last: by then the unit is gone
            self.file(f"{OWN_UNITS}/{name}.service", unit_text(name, program).encode(), 0o644)

    def enable_and_start(self, name: str) -> None:
        """Let systemd run the unit, now and from the next boot on."""
        if not self._begin(f"enable and start {name}.service"):
            return
        self._systemd.reload()
        if not self._systemd.is_enabled(name):
            self._journal.note("disable", name)
            self._systemd.enable(name)
        self._journal.note("stop", name)
        self._systemd.start(name)

    def _begin(self, text: str) -> bool:
        self._progress.step(text)
        return not self._progress.dry_run

    def _give(self, path: Path, user: str) -> None:
        if user:
            shutil.chown(path, user, user)


def _copy(source: Path, target: Path) -> None:
    """Copy with mode and owner, durable on return."""
    shutil.copy2(source, target)
    found = source.stat()
    os.chown(target, found.st_uid, found.st_gid)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
