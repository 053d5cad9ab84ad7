"""Termination messages: what a container left for its pod's status.

A container may have put anything in the file's place, to make this program read or wait for what it cannot itself: only a
plain file counts, never what a symbolic link leads to.

Source  Kubernetes: "Determine the Reason for Pod Failure": at most 4096 bytes from the file, or 2048 bytes or 80 lines from the log.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from edgesite.edge.edged.runtime import ANNOTATION_TERMINATION_PATH, ANNOTATION_TERMINATION_POLICY, ContainerStatus

__all__ = ["termination_message"]

FILE_BYTES: Final = 4096
LOG_BYTES: Final = 2048
LOG_LINES: Final = 80
_LOG_OVERHEAD: Final = 4  #: How much longer the log is than what it says: each line begins with a time and a stream.


def termination_message(status: ContainerStatus) -> str:
    """Return the last words of an ended container, "" if it left none. Blocking: call it in a thread."""
    path = status.annotations.get(ANNOTATION_TERMINATION_PATH, "")
    mounted = next((one.host_path for one in status.mounts if one.container_path == path), "")
    text = _tail(Path(mounted), FILE_BYTES).decode(errors="replace") if mounted else ""
    if text or not status.exit_code or status.annotations.get(ANNOTATION_TERMINATION_POLICY) != "FallbackToLogsOnError":
        return text
    log = _tail(Path(status.log_path), LOG_BYTES * _LOG_OVERHEAD, links=0)  # some runtimes put a link there
    lines = log.decode(errors="replace").split("\n")[-LOG_LINES - 1 :]
    # Time, stream, tags, text. A line that is tagged P goes on with the next.
    said = [parts for line in lines if len(parts := line.split(" ", 3)) == 4]
    return "".join(text if tags.startswith("P") else f"{text}\n" for _, _, tags, text in said)[-LOG_BYTES:]


def _tail(path: Path, size: int, *, links: int = os.O_NOFOLLOW) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | links)
    except OSError:
        return b""  # gone, never written, or a link: then there is no message
    try:
        found = os.fstat(descriptor)
        return os.pread(descriptor, size, max(found.st_size - size, 0)) if stat.S_ISREG(found.st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)
