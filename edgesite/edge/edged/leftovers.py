"""Folders of pods that have ended while edgesite was being stopped: volumes, sub-paths and logs that nobody would remove any more.

Only what is on record as ended goes: after a loss of the store the cloud sends its pods again, and their data must be there.

Errors  OSError.
State   None.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.volumes import subpaths
from edgesite.edge.edged.volumes.host import remove_tree

__all__ = ["found_uids", "remove_leftovers"]


def found_uids(paths: Paths) -> set[str]:
    """Return the uids of pods that have folders here. Blocking."""
    folders = {one.name for one in _inside(paths.pods)}
    return folders | {one.name.rpartition("_")[2] for one in _inside(paths.logs) if one.name.count("_") >= 2}


def remove_leftovers(paths: Paths, uid: str) -> None:
    """Remove the folders of a pod that has ended. Blocking. Raises OSError."""
    subpaths.release(paths.sub_paths(uid))
    remove_tree(paths.pod(uid))
    for folder in _inside(paths.logs):
        if folder.name.endswith(f"_{uid}"):
            shutil.rmtree(folder, ignore_errors=True)


def _inside(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from (one for one in root.iterdir() if one.is_dir() and not one.is_symlink())
