"""Small reads and writes of the supervisor: processes as the kernel shows them, and JSON files. Standard library only.

Errors  None: what cannot be read is empty, 0 or None.
Source  proc(5).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MARK", "children", "kill", "load", "mark", "oom_kills", "read", "start_ticks", "store"]

MARK = "EDGESITE_CONTAINER"  #: Environment variable that names the container to each process in it; strays are found by it.


def read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def load(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def store(path: str, value: dict[str, Any]) -> None:
    """Replace a file as a whole: a reader, or a crash, never meets half of it. Raises OSError."""
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with its id, what tells it from every other. 0: gone or a zombie."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else 0


def children() -> list[int]:
    """This process's own children; those of a dead child come to it too, as it is their subreaper."""
    return [int(one) for one in read(f"/proc/self/task/{os.getpid()}/children").split()]


def mark(pid: int | str) -> str:
    """The container that a process belongs to, or ""."""
    for one in read(f"/proc/{pid}/environ").split("\0"):
        name, _, value = one.partition("=")
        if name == MARK:
            return value
    return ""


def oom_kills(path: str) -> int:
    """How many processes of a control group were killed for want of memory."""
    for line in read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
