"""A compiler of this machine's own kind in an emulated build root: it makes the root's code a dozen times faster than an emulated one.

It is Debian's cross compiler of the root's release, unpacked below /cross, whose ``bin`` comes first in the PATH of what the build runs. It
takes headers and libraries from the root itself: nothing in the root can tell it from the root's own.

Errors  BuildFailed.
State   ``/cross`` in the root, and links by which the loader of this machine's programs is found.
Source  Debian's gcc-10-cross and binutils: names of packages; the multiarch paths of Debian Policy, section 9.1.1.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Final

from binaries import Release, contents
from layout import CACHE, Architecture
from mirror import MIRROR

__all__ = ["BIN", "install"]

BIN: Final = "/cross/bin"
_GCC: Final = "10"  #: of the release that the roots are made of
_PROGRAMS: Final = ("ar", "as", "ld", "nm", "objcopy", "objdump", "ranlib", "readelf", "strip")
#: What the compiler's programs are linked with.
_LIBRARIES: Final = ("libc6", "libgcc-s1", "libgmp10", "libisl23", "libmpc3", "libmpfr6", "libstdc++6", "zlib1g")
#: Other languages, and what optimizes whole programs: a third of the compiler's size each, and not used.
_LEFT_OUT: Final = ("cc1plus", "lto1", "g++", "lto-dump", "usr/share/doc", "usr/share/man", "usr/share/locale")


def install(root: Path, release: str, machine: Architecture, target: Architecture) -> None:
    """Fill ``/cross`` in the root of ``target`` with programs of ``machine``. Raises BuildFailed."""
    cross = root / "cross"
    shutil.rmtree(cross, ignore_errors=True)
    found = Release(machine.debian, CACHE / "debian", [(MIRROR, release)])
    for package in found.find(_packages(target)).values():
        with contents(found.fetch(package)) as archive:
            archive.extraction_filter = lambda member, _: (
                member
            )  # links that lead out of /cross are right: of signed packages
            archive.extractall(cross, [one for one in map(_placed, archive.getmembers()) if one])
    (cross / "bin").mkdir()
    names = {name: f"{target.triplet}-{name}" for name in _PROGRAMS}
    names |= dict.fromkeys(("gcc", "cc"), f"{target.triplet}-gcc-{_GCC}")
    for name, program in names.items():
        (cross / "bin" / name).symlink_to(f"../usr/bin/{program}")
    for place in (f"usr/lib/{machine.triplet}", "lib64"):
        if (cross / place).is_dir() and not (root / place).exists():
            (root / place).symlink_to(f"/cross/{place}")


def _packages(target: Architecture) -> list[str]:
    triplet = target.triplet
    gcc = [f"gcc-{_GCC}-{triplet}", f"cpp-{_GCC}-{triplet}", f"libgcc-{_GCC}-dev-{target.debian}-cross"]
    return [*gcc, f"binutils-{triplet}", "binutils-common", *_LIBRARIES]


def _placed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """As if /lib had been a link to /usr/lib, which the root has."""
    path = member.name.removeprefix("./")
    if member.isdir() or any(part in path for part in _LEFT_OUT):
        return None
    member.name = f"usr/{path}" if path.startswith("lib/") else path
    return member
