"""Wheels: read, checked against their RECORD, and unpacked.

A wheel is a ZIP archive with NAME-VERSION.dist-info/{METADATA,WHEEL,RECORD}. Every file must be in RECORD with its hash and size. What runs
by itself or lands outside of the folder is refused: paths that lead elsewhere, links, ``.pth`` files.

Errors  BadWheel: the file cannot be used; the message says why.
Bounds  The number and the size of files, also of those that say less than they unpack to.
Source  Python packaging user guide: binary distribution format (PEP 427), recording installed projects (PEP 376, PEP 627).
"""

from __future__ import annotations

import base64
import configparser
import csv
import email.parser
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from edgesite.hookspecs import GROUP

if TYPE_CHECKING:
    from packaging.tags import Tag

__all__ = ["BadWheel", "Wheel", "open_wheel"]

_MOST_FILES: Final = 20_000
_MOST_BYTES: Final = 512 << 20
_CHUNK_BYTES: Final = 1 << 20
_HASHES: Final = ("sha256", "sha384", "sha512")
_UNRECORDED: Final = ("RECORD", "RECORD.jws", "RECORD.p7s")
#: Places of ``NAME.data`` that become part of the package, and those that are for other tools and left out.
_DATA_IN: Final = frozenset({"purelib", "platlib"})
_DATA_OUT: Final = frozenset({"scripts", "headers"})


class BadWheel(ValueError):
    """Not a wheel that may be installed."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """An opened wheel. ``files`` maps where a file goes to what it is in the archive; ``hashes`` has the latter's RECORD."""

    path: Path
    name: str  #: normalised
    version: str
    tags: frozenset[Tag]
    requires: tuple[str, ...]
    requires_python: str
    entry_points: Mapping[str, str]  #: of our group
    dist_info: str
    files: Mapping[str, zipfile.ZipInfo]
    hashes: Mapping[str, tuple[str, str, int]]  #: algorithm, digest, size
    _archive: zipfile.ZipFile

    def unpack(self, into: Path) -> None:
        """Write all files below ``into``, each checked against RECORD, and a RECORD of what was written. Raises BadWheel, OSError."""
        rows = []
        for target, info in self.files.items():
            if PurePosixPath(target).name in _UNRECORDED and PurePosixPath(target).parent.name == self.dist_info:
                continue
            self._unpack_one(info, into / target)
            algorithm, digest, size = self.hashes[info.filename]
            rows.append((target, f"{algorithm}={digest}", str(size)))
        own = f"{self.dist_info}/INSTALLER"
        (into / own).write_text("edgesite\n")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (own, "", ""), (f"{self.dist_info}/RECORD", "", "")])
        (into / self.dist_info / "RECORD").write_text(text.getvalue())

    def _unpack_one(self, info: zipfile.ZipInfo, target: Path) -> None:
        algorithm, expected, size = self.hashes[info.filename]
        digest, count = hashlib.new(algorithm), 0
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            with self._archive.open(info) as source, target.open("xb") as out:
                while chunk := source.read(_CHUNK_BYTES):
                    count += len(chunk)
                    if count > size:
                        break
                    digest.update(chunk)
                    out.write(chunk)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as exc:
            raise BadWheel(f"{self.path.name}: {info.filename}: {exc}") from exc
        except FileExistsError:
            raise BadWheel(f"{self.path.name}: {info.filename} is in another of the wheels too") from None
        found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        if count != size or found != expected:
            raise BadWheel(
                f"{self.path.name}: {info.filename} is not what RECORD says: damaged, or changed after it was built"
            )


@contextmanager
def open_wheel(path: Path) -> Iterator[Wheel]:
    """Open a wheel and check all but the contents of its files. Raises BadWheel, OSError."""
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
    except InvalidWheelFilename as exc:
        raise BadWheel(f"{path.name} is no name of a wheel: {exc}") from None
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as exc:
        raise BadWheel(f"{path.name}: {exc}") from None
    with archive:
        yield _read(path, archive, str(name), str(version), tags)


