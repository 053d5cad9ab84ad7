"""What a benchmark leaves that was killed: found by its folder and removed when the next one starts, before anything is measured.

Everything of a benchmark is named by its folder: programs have it among their arguments, mounts are below it, and a note in it tells of its
containerd. Folders whose benchmark runs, and those of whatever else, are left alone.

Errors  OSError, RuntimeError for what cannot be removed.
State   The file `OWNER` in the folder: process and start time of who made it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgesite.testing.containerd import close_noted

__all__ = ["CONTAINERD", "PREFIX", "claim", "remove_abandoned", "unmount_below"]

PREFIX: Final = ".bench-"
OWNER: Final = "owner"
CONTAINERD: Final = "containerd"  #: the note
_START: Final = 19  #: of what follows a process's name in /proc/PID/stat
_PARENT: Final = 1


def claim(folder: Path) -> None:
    """Say that a folder is this process's."""
    (folder / OWNER).write_text(f"{os.getpid()} {_stat(os.getpid())[_START]}")


def remove_abandoned(parent: Path) -> None:
    """Remove what benchmarks have left that made their folders in ``parent`` and were killed."""
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        if _is_abandoned(folder):
            print(f"removing what a benchmark left in {folder.name}", flush=True)
            _end(_programs(folder))
            if (note := folder / CONTAINERD).is_file():
                close_noted(note)
            unmount_below(folder)
            shutil.rmtree(folder)


def unmount_below(folder: Path) -> None:
    """Pods that were left to their runtime have volumes in memory."""
    with open("/proc/self/mountinfo") as lines:
        places = [line.split(" ", 5)[4] for line in lines]
    for place in reversed([one for one in places if one.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", place], check=False)


def _is_abandoned(folder: Path) -> bool:
    try:
        pid, started = (folder / OWNER).read_text().split()
    except (OSError, ValueError):
        return False  # just being made, or of another make
    try:
        return _stat(int(pid))[_START] != started
    except OSError:
        return True


def _stat(pid: int) -> list[str]:
    """Raises OSError when there is no such process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _programs(folder: Path) -> list[int]:
    """Processes that were started with something in a folder, and those that they have started."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                parents[int(entry.name)] = int(_stat(int(entry.name))[_PARENT])
                if f"{folder}/".encode() in (entry / "cmdline").read_bytes():
                    found.add(int(entry.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def _end(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
