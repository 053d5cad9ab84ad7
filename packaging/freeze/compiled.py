"""Wheels of what PyPI has none of for an architecture, compiled in its build root from the locked sources.

Errors  BuildFailed.
State   /opt/wheels in the root, made anew when the locked versions change.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

import wheels
from bundle import Workshop, offline
from command import say
from interpreter import PREFIX
from layout import Architecture

__all__ = ["make"]

_RECIPE: Final = b"1"  #: Raise it when what is below changes.
#: aioquic links with OpenSSL, of which the root's own is too old.
_ENVIRONMENT: Final = {
    "CPATH": f"{PREFIX}/include",
    "LIBRARY_PATH": f"{PREFIX}/lib",
    "CFLAGS": "-g0",
    "PYYAML_FORCE_LIBYAML": "1",  # else what cannot be compiled is silently left out
}


def make(shop: Workshop, target: Architecture) -> dict[str, list[Path]]:
    """Return the wheels by the list that names them; none where PyPI has them all. Raises BuildFailed."""
    assert shop.root is not None
    wanted = {name: wheels.compiled(name, target) for name in wheels.LISTS}
    sources = sorted({path for paths in wanted.values() for path in paths})
    made = shop.root / "opt" / "wheels"
    stamp = made / ".made-of"
    recipe = hashlib.sha256(_RECIPE + b"".join(path.name.encode() + path.read_bytes() for path in sources)).hexdigest()
    if sources and not (stamp.is_file() and stamp.read_text() == recipe):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        _compile(shop, sources)
        stamp.write_text(recipe)
    return {name: [_wheel_of(path, made) for path in paths] for name, paths in wanted.items()}


def _compile(shop: Workshop, sources: list[Path]) -> None:
    shop.run([shop.python, "-m", "venv", "compile"])
    python = f"{shop.seen_as}/compile/bin/python"
    pip = [python, "-m", "pip", "--isolated"]
    for name in ("tools", wheels.COMPILERS):
        shop.run([*pip, "install", "--no-compile", *offline(), "--require-hashes", "-r", f"{name}.lock"])
    for source in sources:
        say(f"compile {source.name.removesuffix('.tar.gz')}")
        argv = [*pip, "wheel", *offline(), "--no-build-isolation", "-w", "/opt/wheels", f"wheels/{source.name}"]
        shop.run(argv, _ENVIRONMENT)


def _wheel_of(source: Path, folder: Path) -> Path:
    name, _, version = source.name.removesuffix(".tar.gz").rpartition("-")
    (found,) = [one for one in folder.glob("*.whl") if one.name.lower().startswith(f"{name}-{version}-".lower())]
    return found
