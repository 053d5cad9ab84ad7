"""Binary packages from Debian's archive: the newest of a release and its updates.

Errors  BuildFailed.
Source  Debian Repository Format (Packages); deb(5); the format of ar archives.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from command import BuildFailed, say
from mirror import MIRROR, SECURITY, Mirror, lists, newest_first

__all__ = ["Binary", "Release", "contents", "suites_of", "unpack"]

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
        """``suites`` are mirrors' URLs, each with the name of a folder below its ``dists``; the first has all packages."""
        self._architecture = architecture
        self._mirror = Mirror(cache)
        self._suites = suites
        self._stanzas: dict[str, list[tuple[str, str]]] = {}  # package → its versions, each with the mirror that has it

    def newest(self, name: str) -> tuple[Binary, Path]:
        """Return the newest version of a package that the mirror still has, and its file. Raises BuildFailed."""
        problems = []
        found = [_parsed(stanza, url) for stanza, url in self._listed().get(name, ())]
        for one in newest_first(found, lambda one: one.version):
            try:
                return one, self._mirror.file(one.url, one.sha256)
            except BuildFailed as exc:  # mirrors drop what the archive has closed for an architecture
                problems.append(str(exc))
        where = f"Debian {self._suites[0][1]} for {self._architecture}"
        raise BuildFailed(f"no {name} in {where}: {'; '.join(problems) or 'not listed'}")

    def closure(self, names: Iterable[str]) -> list[str]:
        """Return packages with those that they need, the first of alternatives. Raises BuildFailed."""
        waiting, found = list(names), set()
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            stanzas = self._listed().get(name, ())
            if stanzas:  # others are virtual, like awk: whoever needs one names the package
                found.add(name)
            for text in re.findall(r"^(?:Pre-)?Depends: (.*)$", stanzas[0][0] if stanzas else "", re.MULTILINE):
                waiting += re.findall(r"(?:^|, )([a-z0-9.+-]+)", text)
        return sorted(found)

    def _listed(self) -> dict[str, list[tuple[str, str]]]:
        if not self._stanzas:
            index = f"main/binary-{self._architecture}/Packages.xz"
            for url, suite in self._suites:
                if (url, suite) != self._suites[0] and not lists(url, suite, index):
                    say(f"{suite} has nothing for {self._architecture} any more")
                    continue
                for block in self._mirror.index(url, suite, index):
                    if block.startswith("Package: "):
                        self._stanzas.setdefault(block[9 : block.index("\n")], []).append((block, url))
        return self._stanzas


def suites_of(release: str, *, security: bool = True) -> list[tuple[str, str]]:
    """Return where the packages of a release and its updates are, for `Release`."""
    suites = [(MIRROR, release), (MIRROR, f"{release}-updates")]
    return [*suites, (SECURITY, f"{release}-security")] if security else suites


def unpack(package: Path, root: Path, *, leave_out: Sequence[str] = ()) -> list[str]:
    """Unpack a package's files into a root, through the links that are there; return their names. What has a text of ``leave_out``
    in its name stays out. Raises BuildFailed."""
    with contents(package) as archive:
        archive.extraction_filter = lambda member, _: (
            member
        )  # of a signed package: its links may lead anywhere in the root
        members = [one for one in archive if not one.isdir() and not any(part in one.name for part in leave_out)]
        archive.extractall(root, members)
        return [one.name.removeprefix("./") for one in members]


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
