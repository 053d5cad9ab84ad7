"""The build root: Debian 11, whose glibc (2.31) is older than that of every system the bundle has to start on.

Packages are unpacked and nothing of theirs is run: that is quicker than an installation, above all for another architecture, needs no
debootstrap, and gives the same root each time. Compilers and shells work without having been set up.

Errors  BuildFailed.
State   One directory for each architecture in the cache; made once. ``.packages`` in it tells what it is made of.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Final

import crosscompiler
import emulation
import wheels
from binaries import Release, suites_of, unpack
from command import BuildFailed, inside, say
from layout import CACHE, Architecture, native

__all__ = ["RELEASE", "make", "owners", "versions"]

RELEASE: Final = "bullseye"
_RECIPE: Final = "4"  #: Raise it when what is below changes.
#: What building OpenSSL, CPython and the launcher of the static binary takes. Nothing under the GPL gets into the
#: bundle: libedit in place of readline, no gdbm.
_PACKAGES: Final = (
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libbz2-dev",
    "libc-bin",
    "libc6-dev",
    "libedit-dev",
    "libexpat1-dev",
    "libffi-dev",
    "liblzma-dev",
    "libncurses-dev",
    "libsqlite3-dev",
    "libzstd-dev",
    "make",
    "mawk",
    "patch",
    "perl",
    "pkg-config",
    "sed",
    "tar",
    "util-linux",
    "uuid-dev",
    "xz-utils",
    "zlib1g-dev",
)
_NATIVE: Final = ("gcc",)  #: for the rest see crosscompiler.py
_COMPILING: Final = ("libyaml-dev",)  #: where wheels are compiled (compiled.py)
#: What the packages would have set up.
_LINKS: Final = {"usr/bin/sh": "dash", "usr/bin/awk": "mawk", "usr/bin/cc": "gcc"}
_DEVICES: Final = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}


def make(target: Architecture) -> Path:
    """Return the root, made if it is not there or was made from another recipe. Raises BuildFailed."""
    root = target.root
    emulated = target != native()
    if emulated:
        emulation.prepare(target)
    wanted = (*_PACKAGES, *(() if emulated else _NATIVE), *(_COMPILING if wheels.is_compiling(target) else ()))
    recipe = hashlib.sha256(" ".join((_RECIPE, RELEASE, target.debian, *wanted)).encode()).hexdigest()
    stamp = root / ".recipe"
    if stamp.is_file() and stamp.read_text() == recipe:
        return root
    if os.geteuid():
        raise BuildFailed("the build root needs the rights of root (chroot); `--here` freezes with this Python instead")
    say(f"make the build root: Debian {RELEASE} for {target.debian}")
    shutil.rmtree(root, ignore_errors=True)
    _lay_out(root, target)
    _fill(root, target, wanted)
    if emulated:
        crosscompiler.install(root, RELEASE, native(), target)
    inside(root, ["ldconfig"])
    stamp.write_text(recipe)
    return root


def versions(root: Path) -> dict[str, str]:
    """Return the packages in a root and their versions."""
    return dict(json.loads((root / ".packages").read_text())["versions"])


def owners(root: Path) -> dict[str, str]:
    """Return which package each shared library of a root is from, by its name without a folder."""
    return dict(json.loads((root / ".packages").read_text())["owners"])


def _lay_out(root: Path, target: Architecture) -> None:
    """Folders, links and devices that packages count on."""
    for name in ("bin", "sbin", "lib", *(("lib64",) if target.name == "x86_64" else ())):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "build", "var/tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    )
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    for name, (major, minor) in _DEVICES.items():
        os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        (root / "dev" / name).chmod(0o666)
    (root / "dev/fd").symlink_to("/proc/self/fd")


def _fill(root: Path, target: Architecture, wanted: tuple[str, ...]) -> None:
    release = Release(target.debian, CACHE / "debian", suites_of(RELEASE))
    found, owner = {}, {}
    for name in release.closure(wanted):
        package, path = release.newest(name)
        found[name] = package.version
        for file in unpack(path, root):
            if ".so" in file:
                owner[file.rpartition("/")[2]] = name
    for place, content in _LINKS.items():
        if not (root / place).is_symlink():
            (root / place).symlink_to(content)
    (root / ".packages").write_text(json.dumps({"versions": found, "owners": owner}, indent=1, sort_keys=True))
