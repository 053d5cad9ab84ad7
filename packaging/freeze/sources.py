"""Source packages from Debian's archive: the newest that the mirror has.

Errors  BuildFailed.
Source  Debian Repository Format: Sources indices.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from command import BuildFailed, install, run, say
from layout import CACHE
from mirror import MIRROR, SECURITY, Mirror, newest_first

__all__ = ["Source", "fetch", "unpack"]

_INDEX: Final = "main/source/Sources.xz"


@dataclass(frozen=True, slots=True)
class Source:
    """One version of a source package."""

    package: str
    version: str
    place: str  #: URL of its folder
    files: dict[str, str]  #: name → SHA-256


def fetch(package: str, suite: str) -> tuple[Source, list[Path]]:
    """Return the newest version whose files the mirror still has, and these. Raises BuildFailed."""
    mirror = Mirror(CACHE / "debian")
    found = [
        _parsed(block, package, url)
        for url, name in ((SECURITY, f"{suite}-security"), (MIRROR, suite))
        for block in mirror.index(url, name, _INDEX)
        if block.startswith(f"Package: {package}\n")
    ]
    problems = []
    say(f"fetch the sources of {package}")
    for one in newest_first(found, lambda one: one.version):
        try:
            return one, [mirror.file(f"{one.place}/{name}", digest, name=name) for name, digest in one.files.items()]
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
