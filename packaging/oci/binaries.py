"""Binary packages from Debian's archive: the newest of a release and its security updates, checked by the archive's signature.

Errors  BuildFailed.
State   Indices and packages in the cache, by their SHA-256.
Source  Debian Repository Format (InRelease, Packages, by-hash); deb(5); the format of ar archives.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from command import BuildFailed, run, say

__all__ = ["RELEASE", "Binary", "Release", "contents"]

RELEASE: Final = "bookworm"
_MIRROR: Final = "http://deb.debian.org/debian"
_SUITES: Final = (
    (_MIRROR, RELEASE),
    (_MIRROR, f"{RELEASE}-updates"),
    ("http://deb.debian.org/debian-security", f"{RELEASE}-security"),
)
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT_S: Final = 120
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

    def __init__(self, architecture: str, cache: Path, suites: Sequence[tuple[str, str]] = _SUITES) -> None:
        """``suites`` are mirrors' URLs, each with the name of a folder below its ``dists``."""
        self._architecture = architecture
        self._cache = cache
        self._suites = suites
        cache.mkdir(parents=True, exist_ok=True)

    def find(self, names: Iterable[str]) -> dict[str, Binary]:
        """Return the newest version of each. Raises BuildFailed."""
        wanted = set(names)
        found: dict[str, Binary] = {}
        for mirror, suite in self._suites:
            for one in self._listed(mirror, suite, wanted):
                if one.name not in found or _is_newer(one.version, found[one.name].version):
                    found[one.name] = one
        if missing := sorted(wanted - found.keys()):
            raise BuildFailed(f"Debian {RELEASE} has no {', '.join(missing)} for {self._architecture}")
        return found

    def fetch(self, package: Binary) -> Path:
        """Return the package's file. Raises BuildFailed."""
        return self._cached(package.url, package.sha256, f"{package.name} {package.version}")

    def _listed(self, mirror: str, suite: str, wanted: set[str]) -> list[Binary]:
        place = f"{mirror}/dists/{suite}"
        index = f"main/binary-{self._architecture}/Packages.xz"
        digest = _digest_in(_signed(f"{place}/InRelease", self._cache), index)
        if digest is None:
            raise BuildFailed(f"{place} lists no {index}")
        folder = index.rpartition("/")[0]
        packed = self._cached(f"{place}/{folder}/by-hash/SHA256/{digest}", digest, f"index of {suite}")
        text = lzma.decompress(packed.read_bytes()).decode()
        stanzas = (one for one in text.split("\n\n") if one.startswith("Package: "))
        return [_parsed(one, mirror) for one in stanzas if one[9 : one.index("\n")] in wanted]

    def _cached(self, url: str, digest: str, what: str) -> Path:
        target = self._cache / digest
        if not (target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == digest):
            say(f"fetch {what}")
            data = _read(url)
            if hashlib.sha256(data).hexdigest() != digest:
                raise BuildFailed(f"{url} is not what the archive's index says")
            target.write_bytes(data)
        return target


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


def _signed(url: str, folder: Path) -> str:
    """Return what the archive's keys have signed. Raises BuildFailed."""
    if not _KEYRING.is_file():
        raise BuildFailed(f"{_KEYRING} is missing: install debian-archive-keyring and gpgv")
    message = folder / "InRelease"
    message.write_bytes(_read(url))
    try:
        return run(["gpgv", "--quiet", f"--keyring={_KEYRING}", "--output", "-", message])
    except BuildFailed as exc:
        raise BuildFailed(f"{url} is not signed by the archive's keys: {exc}") from None


def _digest_in(release: str, name: str) -> str | None:
    _, _, listed = release.partition("\nSHA256:\n")
    for line in listed.split("\n"):
        if not line.startswith(" "):
            break
        digest, _, path = line.split()
        if path == name:
            return digest
    return None


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read()
            return data
    except (OSError, urllib.error.URLError) as exc:
        raise BuildFailed(f"{url}: {exc}") from None


def _is_newer(version: str, than: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", version, "gt", than], check=False).returncode == 0
