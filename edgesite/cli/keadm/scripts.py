"""The user's own scripts around a command: ``--pre-run`` before anything is checked or changed, ``--post-run`` when the command has succeeded.

A script that fails before the command ends it; one that fails after it is a warning. An executable file that says what it is run by is started as
it is; any other by bash, as KubeEdge starts them all. It has keadm's output, no input, and half an hour.

Errors  KeadmError.
Source  KubeEdge v1.20, keadm/cmd/keadm/app/cmd/util/scriptrun.go, edge/join.go, reset/edge/reset_others.go.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.cli.keadm.command import Tools

__all__ = ["add_scripts", "after", "before"]

_LIMIT_S: Final = 1800.0
_MARKS: Final = (b"#!", b"\x7fE")  #: how files begin that the kernel can start


def add_scripts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pre-run", metavar="FILE", default="", help="a script that runs first; if it fails, nothing is done"
    )
    parser.add_argument("--post-run", metavar="FILE", default="", help="a script that runs when all has been done")


def before(arguments: argparse.Namespace, tools: Tools) -> None:
    """Run ``--pre-run``. Raises KeadmError if it fails, or if either script cannot be read."""
    for flag, given in (("--pre-run", arguments.pre_run), ("--post-run", arguments.post_run)):
        if given:
            _command(flag, given)
    if arguments.pre_run:
        _run("--pre-run", arguments.pre_run, tools)


def after(arguments: argparse.Namespace, tools: Tools) -> None:
    """Run ``--post-run``; its failure is said."""
    if not arguments.post_run:
        return
    try:
        _run("--post-run", arguments.post_run, tools)
    except KeadmError as exc:
        tools.progress.warn(str(exc))


def _run(flag: str, given: str, tools: Tools) -> None:
    """Raises KeadmError."""
    tools.progress.step(f"run the script {given}")
    if tools.progress.dry_run:
        return
    try:
        done = subprocess.run(_command(flag, given), stdin=subprocess.DEVNULL, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise KeadmError(f"{flag}: {given} has not ended within {_LIMIT_S:g} s") from None
    except OSError as exc:
        raise KeadmError(f"{flag}: {given} cannot be started: {exc.strerror}") from None
    if done.returncode:
        how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        raise KeadmError(f"{flag}: {given} ended with {how}")


def _command(flag: str, given: str) -> list[str]:
    """How to start the script. Raises KeadmError."""
    path = Path(given).absolute()
    try:
        with path.open("rb") as file:
            begins = file.read(2)
    except OSError as exc:
        raise KeadmError(f"{flag}: {given}: {exc.strerror}") from None
    if begins in _MARKS and os.access(path, os.X_OK):
        return [str(path)]
    return ["/bin/bash", str(path)]
