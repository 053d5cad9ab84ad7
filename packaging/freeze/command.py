"""Runs programs for the build: argument vectors, never a shell; a failure tells what the program printed last.

Errors  BuildFailed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["BuildFailed", "inside", "install", "run", "say"]

_TAIL_LINES: Final = 40
#: First the compiler of this machine's kind that emulated roots have (crosscompiler.py).
_PATH: Final = "/cross/path:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BuildFailed(Exception):
    """What cannot be built, and why."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Run a program and return what it printed; with ``log`` that goes to the file instead. Raises BuildFailed."""
    words = [str(word) for word in argv]
    try:
        if log is None:
            done = subprocess.run(words, cwd=cwd, env=environment, text=True, capture_output=True, check=False)
            printed, tail = done.stdout, done.stderr or done.stdout
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                done = subprocess.run(
                    words, cwd=cwd, env=environment, text=True, stdout=file, stderr=subprocess.STDOUT, check=False
                )
            printed, tail = "", log.read_text(errors="replace")
    except OSError as exc:
        raise BuildFailed(f"{words[0]}: {exc}") from None
    if done.returncode:
        lines = "\n".join(tail.splitlines()[-_TAIL_LINES:])
        raise BuildFailed(f"{' '.join(words[:6])} … ended with code {done.returncode}:\n{lines}")
    return printed


def inside(
    root: Path,
    argv: Sequence[str | Path],
    *,
    cwd: str = "/",
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Run a program in a root, in namespaces of its own, so that nothing of it stays when it ends. Raises BuildFailed."""
    if os.geteuid():
        raise BuildFailed("the build root needs the rights of root (chroot); `--here` freezes with this Python instead")
    clean = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"} | dict(environment or {})
    wrapper = ["setpriv", "--pdeathsig=KILL"]  # `unshare` outlives other signals, and what it runs with it
    wrapper += [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        f"--root={root}",
        f"--wd={cwd}",
    ]
    return run([*wrapper, "--", *argv], environment=clean, log=log)


def install(package: str) -> None:
    """Install one of Debian's packages. Raises BuildFailed."""
    if os.geteuid() or shutil.which("apt-get") is None:
        raise BuildFailed(f"{package} is needed (Debian's name); install it")
    say(f"install {package}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
    try:
        run(command, environment=environment)
    except BuildFailed:  # the lists of packages are missing, or old
        run(["apt-get", "update", "-qq"])
        run(command, environment=environment)
