"""The commands of keadm, and what is common to them: exit codes 0 and 1, the last line of a failure, Ctrl-C.

Errors are printed as KubeEdge's keadm prints them, because scripts look for ``execute keadm command failed``.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from edgesite.cli.keadm.failure import KeadmError
from edgesite.cli.keadm.host import Host
from edgesite.cli.keadm.parser import KeadmParser
from edgesite.cli.keadm.progress import Progress
from edgesite.cli.keadm.systemd import Systemd

__all__ = ["Tools", "main"]

#: Command → its module below this package, and its summary.
_COMMANDS: Final = {
    "init": ("init", "make this host the cloud side"),
    "join": ("join", "make this host an edge node"),
    "gettoken": ("gettoken", "print the token that edges join with"),
    "reset": ("reset", "undo init or join"),
    "config": ("images", "images: list them, have them pulled"),
    "version": ("version", "print the version"),
}
_CHANGING: Final = ("init", "join", "reset")
_LOCK: Final = "/run/keadm.lock"
#: KubeEdge's groups of older and coming variants of the same commands.
_GROUPS: Final = ("beta", "deprecated")


@dataclass(frozen=True, slots=True)
class Tools:
    """What a command works with."""

    host: Host
    systemd: Systemd
    progress: Progress


def main(arguments: Sequence[str], host: Host | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(arguments)
    if words[:1] and words[0] in _GROUPS and words[1:2]:
        words = words[1:]
    name = words[0] if words else ""
    if name in ("", "-h", "--help", "help"):
        _print_help()
        return 0
    try:
        if name not in _COMMANDS:
            raise KeadmError(f'unknown command "{name}" for "keadm"')
        return _run(name, words[1:], host or Host())
    except (KeadmError, OSError) as exc:
        print(f"execute keadm command failed:  {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("execute keadm command failed:  interrupted", file=sys.stderr)
        return 130


def _run(name: str, arguments: Sequence[str], host: Host) -> int:
    module = importlib.import_module(f"edgesite.cli.keadm.{_COMMANDS[name][0]}")
    parser = KeadmParser(prog=f"keadm {name}", description=_sentence(_COMMANDS[name][1]))
    module.configure(parser)
    parsed = parser.parse_args(arguments)
    progress = Progress(dry_run=getattr(parsed, "dry_run", False))
    for flag, why in getattr(parsed, "unused", {}).items():
        progress.warn(f"{flag} has no effect: {why}")
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _alone(host) if name in _CHANGING and not progress.dry_run else contextlib.nullcontext():
            module.run(parsed, Tools(host, Systemd(host), progress))
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


@contextlib.contextmanager
def _alone(host: Host) -> Iterator[None]:
    """Hold the lock of those commands that change the host. Raises KeadmError."""
    if not host.is_root():
        raise KeadmError("keadm changes the host: run it as root (or with --dry-run)")
    descriptor = os.open(host.path(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeadmError("another keadm is at work on this host") from None
        yield
    finally:
        os.close(descriptor)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt  # what was changed is undone


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _print_help() -> None:
    print(
        "usage: keadm COMMAND [options]\n\nMakes this host a part of a site, and undoes that. Nothing is downloaded.\n"
    )
    for name, (_, summary) in _COMMANDS.items():
        print(f"  {name:<10}{summary}")
    print("\nkeadm COMMAND --help tells of one.")
