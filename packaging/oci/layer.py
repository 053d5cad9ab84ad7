"""A file tree in memory and the layer made of it: the same tree gives the same bytes, whoever builds it and when.

Source  OCI image-spec v1, layer filesystem changesets (tar, digest of the packed and of the plain form).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["Layer", "Tree"]

_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class _Node:
    kind: bytes  #: of tarfile
    mode: int
    owner: int  #: user and group
    data: bytes | Path = b""
    target: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    """A packed layer in a file."""

    path: Path
    digest: str  #: of the file, "sha256:…"
    diff_id: str  #: of the plain tar
    size: int


class Tree:
    """Paths are relative to the root, without a slash at either end."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}

    def folder(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        self._nodes[path] = _Node(tarfile.DIRTYPE, mode, owner)

    def file(self, path: str, data: bytes | Path, mode: int = 0o644, owner: int = 0) -> None:
        self._parents(path)
        self._nodes[path] = _Node(tarfile.REGTYPE, mode, owner, data)

    def link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._parents(path)
        self._nodes[path] = _Node(tarfile.SYMTYPE, 0o777, 0, target=target)

    def copy(self, source: Path, into: str) -> None:
        """Take a folder of the host with all that is in it; owner root, not writable by others. Raises OSError."""
        for folder, folders, files in os.walk(source):
            place = "/".join([into, *Path(folder).relative_to(source).parts])
            self._parents(f"{place}/x")
            for name in (*folders, *files):
                entry = Path(folder, name)
                if entry.is_symlink():
                    self.link(f"{place}/{name}", os.readlink(entry))
                elif entry.is_file():
                    executable = entry.stat().st_mode & stat.S_IXUSR
                    self.file(f"{place}/{name}", entry, 0o755 if executable else 0o644)

    def paths(self) -> list[str]:
        return sorted(self._nodes)

    def write(self, path: Path, time: int) -> Layer:
        """Write the layer to a file; ``time`` is that of every entry, in seconds since the epoch. Raises OSError."""
        plain, packed = hashlib.sha256(), hashlib.sha256()
        with path.open("wb") as file:
            outer = _Tee(file, packed)
            with gzip.GzipFile("", "wb", _LEVEL, outer, mtime=0) as zipped:
                inner = _Tee(zipped, plain)  # type: ignore[arg-type]
                with tarfile.open(mode="w|", fileobj=inner, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
                    for name in self.paths():
                        self._add(archive, name, time)
        return Layer(path, f"sha256:{packed.hexdigest()}", f"sha256:{plain.hexdigest()}", path.stat().st_size)

    def _add(self, archive: tarfile.TarFile, name: str, time: int) -> None:
        node = self._nodes[name]
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname, info.mtime = node.kind, node.mode, node.target, time
        info.uid = info.gid = node.owner
        if isinstance(node.data, Path):
            info.size = node.data.stat().st_size
            with node.data.open("rb") as file:
                archive.addfile(info, file)
        else:
            info.size = len(node.data)
            archive.addfile(info, io.BytesIO(node.data))

    def _parents(self, path: str) -> None:
        parts = path.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            parent = "/".join(parts[:count])
            if parent not in self._nodes:
                self.folder(parent)


class _Tee:
    """Writes to a file and hashes what it writes."""

    def __init__(self, file: IO[bytes], digest: hashlib._Hash) -> None:
        self._file = file
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
