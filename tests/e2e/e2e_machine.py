"""A machine with systemd as its first process, booted with systemd-nspawn: for what only a real systemd shows.

Its root is a small Debian, made once into .cache/peers; each machine writes into memory above it, and has no network but its own
loopback. Everything that runs in it ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from peers import CACHE, debian_root

__all__ = ["CACHE", "Machine", "connect"]

BOOT_S = 180.0  #: a bound for failures
END_S = 60.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """A root that may be prepared, then booted. ``binds`` are folders or files of this machine to be seen there, read-only."""

    def __init__(self, folder: Path, binds: Mapping[Path, str] | None = None, *, name: str = "edge1") -> None:
        self._name = name
        self._memory = folder / "memory"
        self.root = folder / "root"
        self._log = folder / "console"
        self._binds = dict(binds or {})
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._memory.mkdir(parents=True)
        self.root.mkdir()
        base = debian_root()
        _call("mount", "-t", "tmpfs", "-o", "mode=0755,size=1g", "tmpfs", str(self._memory))
        for name in ("upper", "work"):
            (self._memory / name).mkdir(mode=0o755)
        layers = f"lowerdir={base},upperdir={self._memory / 'upper'},workdir={self._memory / 'work'}"
        _call("mount", "-t", "overlay", "-o", layers, "overlay", str(self.root))

    def boot(self) -> None:
        """Start systemd and wait until it has started what it wants."""
        binds = [f"--bind-ro={here.resolve()}:{there}" for here, there in self._binds.items()]
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                [
                    *("systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}"),
                    *("--register=no", "--keep-unit", "--private-network", "--console=pipe"),
                    *(f"--machine={self._name}", *binds),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_S
        said = "nothing: it has no first process"
        while (left := deadline - time.monotonic()) > 0:
            assert self._nspawn.poll() is None, (
                f"systemd-nspawn ended with {self._nspawn.returncode}: {self._console()}"
            )
            self._init = self._init or _first_process(self._nspawn.pid)
            if self._init:
                try:
                    done = self.run("systemctl", "is-system-running", "--wait", timeout_s=left)
                except subprocess.TimeoutExpired:
                    break
                if (said := f"{done.stdout}{done.stderr}".strip()) in ("running", "degraded"):
                    return
            time.sleep(0.2)
        raise AssertionError(
            f"the machine did not boot within {BOOT_S} s; systemctl says {said}; its console {self._console()}"
        )

    def _console(self) -> str:
        return repr(self._log.read_text(errors="replace")[-3000:])

    @property
    def pid(self) -> int:
        """Its first process, as this machine sees it."""
        return self._init

    def run(self, *argv: str, timeout_s: float = 120, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program in the booted machine."""
        spaces = ["nsenter", f"--target={self._init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return subprocess.run(
            [*spaces, "env", "-i", f"PATH={_PATH}", "HOME=/root", "LC_ALL=C.UTF-8", *argv],
            stdin=None if stdin is not None else subprocess.DEVNULL,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def __call__(self, *argv: str, timeout_s: float = 120, stdin: str | None = None) -> str:
        """Run a program that must succeed, and return what it printed."""
        done = self.run(*argv, timeout_s=timeout_s, stdin=stdin)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def property(self, unit: str, name: str) -> str:
        return self("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str, *more: str) -> str:
        return self("journalctl", "--no-pager", "--output=cat", f"--unit={unit}", *more)

    def close(self) -> None:
        """End everything in it, as a power cut would, and remove it."""
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        if self._nspawn is not None:
            for patience_s in (END_S if self._init else 0.0, END_S):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._nspawn.wait(patience_s)
                self._nspawn.kill()  # one that hangs: the kernel kills its first process with it
        for place in (self.root, self._memory):
            _call("umount", "--lazy", str(place))
        shutil.rmtree(self._memory.parent, ignore_errors=True)


def connect(left: Machine, right: Machine) -> None:
    """A cable between two booted machines: 10.9.0.1 and 10.9.0.2. Their only way to anywhere."""
    words = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(right.pid)]
    _call("nsenter", f"--target={left.pid}", "--net", *words)
    for one, address in ((left, "10.9.0.1/24"), (right, "10.9.0.2/24")):
        _call("nsenter", f"--target={one.pid}", "--net", "ip", "address", "add", address, "dev", "eth0")
        _call("nsenter", f"--target={one.pid}", "--net", "ip", "link", "set", "eth0", "up")


def _first_process(nspawn: int) -> int:
    """The child that is number 1 in a namespace of its own, 0 while there is none: others only help to set it up."""
    for pid in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            numbers = next(line.split()[1:] for line in lines if line.startswith("NSpid:"))
            if len(numbers) > 1 and numbers[-1] == "1":
                return int(pid)
    return 0


def _call(*argv: str) -> None:
    subprocess.run(argv, check=True)
