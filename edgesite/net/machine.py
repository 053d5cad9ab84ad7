"""The architecture that this program is for, by the name that images, nodes and Kubernetes' versions have for it.

Source  Go's GOARCH, as the OCI image specification and the node label ``kubernetes.io/arch`` use it.
"""

from __future__ import annotations

import platform
import sys
from typing import Final

__all__ = ["architecture", "architecture_of"]

_NAMES: Final = {
    "x86_64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armv8l": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
#: What a program of 32 bits is on a kernel of 64.
_NARROW: Final = {"amd64": "386", "arm64": "arm"}


def architecture() -> str:
    return architecture_of(platform.machine(), wide=sys.maxsize > 1 << 32)


def architecture_of(machine: str, *, wide: bool) -> str:
    """Return the name of what the kernel calls ``machine``, for a program of 64 bits (``wide``) or 32."""
    name = _NAMES.get(machine, machine)
    return name if wide else _NARROW.get(name, name)
