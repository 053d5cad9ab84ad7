"""Programs of this machine's own kind in an emulated build root: a dozen times faster than emulated ones.

The compiler is Debian's cross compiler of the root's release, unpacked below /cross, whose ``path`` comes first in the PATH of what the build
runs. It takes headers and libraries from the root itself. Shells, make, perl and what scripts call are there, too, and stand in the
places of the root's own. What was built for the root is emulated, and so is what tells the name of the machine.

Errors  BuildFailed.
State   ``/cross`` in the root, and links by which the loader of this machine's programs is found.
Source  Debian's gcc-10-cross and binutils: names of packages; the multiarch paths of Debian Policy, section 9.1.1.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from binaries import Release, unpack
from layout import CACHE, Architecture
from mirror import MIRROR

__all__ = ["install"]

_GCC: Final = "10"  #: of the release that the roots are made of
_PROGRAMS: Final = ("ar", "as", "ld", "nm", "objcopy", "objdump", "ranlib", "readelf", "strip")
_TOOLS: Final = (
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "libperl5.32",  # modules of perl that are compiled
    "make",
    "mawk",
    "perl-base",
    "sed",
    "tar",
    "xz-utils",
)
_EMULATED: Final = ("arch", "uname")
#: What the compiler's programs are linked with.
_LIBRARIES: Final = ("libc6", "libgcc-s1", "libgmp10", "libisl23", "libmpc3", "libmpfr6", "libstdc++6", "zlib1g")
#: Other languages, and what optimizes whole programs: a third of the compiler's size each, and not used.
_LEFT_OUT: Final = ("cc1plus", "lto1", "g++", "lto-dump", "usr/share/doc", "usr/share/man", "usr/share/locale")


def install(root: Path, release: str, machine: Architecture, target: Architecture) -> None:
    """Fill ``/cross`` in the root of ``target`` with programs of ``machine``. Raises BuildFailed."""
    cross = root / "cross"
    shutil.rmtree(cross, ignore_errors=True)
    for name in ("bin", "lib", "lib64"):
        (cross / "usr" / name).mkdir(parents=True)
        (cross / name).symlink_to(f"usr/{name}")
    found = Release(machine.debian, CACHE / "debian", [(MIRROR, release)])
    for name in (*_compiler(target), *found.closure(_TOOLS)):
        _, path = found.newest(name)
        unpack(path, cross, leave_out=_LEFT_OUT)
    (cross / "path").mkdir()
    names = {name: f"{target.triplet}-{name}" for name in _PROGRAMS}
    names |= dict.fromkeys(("gcc", "cc"), f"{target.triplet}-gcc-{_GCC}")
    for name, program in names.items():
        (cross / "path" / name).symlink_to(f"../usr/bin/{program}")
    for path in (cross / "usr" / "bin").iterdir():
        own = root / "usr" / "bin" / path.name
        if path.name not in _EMULATED and os.path.lexists(own):
            own.unlink()
            own.symlink_to(f"/cross/usr/bin/{path.name}")
    for place in (f"usr/lib/{machine.triplet}", "lib64"):
        if (cross / place).is_dir() and not os.path.lexists(root / place):
            (root / place).symlink_to(f"/cross/{place}")


def _compiler(target: Architecture) -> list[str]:
    triplet = target.triplet
    gcc = [f"gcc-{_GCC}-{triplet}", f"cpp-{_GCC}-{triplet}", f"libgcc-{_GCC}-dev-{target.debian}-cross"]
    return [*gcc, f"binutils-{triplet}", "binutils-common", *_LIBRARIES]
