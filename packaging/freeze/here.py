"""The bundle frozen with the Python at hand, for tests: the same contents, but the glibc and the libraries of this machine.

Errors  BuildFailed.
State   ``dist/here``, made anew when what it is made of has changed; one process at a time makes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import sys
from pathlib import Path
from typing import Final

import bundle
import static
from command import run
from layout import CACHE, DIST, PROJECT, native

__all__ = ["make"]

_MADE_OF: Final = ("edgesite", "packaging/freeze", "pyproject.toml", "setup.py")


def make() -> Path:
    """Return the folder with what was made. Raises BuildFailed."""
    out = DIST / "here"
    stamp = out / ".made-of"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "here.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = _digest()
        if not stamp.is_file() or stamp.read_text() != digest:
            shop, fresh = bundle.on_this_machine(), CACHE / "new-here"
            bundle.prepare(shop, native())
            bundle.make(shop, fresh, {})
            static.make(shop, native(), fresh)
            (fresh / stamp.name).write_text(digest)
            bundle.replace(out, fresh)
    return out


def _digest() -> str:
    digest = hashlib.sha256(sys.version.encode())
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *_MADE_OF], cwd=PROJECT)
    for name in listed.split("\0"):
        path = PROJECT / name
        if name and path.is_file():
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