def _read(path: Path, archive: zipfile.ZipFile, name: str, version: str, tags: frozenset[Tag]) -> Wheel:
    members = _members(path, archive)
    dist_info = _dist_info(path, members, name)
    hashes = _record(path, archive, members, dist_info)
    metadata = email.parser.HeaderParser().parsestr(_text(path, archive, members, f"{dist_info}/METADATA"))
    described = email.parser.HeaderParser().parsestr(_text(path, archive, members, f"{dist_info}/WHEEL"))
    if not (described.get("Wheel-Version") or "").startswith("1."):
        raise BadWheel(f"{path.name}: a wheel of format {described.get('Wheel-Version')}; 1.x is read here")
    if (canonicalize_name(metadata.get("Name") or ""), metadata.get("Version")) != (name, version):
        raise BadWheel(f"{path.name}: METADATA speaks of {metadata.get('Name')} {metadata.get('Version')}")
    return Wheel(
        path=path,
        name=name,
        version=version,
        tags=tags,
        requires=tuple(metadata.get_all("Requires-Dist") or ()),
        requires_python=metadata.get("Requires-Python") or "",
        entry_points=_entry_points(path, archive, members, dist_info),
        dist_info=dist_info,
        files=_targets(path, members),
        hashes=hashes,
        _archive=archive,
    )


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of the archive by name. Raises BadWheel for what has no place in a wheel."""
    found: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    total = 0
    for info in archive.infolist():
        if info.is_dir():
            continue
        name = info.filename
        parts = name.split("/")
        if not name.isprintable() or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
            raise BadWheel(f"{path.name}: the file name {name!r} leads elsewhere")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise BadWheel(f"{path.name}: {name} is no plain file")
        if info.flag_bits & 0x1:
            raise BadWheel(f"{path.name}: {name} is encrypted")
        if name.endswith(".pth"):
            raise BadWheel(f"{path.name}: {name} would run code in every Python program of the host")
        if name.lower() in folded:
            raise BadWheel(f"{path.name}: {name} is there twice")
        folded.add(name.lower())
        total += info.file_size
        found[name] = info
        if len(found) > _MOST_FILES or total > _MOST_BYTES:
            raise BadWheel(f"{path.name}: more than {_MOST_FILES} files or {_MOST_BYTES >> 20} MiB")
    return found


def _dist_info(path: Path, members: Mapping[str, zipfile.ZipInfo], name: str) -> str:
    found = {top for one in members if (top := one.split("/")[0]).endswith(".dist-info")}
    if len(found) != 1:
        raise BadWheel(f"{path.name}: {len(found)} folders .dist-info, where there must be one")
    folder = found.pop()
    if canonicalize_name(folder.removesuffix(".dist-info").rpartition("-")[0]) != name:
        raise BadWheel(f"{path.name}: its folder is {folder}")
    return folder


def _record(
    path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], dist_info: str
) -> dict[str, tuple[str, str, int]]:
    """The hash and size of every file. Raises BadWheel if one has none, or if one is missing."""
    rows: dict[str, tuple[str, str, int]] = {}
    text = _text(path, archive, members, f"{dist_info}/RECORD")
    for row in csv.reader(io.StringIO(text)):
        if len(row) != 3:
            raise BadWheel(f"{path.name}: RECORD is malformed")
        algorithm, _, digest = row[1].partition("=")
        if algorithm in _HASHES and row[2].isdigit():
            rows[row[0]] = (algorithm, digest.rstrip("="), int(row[2]))
        elif algorithm:
            raise BadWheel(f"{path.name}: RECORD has a {algorithm} hash; {', '.join(_HASHES)} are accepted")
    free = {f"{dist_info}/{one}" for one in _UNRECORDED}
    if missing := members.keys() - rows.keys() - free:
        raise BadWheel(f"{path.name}: {min(missing)} is not in RECORD")
    if gone := rows.keys() - members.keys():
        raise BadWheel(f"{path.name}: {min(gone)} of RECORD is not there")
    return rows


def _entry_points(
    path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], dist_info: str
) -> dict[str, str]:
    name = f"{dist_info}/entry_points.txt"
    if name not in members:
        return {}
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(_text(path, archive, members, name))
    except configparser.Error as exc:
        raise BadWheel(f"{path.name}: entry_points.txt: {exc}") from None
    return dict(parser[GROUP]) if parser.has_section(GROUP) else {}


def _targets(path: Path, members: Mapping[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Where each file goes; those for other tools go nowhere. Raises BadWheel."""
    found: dict[str, zipfile.ZipInfo] = {}
    for name, info in members.items():
        top, _, rest = name.partition("/")
        target = name
        if top.endswith(".data"):
            place, _, target = rest.partition("/")
            if place in _DATA_OUT:
                continue
            if place not in _DATA_IN or not target:
                raise BadWheel(f"{path.name}: {name} would go outside of the plugin's folder")
        if target in found:
            raise BadWheel(f"{path.name}: {target} is there twice")
        found[target] = info
    return found


def _text(path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> str:
    if name not in members:
        raise BadWheel(f"{path.name}: there is no {os.path.basename(name)}")
    try:
        with archive.open(members[name]) as file:
            data = file.read(_CHUNK_BYTES * 8 + 1)
        if len(data) > _CHUNK_BYTES * 8:
            raise BadWheel(f"{path.name}: {name} is too long")
        return data.decode()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, UnicodeDecodeError) as exc:
        raise BadWheel(f"{path.name}: {name}: {exc}") from exc
