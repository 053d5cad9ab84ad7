"""What a command has changed, on disk before it changes it, so that it can be undone: after a failure, or by the next command after a crash.

One line of JSON each: {"undo": KIND, "path" or "unit": …}. Kinds:

    remove PATH      a file or link that was not there
    restore PATH     a file that was; what it held is beside it, with the suffix `BEFORE`
    rmdir PATH       a folder that was not there; only if it is empty
    rmtree PATH      a folder that was not there, with what a program of ours has put into it
    empty PATH       a folder that was: what a program of ours has put beside the names in "keep"
    stop UNIT, disable UNIT, daemon-reload

Errors  OSError. Undoing goes on over what cannot be undone, and says so.
State   /var/lib/keadm/journal, while a command works.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgesite.cli.keadm.systemd import SystemdError
from edgesite.edge.edged.volumes.host import remove_tree

if TYPE_CHECKING:
    from edgesite.cli.keadm.host import Host
    from edgesite.cli.keadm.systemd import Systemd

__all__ = ["BEFORE", "PLACE", "Journal"]

PLACE: Final = "/var/lib/keadm/journal"
BEFORE: Final = ".before-keadm"


class Journal:
    """One command's changes. `note` before each; at the end `close`, or `undo`."""

    def __init__(self, host: Host, systemd: Systemd) -> None:
        self._host, self._systemd = host, systemd
        self._file = host.path(PLACE)
        self._descriptor: int | None = None

    def is_left(self) -> bool:
        """Whether an earlier command was cut short."""
        return self._file.exists()

    def note(self, undo: str, target: str | Path, keep: Iterable[str] = ()) -> None:
        """Write down how to undo what comes next; on disk when this returns. Raises OSError."""
        if self._descriptor is None:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            _sync_folder(self._file.parent)
        entry = {"undo": undo, "target": str(target), "keep": sorted(keep)}
        os.write(self._descriptor, json.dumps(entry).encode() + b"\n")
        os.fsync(self._descriptor)

    def close(self) -> None:
        """All is done: nothing is to be undone any more."""
        for entry in self._entries():
            if entry["undo"] == "restore":
                Path(f"{entry['target']}{BEFORE}").unlink(missing_ok=True)
        self._end()

    def undo(self, say: Callable[[str], None]) -> None:
        """Take everything back, last first; what resists is said and left."""
        for entry in reversed(self._entries()):
            try:
                self._undo_one(entry["undo"], entry["target"], entry["keep"])
            except (OSError, SystemdError) as exc:
                say(f"cannot be undone: {entry['undo']} {entry['target']}: {exc}")
        self._end()

    def _entries(self) -> list[dict[str, Any]]:
        try:
            lines = self._file.read_text().splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                entry = json.loads(line)
                kept = [str(one) for one in entry["keep"]]
                found.append({"undo": str(entry["undo"]), "target": str(entry["target"]), "keep": kept})
            except (ValueError, TypeError, KeyError):
                break  # cut short while it was written: what it stood for was not done
        return found

    def _undo_one(self, kind: str, target: str, keep: Sequence[str]) -> None:
        path = Path(target)
        match kind:
            case "remove":
                path.unlink(missing_ok=True)
            case "restore":
                before = Path(f"{target}{BEFORE}")
                if before.exists():
                    os.replace(before, path)
            case "rmdir":
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
            case "rmtree":
                remove_tree(path)
            case "empty":
                for one in path.iterdir() if path.is_dir() else ():
                    if one.name not in keep:
                        remove_tree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
            case "stop":
                self._systemd.stop(target)
            case "disable":
                self._systemd.disable(target)
            case "daemon-reload":
                self._systemd.reload()

    def _end(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._file.unlink(missing_ok=True)
        if self._file.parent.is_dir() and not any(self._file.parent.iterdir()):
            self._file.parent.rmdir()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
