"""What tests left on the machine: processes, mounts, network namespaces. Used by conftest.py at the end of a session.

Only what is this session's counts, for others may run beside it: its processes carry a mark in their environment or hold something
open in its folder, its mounts are in that folder, its namespaces are called "es", a word and its process id. What containerd has is looked after
where it is run (edgesite/testing/containerd.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MARK", "left_over", "remove"]

MARK = "TESTS_FOLDER"  #: environment variable that processes of the session have, with its folder
_NAMESPACES = Path("/run/netns")


def left_over(folder: Path) -> list[str]:
    """Return what is there of the session with that folder, in words."""
    processes = [f"process {pid}: {_described(pid)}" for pid in _processes(folder)]
    mounts = [f"mount {place}" for place in _mounts(folder)]
    return processes + mounts + [f"network namespace {name}" for name in _namespaces()]


def remove(folder: Path) -> None:
    """End and remove what can be."""
    for pid in _processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for place in reversed(_mounts(folder)):
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
    for name in _namespaces():
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _processes(folder: Path) -> list[int]:
    own = {os.getpid(), os.getppid()}
    numbers = (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit())
    return sorted(pid for pid in numbers if pid not in own and _is_ours(pid, folder))


def _is_ours(pid: int, folder: Path) -> bool:
    mark, inside = f"{MARK}={folder}\0".encode(), f"{folder}/"
    place = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):  # it has just ended
        if (place / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
        if mark in (place / "environ").read_bytes() or inside.encode() in (place / "cmdline").read_bytes():
            return True
        return any(target.startswith(inside) for target in _targets(place))
    return False


def _targets(place: Path) -> Iterator[str]:
    """Where a process is, and what it has open."""
    for link in (place / "cwd", *(place / "fd").iterdir()):
        with contextlib.suppress(OSError):
            yield os.readlink(link)


def _described(pid: int) -> str:
    """Its command, and the test that started it, where it says so."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:300]
        variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        test = next((one for one in variables if one.startswith("PYTEST_CURRENT_TEST=")), "")
        return f"{command} {test}".strip()
    return "ended meanwhile"


def _mounts(folder: Path) -> list[str]:
    """Mount points in the folder, in the order in which they were made."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [place for line in lines if (place := line.split(" ")[4]).startswith(f"{folder}/")]


def _namespaces() -> list[str]:
    names = [one.name for one in _NAMESPACES.iterdir()] if _NAMESPACES.is_dir() else []
    return [name for name in names if re.fullmatch(rf"es[a-z]+{os.getpid()}(-\d+)?", name)]
