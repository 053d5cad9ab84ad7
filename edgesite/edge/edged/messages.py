"""Termination messages: what a container left for its pod's status.

Source  Kubernetes: "Determine the Reason for Pod Failure": at most 4096 bytes from the file, or 2048 bytes or 80 lines from the log.
"""

from __future__ import annotations

import os
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
    lines = _tail(Path(status.log_path), LOG_BYTES * _LOG_OVERHEAD).decode(errors="replace").splitlines()[-LOG_LINES:]
    said = [parts[3] for line in lines if len(parts := line.split(" ", 3)) == 4]
    return ("\n".join(said) + "\n")[-LOG_BYTES:] if said else ""


def _tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - size, 0))
            return file.read(size)
    except OSError:
        return b""  # gone, or never written: then there is no message
