"""The wheels that the bundle is made of, and sources where there is no wheel: locked by version and hash, downloaded once.

Errors  BuildFailed.
State   ``wheels-ARCHITECTURE`` in the cache. The lock files are in git.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import sdists
from command import BuildFailed, run, say
from layout import ARCHITECTURES, CACHE, HERE, Architecture

__all__ = ["COMPILERS", "LISTS", "compiled", "distributions", "download", "is_compiling", "lock", "requirements"]

LISTS: Final = ("bundle", "tools")
COMPILERS: Final = "compile"  #: the list of what compiles distributions, where any are compiled
#: Distributions without a wheel on PyPI for an architecture: compiled in its build root.
_COMPILED: Final = {
    "armv7l": frozenset(["aioquic", "cffi", "httptools", "msgspec", "pyinstaller", "pylsqpack", "pyyaml", "uvloop"]),
}
_PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
_HEADER: Final = "# Made by `make dist-lock` from {name}.in. Versions and the SHA-256 of the wheels and sources that the build uses.\n"
_PYTHON: Final = "3.11"
_ROW: Final = re.compile(r"^([a-z0-9][a-z0-9.-]*)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n", re.MULTILINE)


def download(target: Architecture) -> Path:
    """Return a folder with the locked wheels, and the sources of those that are compiled. Raises BuildFailed."""
    folder = CACHE / f"wheels-{target.name}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in _lists(target):
        wanted = requirements(name, target)
        stamp = folder / f".{name}"
        digest = hashlib.sha256((HERE / f"{name}.lock").read_bytes() + wanted.encode()).hexdigest()
        if stamp.is_file() and stamp.read_text() == digest:
            continue
        say(f"fetch the wheels of {name}.lock for {target.name}")
        listed = folder / f"{name}.txt"
        listed.write_text(wanted)
        run([*_PIP, "download", "--no-deps", "--require-hashes", "-r", listed, *_selection(target, folder)])
        for distribution, version, hashes in _rows(name):
            if distribution in _compiled(target):
                sdists.fetch(sdists.find(distribution, version)[0], hashes, folder)
        stamp.write_text(digest)
    return folder


def requirements(name: str, target: Architecture) -> str:
    """Return the lines of a lock file that wheels for an architecture are for."""
    return "".join(row[0] for row in _ROW.finditer(_text(name)) if row[1] not in _compiled(target))


def compiled(name: str, target: Architecture) -> list[Path]:
    """Return the downloaded sources of a list that there are no wheels for."""
    folder = CACHE / f"wheels-{target.name}"
    found = {path.name.lower().replace("_", "-"): path for path in folder.glob("*.tar.gz")}
    rows = ((distribution, version) for distribution, version, _ in _rows(name))
    return [found[f"{one}-{version}.tar.gz"] for one, version in rows if one in _compiled(target)]


def lock(names: Iterable[str] = (*LISTS, COMPILERS)) -> None:
    """Write lock files anew, with the newest versions that the lists allow. Raises BuildFailed."""
    for name in names:
        rows: dict[str, tuple[str, set[str]]] = {}
        targets = sorted(ARCHITECTURES.values(), key=lambda one: len(_compiled(one)))
        for target in targets:
            _choose(name, target, rows)
        lines = [_HEADER.format(name=name)]
        for distribution, (version, hashes) in sorted(rows.items()):
            marks = "".join(f" \\\n    --hash=sha256:{one}" for one in sorted(hashes))
            lines.append(f"{distribution}=={version}{marks}\n")
        (HERE / f"{name}.lock").write_text("".join(lines))


def _choose(name: str, target: Architecture, rows: dict[str, tuple[str, set[str]]]) -> None:
    """Enter what an architecture takes: the newest; or where some are compiled, the versions that others have."""
    if _compiled(target) and not rows:
        raise BuildFailed(f"{name}: no architecture has wheels of all")
    others = sorted(one for one in rows if one not in _compiled(target))
    wanted = ["--no-deps", *(f"{one}=={rows[one][0]}" for one in others)] if rows else ["-r", str(HERE / f"{name}.in")]
    with tempfile.TemporaryDirectory(prefix="edgesite-lock-") as scratch:
        run([*_PIP, "download", *wanted, *_selection(target, Path(scratch))])
        for wheel in Path(scratch).glob("*.whl"):
            _enter(rows, wheel)
    for distribution in rows.keys() & _compiled(target):
        version, hashes = rows[distribution]
        hashes.add(sdists.find(distribution, version)[1])


def distributions(name: str) -> dict[str, str]:
    """Return what a lock file names: distribution → version."""
    return {distribution: version for distribution, version, _ in _rows(name)}


def is_compiling(target: Architecture) -> bool:
    """Whether some distributions are compiled for an architecture."""
    return bool(_compiled(target))


def _lists(target: Architecture) -> tuple[str, ...]:
    return (*LISTS, COMPILERS) if is_compiling(target) else LISTS


def _compiled(target: Architecture) -> frozenset[str]:
    return _COMPILED.get(target.name, frozenset())


def _rows(name: str) -> list[tuple[str, str, list[str]]]:
    """Distribution, version, SHA-256 of its files."""
    return [(row[1], row[2], re.findall(r"sha256:(\w+)", row[3])) for row in _ROW.finditer(_text(name))]


def _text(name: str) -> str:
    return (HERE / f"{name}.lock").read_text()


def _selection(target: Architecture, folder: Path) -> list[str]:
    chosen = ["--only-binary=:all:", "--implementation=cp", f"--python-version={_PYTHON}", f"--dest={folder}"]
    chosen += [f"--abi={abi}" for abi in ("cp311", "abi3", "none")]
    return chosen + [f"--platform={platform}" for platform in target.platforms()]


def _enter(rows: dict[str, tuple[str, set[str]]], wheel: Path) -> None:
    distribution, version = wheel.name.split("-")[:2]
    distribution = re.sub(r"[-_.]+", "-", distribution).lower()
    known = rows.setdefault(distribution, (version, set()))
    if known[0] != version:
        raise BuildFailed(f"{distribution}: {known[0]} for one architecture and {version} for another")
    known[1].add(hashlib.sha256(wheel.read_bytes()).hexdigest())
