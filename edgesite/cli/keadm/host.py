"""The host that keadm works on: its files below a root, its processes, ports and programs.

Errors  OSError; KeadmError when a program that is needed is not there.
State   None: everything is asked when it is needed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Done", "Host", "Run"]

_RUN_S: Final = 120.0
_PLACES: Final = ("/usr/local/bin", "/usr/bin")
Done = subprocess.CompletedProcess[str]
Run = Callable[[Sequence[str]], Done]


def _run(argv: Sequence[str]) -> Done:
    """Run a program to its end. Raises OSError, subprocess.TimeoutExpired."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RUN_S, check=False)


class Host:
    """``root`` is "/" but for tests and images; ``run`` runs a program by its arguments."""

    def __init__(self, root: Path = Path("/"), run: Run = _run) -> None:
        self.root = root
        self.run = run

    def path(self, absolute: str | Path) -> Path:
        return self.root / str(absolute).lstrip("/")

    def is_root(self) -> bool:
        return os.geteuid() == 0

    def processes(self, *names: str) -> dict[str, int]:
        """Which of these programs run here, by the name that they were started as, with one pid each."""
        found: dict[str, int] = {}
        for entry in self.path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                comm = (entry / "comm").read_text(errors="replace").strip()
                is_dead = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "ZX"
                started = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue  # it has just ended
            seen = {comm, os.path.basename(started[0])}
            if os.path.basename(started[0]).startswith("python"):
                seen.add(os.path.basename(started[1]) if started[1:] else "")
            for name in seen.intersection(names) if not is_dead else ():
                found.setdefault(name, int(entry.name))
        return found

    def has_systemd(self) -> bool:
        """Whether systemd is what runs this host."""
        return self.path("/run/systemd/system").is_dir()

    def program(self, name: str) -> Path | None:
        """Where a program of ours is installed."""
        beside = Path(sys.executable).parent / name
        for one in [*(Path(place) / name for place in _PLACES), beside]:
            if self.path(one).exists() if one != beside else one.exists():
                return one
        found = shutil.which(name)
        return Path(found) if found else None

    def own_program(self) -> Path | None:
        """The program that this is, if it is one that answers to several names; None for a Python package."""
        return Path(sys.executable) if getattr(sys, "frozen", False) else None

    def port_is_taken(self, port: int) -> bool:
        """Whether something listens on a TCP port, on whatever address."""
        for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
            try:
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    probe.bind((address, port))
            except OSError as exc:
                if exc.errno == 98:  # EADDRINUSE: any other means that the family is not there
                    return True
        return False

    def free_bytes(self, path: str) -> int:
        """Free space where ``path`` is or would be."""
        place = self.path(path)
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free
