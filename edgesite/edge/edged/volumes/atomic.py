"""Files that change all at once: a folder per version, and a symbolic link that is swapped.

    target/..2026_01_02_03_04_05.123/key     one version
    target/..data -> ..2026_01_02_03_04_05.123
    target/key -> ..data/key                 what containers open

Blocking: call it in a thread. A crash at any point leaves either the old version or the new one in place, and the next write
clears what was left over.

Errors  OSError.
Source  Kubernetes volumes of kind configMap, secret, downwardAPI, projected: names of the links, and that readers never see a mix.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["File", "write_payload"]

_DATA: Final = "..data"
_NEXT: Final = "..data_tmp"


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int = 0o644
    user: int | None = None  #: whom it belongs to; None: to us


def write_payload(target: Path, payload: Mapping[str, File], version: str, group: int | None = None) -> bool:
    """Make ``target`` hold exactly ``payload`` (by relative path) and return whether anything changed. Raises OSError.

    ``version`` names the new folder and must not have been used before; ``group`` is who may read it, where that matters.
    """
    target.mkdir(parents=True, exist_ok=True)
    link = target / _DATA
    old = os.readlink(link) if link.is_symlink() else ""
    if old and _same(target / old, payload):
        return False
    fresh = target / f"..{version}"
    fresh.mkdir(mode=0o755)
    fresh.chmod(0o755)
    for name, file in payload.items():
        _write(fresh, name, file, group)
    (target / _NEXT).unlink(missing_ok=True)
    os.symlink(fresh.name, target / _NEXT)
    os.replace(target / _NEXT, link)
    _link_names(target, payload)
    for entry in target.iterdir():
        if entry.name.startswith("..") and entry.name not in (_DATA, fresh.name):
            shutil.rmtree(entry, ignore_errors=True)
    return True


def _same(current: Path, payload: Mapping[str, File]) -> bool:
    found = {}
    for folder, _, names in os.walk(current):
        for name in names:
            path = Path(folder, name)
            found[path.relative_to(current).as_posix()] = path
    if found.keys() != payload.keys():
        return False
    return all(
        path.read_bytes() == payload[name].content and path.stat().st_mode & 0o7777 == payload[name].mode
        for name, path in found.items()
    )


def _write(folder: Path, name: str, file: File, group: int | None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "wb") as out:
        out.write(file.content)
        if group is not None or file.user is not None:
            os.fchown(out.fileno(), -1 if file.user is None else file.user, -1 if group is None else group)
        os.fchmod(out.fileno(), file.mode)


def _link_names(target: Path, payload: Mapping[str, File]) -> None:
    wanted = {PurePosixPath(name).parts[0] for name in payload}
    for name in wanted:
        if not (target / name).is_symlink():
            os.symlink(f"{_DATA}/{name}", target / name)
    for entry in target.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
