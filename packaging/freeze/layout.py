"""Where the build keeps what, and what it builds for.

State   Everything that may be made again lies in ``.cache/dist``; results in ``dist``. Both are ignored by git.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ARCHITECTURES", "CACHE", "DIST", "HERE", "PROJECT", "Architecture", "native"]

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE.parent.parent
CACHE: Final = PROJECT / ".cache" / "dist"
DIST: Final = PROJECT / "dist"


@dataclass(frozen=True, slots=True)
class Architecture:
    """One machine type by the names that everybody has for it."""

    name: str  #: as ``uname -m`` says
    debian: str
    openssl: str  #: target of OpenSSL's Configure
    triplet: str  #: of the compiler, and of the folders of libraries
    emulator: str  #: qemu's name for it

    def platforms(self) -> list[str]:
        """The wheel platforms that the build root (glibc 2.31) can use, the newest first."""
        tags = [f"manylinux_2_{minor}_{self.name}" for minor in range(31, 16, -1)]
        tags.append(f"manylinux2014_{self.name}")
        if self.name == "x86_64":
            tags += [f"manylinux2010_{self.name}", f"manylinux_2_5_{self.name}", f"manylinux1_{self.name}"]
        return tags

    @property
    def root(self) -> Path:
        """The build root's directory."""
        return CACHE / f"root-{self.name}"

    @property
    def dist(self) -> Path:
        return DIST / self.name


ARCHITECTURES: Final = {
    one.name: one
    for one in (
        Architecture("x86_64", "amd64", "linux-x86_64", "x86_64-linux-gnu", "qemu-x86_64"),
        Architecture("aarch64", "arm64", "linux-aarch64", "aarch64-linux-gnu", "qemu-aarch64"),
        Architecture("armv7l", "armhf", "linux-armv4", "arm-linux-gnueabihf", "qemu-arm"),
    )
}
_ALSO: Final = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "armv7": "armv7l"}


def native() -> Architecture:
    """The architecture of this machine. Raises KeyError for one that nothing is built for."""
    return named(platform.machine())


def named(name: str) -> Architecture:
    """Raises KeyError."""
    return ARCHITECTURES[_ALSO.get(name, name)]
