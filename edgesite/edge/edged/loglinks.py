"""Names for container logs in one flat folder, beside the root of logs, where collectors of logs look for them.

    /var/log/containers/<pod>_<namespace>_<container>-<id>.log -> /var/log/pods/<namespace>_<pod>_<uid>/<container>/<attempt>.log

Blocking: call it in a thread.

Errors  OSError.
Source  Kubernetes v1.22, pkg/kubelet/kuberuntime/legacy.go (the name, and its length).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edgesite.edge.edged.pod import Pod

__all__ = ["add_link", "remove_links"]

MOST: Final = 251  #: of a name without its ending


def add_link(folder: Path, pod: Pod, container: str, container_id: str, log: str) -> None:
    """Give a log its name. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{pod.name}_{pod.namespace}_{container}-{container_id}"[:MOST]
    try:
        os.symlink(log, folder / f"{name}.log")
    except FileExistsError:
        return  # made before, by whoever started the container


def remove_links(folder: Path, below: Path) -> None:
    """Remove the names of logs in or below a folder, or of one file. Raises OSError."""
    for entry in folder.glob("*.log"):
        try:
            target = os.readlink(entry)
        except OSError:
            continue  # not a link, or just gone
        if target == str(below) or target.startswith(f"{below}/"):
            entry.unlink(missing_ok=True)
