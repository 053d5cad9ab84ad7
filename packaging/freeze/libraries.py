"""Compiled files of the bundle: stripped, and finding the bundle's libraries by where they lie themselves.

PyInstaller's start-up finds libraries by LD_LIBRARY_PATH. That would reach every program of the host that ours starts, so that the entry
takes it away; our own helper processes then have nothing but what is in the files.

Errors  CalledProcessError.
State   Copies in a folder; the originals stay as they are.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path, PurePosixPath

__all__ = ["Entry", "prepared"]

Entry = tuple[str, str, str]  #: name in the bundle, path, PyInstaller's kind


def prepared(entries: list[Entry], patchelf: str, folder: Path) -> list[Entry]:
    """Return the entries with compiled files replaced by prepared copies in ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    ours = {name for name, _, _ in entries if "/" not in name}
    return [_prepared(entry, ours, patchelf, folder) for entry in entries]


def _prepared(entry: Entry, ours: set[str], patchelf: str, folder: Path) -> Entry:
    name, path, kind = entry
    if kind not in ("BINARY", "EXTENSION"):
        return entry
    copy = folder / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    copy.chmod(0o755)
    subprocess.run(["strip", str(copy)], check=True)
    needed = _output(patchelf, "--print-needed", copy).split()
    if ours.intersection(needed) or _output(patchelf, "--print-rpath", copy).strip():
        up = "/..".join(["$ORIGIN"] + [""] * (len(PurePosixPath(name).parts) - 1))
        subprocess.run([patchelf, "--set-rpath", up, str(copy)], check=True)
    return name, str(copy), kind


def _output(*argv: object) -> str:
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True).stdout
