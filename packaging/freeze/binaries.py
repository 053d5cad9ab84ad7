"""Binary packages from Debian's archive: the newest of a release and its updates.

Errors  BuildFailed.
Source  Debian Repository Format (Packages); deb(5); the format of ar archives.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from command import BuildFailed
from mirror import MIRROR, SECURITY, Mirror, is_newer

__all__ = ["Binary", "Release", "contents", "suites_of"]

_AR_HEAD: Final = 60


@dataclass(frozen=True, slots=True)
class Binary:
    """One version of a package for one architecture."""

    name: str
    version: str
    url: str
    sha256: str
    stanza: str  #: its entry in the index


class Release:
    """The packages of one architecture, by Debian's name for it."""

    def __init__(self, architecture: str, cache: Path, suites: Sequence[tuple[str, str]]) -> None:
        """``suites`` are mirrors' URLs, each with the name of a folder below its ``dists``."""
        self._architecture = architecture
        self._mirror = Mirror(cache)
        self._suites = suites

    def find(self, names: Iterable[str]) -> dict[str, Binary]:
        """Return the newest version of each. Raises BuildFailed."""
        wanted = set(names)
        found: dict[str, Binary] = {}
        for url, suite in self._suites:
            for block in self._mirror.index(url, suite, f"main/binary-{self._architecture}/Packages.xz"):
                if not block.startswith("Package: ") or block[9 : block.index("\n")] not in wanted:
                    continue
                one = _parsed(block, url)
                if one.name not in found or is_newer(one.version, found[one.name].version):
                    found[one.name] = one
        if missing := sorted(wanted - found.keys()):
            raise BuildFailed(f"Debian {self._suites[0][1]} has no {', '.join(missing)} for {self._architecture}")
        return found

    def fetch(self, package: Binary) -> Path:
        """Return the package's file. Raises BuildFailed."""
        return self._mirror.file(package.url, package.sha256, f"{package.name} {package.version}")


def suites_of(release: str) -> list[tuple[str, str]]:
    """Return where the packages of a release and its updates are, for `Release`."""
    return [(MIRROR, release), (MIRROR, f"{release}-updates"), (SECURITY, f"{release}-security")]


def contents(package: Path) -> tarfile.TarFile:
    """Open the files of a package. Raises BuildFailed."""
    data = package.read_bytes()
    if not data.startswith(b"!<arch>\n"):
        raise BuildFailed(f"{package} is no Debian package")
    at = 8
    while at + _AR_HEAD <= len(data):
        name = data[at : at + 16].decode("ascii").strip().rstrip("/")
        size = int(data[at + 48 : at + 58])
        at += _AR_HEAD
        if name in ("data.tar.xz", "data.tar.gz"):
            return tarfile.open(fileobj=io.BytesIO(data[at : at + size]))
        at += size + size % 2
    raise BuildFailed(f"{package} has no data.tar.xz")


def _parsed(stanza: str, mirror: str) -> Binary:
    rows = (line.partition(": ") for line in stanza.split("\n") if not line.startswith(" "))
    fields = {name: value for name, _, value in rows}
    url = f"{mirror}/{fields['Filename']}"
    return Binary(fields["Package"], fields["Version"], url, fields["SHA256"], stanza.strip())
