"""Programs of another architecture on this machine: qemu's user mode, registered with the kernel.

Errors  BuildFailed.
State   The kernel's table of formats, as Debian's qemu-user-static describes them; the emulator is opened when it is entered, so that it serves
        in every root.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from command import BuildFailed, install, run, say
from layout import Architecture

__all__ = ["prepare"]

_FORMATS: Final = Path("/proc/sys/fs/binfmt_misc")
_DESCRIBED: Final = Path("/usr/lib/binfmt.d")


def prepare(target: Architecture) -> None:
    """Raises BuildFailed where the kernel, or the container that we are in, does not let us."""
    if shutil.which(f"{target.emulator}-static") is None:
        install("qemu-user-static")
    if not (_FORMATS / "register").exists():
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", _FORMATS])
    if (_FORMATS / target.emulator).exists():
        return
    say(f"let the kernel start programs of {target.name} with {target.emulator}")
    try:
        (_FORMATS / "register").write_text((_DESCRIBED / f"{target.emulator}.conf").read_text().strip())
    except OSError as exc:
        raise BuildFailed(f"{target.emulator} cannot be registered with the kernel: {exc}") from None
