"""The build root: Debian 11, whose glibc (2.31) is older than that of every system the bundle has to start on.

Errors  BuildFailed.
State   One directory for each architecture in the cache; made once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Final

import crosscompiler
import emulation
from command import BuildFailed, inside, install, run, say
from layout import Architecture, native
from mirror import MIRROR, SECURITY, lists

__all__ = ["RELEASE", "make"]

RELEASE: Final = "bullseye"
#: What building OpenSSL, CPython and the launcher of the static binary takes. Nothing under the GPL gets into the
#: bundle: libedit in place of readline, no gdbm.
_PACKAGES: Final = (
    "ca-certificates",
    "gcc",
    "libbz2-dev",
    "libc6-dev",
    "libedit-dev",
    "libexpat1-dev",
    "libffi-dev",
    "liblzma-dev",
    "libncurses-dev",
    "libsqlite3-dev",
    "libzstd-dev",
    "make",
    "patch",
    "perl",
    "pkg-config",
    "uuid-dev",
    "xz-utils",
    "zlib1g-dev",
)


def make(target: Architecture) -> Path:
    """Return the root, made if it is not there or was made from another recipe. Raises BuildFailed."""
    root = target.root
    if target != native():
        emulation.prepare(target)
    recipe = hashlib.sha256(" ".join((RELEASE, target.debian, *_PACKAGES)).encode()).hexdigest()
    stamp = root / ".recipe"
    if stamp.is_file() and stamp.read_text() == recipe:
        return root
    if os.geteuid():
        raise BuildFailed("the build root needs the rights of root (debootstrap); `--here` freezes with this Python")
    if shutil.which("debootstrap") is None:
        install("debootstrap")
    say(f"make the build root: Debian {RELEASE} for {target.debian}, some minutes")
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    packages = f"--include={','.join(_PACKAGES)}"
    log = root.parent / f"root-{target.name}.log"
    run(["debootstrap", "--variant=minbase", f"--arch={target.debian}", packages, RELEASE, root, MIRROR], log=log)
    if target != native():
        crosscompiler.install(root, RELEASE, native(), target)
    _update(root, target, log)
    stamp.write_text(recipe)
    return root


def _update(root: Path, target: Architecture, log: Path) -> None:
    """Install what fixes the release has got; the versions of what is bundled are in BUILDINFO.json."""
    suites = [(MIRROR, RELEASE), (SECURITY, f"{RELEASE}-security")]
    index = f"main/binary-{target.debian}/Packages.xz"
    listed = [(url, suite) for url, suite in suites if lists(url, suite, index)]
    if listed != suites:
        say(f"the build root gets no fixes: Debian makes none for {target.debian} any more")
    (root / "etc/apt/sources.list").write_text("".join(f"deb {url} {suite} main\n" for url, suite in listed))
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    inside(root, ["apt-get", "update", "-qq"], environment=environment, log=log)
    try:
        inside(root, ["apt-get", "upgrade", "-y", "-qq"], environment=environment, log=log)
    except BuildFailed as problem:  # mirrors drop what the archive has closed for an architecture
        say(f"the build root stays without some of Debian's fixes: {str(problem).splitlines()[-1]}")
    inside(root, ["apt-get", "clean"], environment=environment, log=log)
