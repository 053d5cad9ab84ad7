"""Source packages from Debian's archive: the newest that the mirror has, checked against the archive's index.

Errors  BuildFailed.
Source  Debian Repository Format: Sources indices. Debian Policy, section 5.6.12 (order of versions, done by dpkg).
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from command import BuildFailed, install, run, say

__all__ = ["MIRROR", "SECURITY", "Source", "fetch", "unpack"]

MIRROR: Final = "http://deb.debian.org/debian"
SECURITY: Final = "http://deb.debian.org/debian-security"
_TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True)
class Source:
    """One version of a source package."""

    package: str
    version: str
    place: str  #: URL of its folder
    files: dict[str, str]  #: name → SHA-256


def fetch(package: str, suite: str, into: Path) -> tuple[Source, list[Path]]:
    """Return the newest version whose files the mirror still has, and these. Raises BuildFailed."""
    into.mkdir(parents=True, exist_ok=True)
    found = [
        *_listed(package, f"{SECURITY}/dists/{suite}-security", SECURITY, into),
        *_listed(package, f"{MIRROR}/dists/{suite}", MIRROR, into),
    ]
    problems = []
    while found:
        newest = found[0]
        for one in found[1:]:
            if _is_newer(one.version, newest.version):
                newest = one
        found.remove(newest)
        try:
            return newest, [_download(newest, name, into) for name in newest.files]
        except BuildFailed as exc:  # mirrors drop the files of a version before its line in the index, and the reverse
            problems.append(str(exc))
    raise BuildFailed(f"no source of {package} in {suite}: {'; '.join(problems) or 'not listed'}")


def unpack(files: list[Path], tree: Path, without: frozenset[str]) -> list[str]:
    """Unpack the original source and apply Debian's patches but for those named; returns what was applied. Raises BuildFailed."""
    if shutil.which("patch") is None:
        install("patch")
    tree.mkdir(parents=True)
    (original,) = [one for one in files if ".orig.tar." in one.name]
    (debian,) = [one for one in files if ".debian.tar." in one.name]
    run(["tar", "-xf", original, "-C", tree, "--strip-components=1", "--no-same-owner"])
    run(["tar", "-xf", debian, "-C", tree, "--no-same-owner"])
    names = (tree / "debian" / "patches" / "series").read_text().split("\n")
    applied = [name.split()[0] for name in names if name.strip() and not name.startswith("#")]
    applied = [name for name in applied if name not in without]
    for name in applied:
        run(["patch", "-s", "-p1", "--no-backup-if-mismatch", "-i", tree / "debian" / "patches" / name], cwd=tree)
    return applied


def _listed(package: str, index: str, mirror: str, into: Path) -> list[Source]:
    text = lzma.decompress(_read(f"{index}/main/source/Sources.xz")).decode()
    return [
        _parsed(block, package, mirror) for block in text.split("\n\n") if block.startswith(f"Package: {package}\n")
    ]


def _parsed(block: str, package: str, mirror: str) -> Source:
    fields: dict[str, str] = {}
    name = ""
    for line in block.split("\n"):
        if line.startswith(" "):
            fields[name] += line + "\n"
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip() + "\n"
    rows = [line.split() for line in fields["Checksums-Sha256"].strip().split("\n")]
    files = {row[2]: row[0] for row in rows if ".tar." in row[2] and not row[2].endswith(".asc")}
    return Source(package, fields["Version"].strip(), f"{mirror}/{fields['Directory'].strip()}", files)


def _download(source: Source, name: str, into: Path) -> Path:
    target = into / name
    wanted = source.files[name]
    if not (target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == wanted):
        say(f"fetch {name}")
        data = _read(f"{source.place}/{name}")
        if hashlib.sha256(data).hexdigest() != wanted:
            raise BuildFailed(f"{name} is not what the archive's index says")
        target.write_bytes(data)
    return target


def _read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read()
            return data
    except (OSError, urllib.error.URLError) as exc:
        raise BuildFailed(f"{url}: {exc}") from None


def _is_newer(version: str, than: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", version, "gt", than], check=False).returncode == 0
