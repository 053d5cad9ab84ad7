"""Debian's archive: indices that its keys have signed, and files that these indices name.

Errors  BuildFailed.
State   What was fetched, in a folder: indices and packages by their SHA-256, others by name.
Source  Debian Repository Format (InRelease, by-hash). Debian Policy, section 5.6.12 (order of versions, done by dpkg).
"""

from __future__ import annotations

import functools
import hashlib
import lzma
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from command import BuildFailed, install, run

__all__ = ["MIRROR", "SECURITY", "Mirror", "lists", "newest_first", "read"]

MIRROR: Final = "http://deb.debian.org/debian"
SECURITY: Final = "http://deb.debian.org/debian-security"
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT_S: Final = 120
_Versioned = TypeVar("_Versioned")


class Mirror:
    """Fetches each file once. A mirror is named by its URL, a suite by its folder below ``dists``."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        cache.mkdir(parents=True, exist_ok=True)

    def index(self, mirror: str, suite: str, name: str) -> list[str]:
        """Return the paragraphs of an index such as ``main/source/Sources.xz``. Raises BuildFailed."""
        place = f"{mirror}/dists/{suite}"
        digest = _digest_in(self._signed(place), name)
        if digest is None:
            raise BuildFailed(f"{place} lists no {name}")
        url = f"{place}/{name.rpartition('/')[0]}/by-hash/SHA256/{digest}"
        packed = self.file(url, digest)
        return lzma.decompress(packed.read_bytes()).decode().split("\n\n")

    def file(self, url: str, digest: str, *, name: str = "") -> Path:
        """Return a file of which the SHA-256 is known; ``name`` is what it is kept as. Raises BuildFailed."""
        target = self._cache / (name or digest)
        if not (target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == digest):
            data = read(url)
            if hashlib.sha256(data).hexdigest() != digest:
                raise BuildFailed(f"{url} is not what the archive's index says")
            target.write_bytes(data)
        return target

    def _signed(self, place: str) -> str:
        """Return what the archive's keys have signed. Raises BuildFailed."""
        if not _KEYRING.is_file():
            install("debian-archive-keyring")
        url = f"{place}/InRelease"
        message = self._cache / f"InRelease-{place.rpartition('/')[2]}"
        message.write_bytes(read(url))
        try:
            return run(["gpgv", "--quiet", f"--keyring={_KEYRING}", "--output", "-", message])
        except BuildFailed as exc:
            raise BuildFailed(f"{url} is not signed by the archive's keys: {exc}") from None


def read(url: str) -> bytes:
    """Raises BuildFailed."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read()
            return data
    except (OSError, urllib.error.URLError) as exc:
        raise BuildFailed(f"{url}: {exc}") from None


def lists(mirror: str, suite: str, name: str) -> bool:
    """Whether a mirror has an index: security updates end for one architecture before they end for another. Raises BuildFailed."""
    request = urllib.request.Request(f"{mirror}/dists/{suite}/{name}", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return True
    except urllib.error.HTTPError as exc:
        if exc.code == 404:
            return False
        raise BuildFailed(f"{request.full_url}: {exc}") from None
    except OSError as exc:
        raise BuildFailed(f"{request.full_url}: {exc}") from None


def newest_first(found: Iterable[_Versioned], version: Callable[[_Versioned], str]) -> list[_Versioned]:
    """Sort by Debian's order of versions."""

    def compare(one: _Versioned, other: _Versioned) -> int:
        if version(one) == version(other):
            return 0
        order = ["dpkg", "--compare-versions", version(one), "gt", version(other)]
        return 1 if subprocess.run(order, check=False).returncode == 0 else -1

    return sorted(found, key=functools.cmp_to_key(compare), reverse=True)


def _digest_in(release: str, name: str) -> str | None:
    _, _, listed = release.partition("\nSHA256:\n")
    for line in listed.split("\n"):
        if not line.startswith(" "):
            break
        digest, _, path = line.split()
        if path == name:
            return digest
    return None
