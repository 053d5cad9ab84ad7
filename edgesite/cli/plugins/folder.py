"""The folder of plugins: each installation in a folder of its own, put in place and taken away in one step.

    FOLDER/NAME → .store/NAME-VERSION-DIGEST      a link; the modules are found through it
    FOLDER/.store/…                               the unpacked wheels; the one before stays until the next change, because running
                                                  processes may still load from it
    FOLDER/.lock                                  one command at a time

Errors  BadWheel, Misfit, OSError, LookupError (no such plugin). A failure, or a crash at any point, leaves what was there before.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgesite.cli.plugins import fit
from edgesite.cli.plugins.wheelfile import open_wheel

if TYPE_CHECKING:
    from edgesite.cli.plugins.wheelfile import Wheel

__all__ = ["install", "installed", "remove"]

_STORE: Final = ".store"
_DIGEST_CHARS: Final = 12


def install(folder: Path, files: Sequence[Path]) -> tuple[str, str]:
    """Install the plugin of the first wheel, with the others beside it; returns its name and version.

    Raises BadWheel, Misfit, OSError.
    """
    with ExitStack() as stack:
        wheels = [stack.enter_context(open_wheel(one)) for one in files]
        plugin = wheels[0]
        _make_folder(folder)
        stack.enter_context(_lock(folder))
        fit.check(wheels, folder, plugin.name)
        _unpack(folder, wheels, f"{plugin.name}-{plugin.version}-{_digest(files)}", plugin.name)
    return plugin.name, plugin.version


def installed(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """The installations by name, each with the names and versions of its distributions."""
    found: dict[str, list[tuple[str, str]]] = {}
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not place.name.startswith(".") and place.is_dir():
            rows = sorted((one.name, one.version) for one in metadata.distributions(path=[str(place)]))
            if rows:
                found[place.name] = rows
    return found


def remove(folder: Path, name: str) -> None:
    """Take a plugin away. Raises LookupError, OSError."""
    if not folder.is_dir():
        raise LookupError(f"there is no plugin in {folder}")
    with _lock(folder):
        link = folder / name
        if name.startswith(".") or "/" in name or not link.is_symlink():
            raise LookupError(f"there is no plugin {name!r} that this command installed in {folder}")
        link.unlink()
        _sync(folder)
        _sweep(folder, keep="")


def _unpack(folder: Path, wheels: Sequence[Wheel], version: str, name: str) -> None:
    store = folder / _STORE
    _make_folder(store)
    link, target = folder / name, store / version
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link} is there, and no link of this command: remove it first")
    before = link.resolve().name if link.is_symlink() else ""
    if not target.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=store))
        try:
            for one in wheels:
                one.unpack(fresh)
            compileall.compile_dir(
                fresh, quiet=2, optimize=sys.flags.optimize, stripdir=str(fresh), prependdir=str(link)
            )
            _publish(fresh)
            fresh.rename(target)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        _sync(store)
    _point(link, Path(_STORE) / version)
    _sync(folder)
    _sweep(folder, keep=before)


def _point(link: Path, target: Path) -> None:
    """Make the link, or lead it elsewhere, in one step."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, link)


def _sweep(folder: Path, keep: str) -> None:
    """Delete what no link leads to, but for ``keep``."""
    used = {one.resolve().name for one in folder.iterdir() if one.is_symlink()} | {keep}
    for one in (folder / _STORE).iterdir() if (folder / _STORE).is_dir() else ():
        if one.name not in used:
            shutil.rmtree(one, ignore_errors=True)


def _digest(files: Sequence[Path]) -> str:
    """Of all wheels, so that the same ones are the same installation."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_DIGEST_CHARS]


def _make_folder(path: Path) -> None:
    """Make a folder that every user of the host may read: roles run as users of their own, whatever the umask of who installs."""
    for one in reversed([one for one in (path, *path.parents) if not one.exists()]):
        one.mkdir()
        one.chmod(0o755)


def _publish(top: Path) -> None:
    """Let everybody read what was unpacked; durable on return."""
    for place, _, names in os.walk(top):
        for name in names:
            (Path(place) / name).chmod(0o644)
            _sync(Path(place) / name)
        Path(place).chmod(0o755)
        _sync(Path(place))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
