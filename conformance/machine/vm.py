"""A virtual machine in qemu, without hardware support where there is none: two CPUs, two serial lines, no network.

The first line is the console, the second carries what `inside` reports, line by line.

Units   Seconds, MiB.
Errors  VmError: it did not end in time, or qemu is missing.
State   Both lines' files; the disk, which several boots may share.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from conformance.machine.image import Base

__all__ = ["Vm", "VmError"]

_QEMU: Final = "qemu-system-x86_64"
_CPU: Final = "Nehalem,+aes,+pclmulqdq,+rdrand"  #: what an emulator does with more vector instructions takes longer
_KERNEL: Final = (
    "root=/dev/vda rw console=ttyS0 quiet loglevel=4 systemd.show_status=0 net.ifnames=0 mitigations=off"
    " modprobe.blacklist=kvm_amd,kvm_intel,floppy,psmouse,bochs random.trust_cpu=1"
)


class VmError(RuntimeError):
    """The machine did not do what it should."""


class Vm:
    """Copies the base disk to ``folder``; `boot` may be called again and again."""

    def __init__(self, base: Base, program: Path, folder: Path, memory_mib: int) -> None:
        self._base, self._program, self._folder, self._memory_mib = base, program, folder, memory_mib
        self.disk = folder / "disk.img"
        subprocess.run(["cp", "--sparse=always", str(base.disk), str(self.disk)], check=True)
        self._boots = 0

    def boot(self, arguments: Sequence[str], timeout_s: float) -> Iterator[str]:
        """Boot it, with words for `inside` on the kernel's command line; gives each line of its report until it has powered off.
        Raises VmError."""
        self._boots += 1
        console, report = (self._folder / f"{name}-{self._boots}" for name in ("console", "report"))
        report.write_bytes(b"")  # of an earlier machine in the same folder
        command = [
            *(_QEMU, "-accel", "tcg,thread=multi", "-cpu", _CPU, "-smp", "2", "-m", str(self._memory_mib)),
            *("-display", "none", "-no-reboot", "-nic", "none", "-monitor", "none"),
            *("-serial", f"file:{console}", "-serial", f"file:{report}"),
            *("-kernel", str(self._base.kernel), "-initrd", str(self._base.initrd)),
            *("-append", f"{_KERNEL} {' '.join(arguments)}"),
            *("-drive", f"file={self.disk},if=virtio,format=raw,cache=unsafe"),
            *("-drive", f"file={self._program},if=virtio,format=raw,readonly=on"),
        ]
        if not shutil.which(_QEMU):
            raise VmError(f"{_QEMU} is not installed")
        with (self._folder / "qemu.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_be_nice)
        try:
            yield from self._lines(process, report, time.monotonic() + timeout_s)
        finally:
            process.kill()
            process.wait()
        if process.returncode not in (0, -9):
            raise VmError((self._folder / "qemu.log").read_text()[-2000:])

    def _lines(self, process: subprocess.Popen[bytes], report: Path, deadline: float) -> Iterator[str]:
        with report.open() as file:
            rest = ""
            while True:
                ended = process.poll() is not None
                rest += file.read()
                *lines, rest = rest.split("\n")
                yield from lines
                if ended:
                    return
                if time.monotonic() > deadline:
                    raise VmError("it did not power off in time")
                time.sleep(0.2)

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file or folder from its disk, while it is off."""
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["debugfs", "-R", f"rdump {path} {target}", str(self.disk)], check=False, capture_output=True)


def _be_nice() -> None:
    os.nice(10)
