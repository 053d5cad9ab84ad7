"""The wheels that the bundle is made of: locked by version and hash, downloaded once.

Errors  BuildFailed.
State   ``wheels-ARCHITECTURE`` in the cache. `bundle.lock` and `tools.lock` are in git.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from command import BuildFailed, run, say
from layout import ARCHITECTURES, CACHE, HERE, Architecture

__all__ = ["LISTS", "distributions", "download", "lock"]

LISTS: Final = ("bundle", "tools")
_PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
_HEADER: Final = (
    "# Made by `make dist-lock` from {name}.in. Versions and the SHA-256 of the wheels that the build uses.\n"
)
_PYTHON: Final = "3.11"


def download(target: Architecture) -> Path:
    """Return a folder with the locked wheels. Raises BuildFailed."""
    folder = CACHE / f"wheels-{target.name}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in LISTS:
        locked = (HERE / f"{name}.lock").read_bytes()
        stamp = folder / f".{name}"
        digest = hashlib.sha256(locked).hexdigest()
        if stamp.is_file() and stamp.read_text() == digest:
            continue
        say(f"fetch the wheels of {name}.lock for {target.name}")
        run(
            [
                *_PIP,
                "download",
                "--no-deps",
                "--require-hashes",
                "-r",
                HERE / f"{name}.lock",
                *_selection(target, folder),
            ]
        )
        stamp.write_text(digest)
    return folder


def lock() -> None:
    """Write the lock files anew, with the newest versions that the lists allow. Raises BuildFailed."""
    for name in LISTS:
        rows: dict[str, tuple[str, set[str]]] = {}
        for target in ARCHITECTURES.values():
            folder = Path(tempfile.mkdtemp(prefix="edgesite-lock-"))
            try:
                run([*_PIP, "download", "-r", HERE / f"{name}.in", *_selection(target, folder)])
                for wheel in folder.glob("*.whl"):
                    _enter(rows, wheel)
            finally:
                shutil.rmtree(folder)
        lines = [_HEADER.format(name=name)]
        for distribution, (version, hashes) in sorted(rows.items()):
            marks = "".join(f" \\\n    --hash=sha256:{one}" for one in sorted(hashes))
            lines.append(f"{distribution}=={version}{marks}\n")
        (HERE / f"{name}.lock").write_text("".join(lines))


def distributions(name: str) -> dict[str, str]:
    """Return what a lock file names: distribution → version."""
    text = (HERE / f"{name}.lock").read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==(\S+)", text, re.MULTILINE))


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
