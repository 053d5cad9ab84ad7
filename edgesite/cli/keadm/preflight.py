"""What is checked before anything changes: all of it, so that a person hears of everything at once.

Checks that find a reason not to begin raise nothing: they are collected, and `Preflight.finish` raises with all of them.

Errors  KeadmError.
Source  KubeEdge v1.12.7, keadm/cmd/keadm/app/cmd/common and util (what is checked, and the messages that scripts know).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from edgesite.cli.keadm.containers import runtime_problem
from edgesite.cli.keadm.failure import KeadmError
from edgesite.edge.edged.hostcheck import AGENTS, SWITCH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgesite.cli.keadm.host import Host
    from edgesite.cli.keadm.progress import Progress

__all__ = ["Preflight"]

_MIB: Final = 1 << 20
_LEAST_BYTES: Final = 64 * _MIB
_LITTLE_BYTES: Final = 1024 * _MIB
_PLAUSIBLE: Final = 1_767_225_600  #: 2026-01-01: a clock before this has never been set


class Preflight:
    """One command's checks."""

    def __init__(self, host: Host, progress: Progress) -> None:
        self._host, self._progress = host, progress
        self.problems: list[str] = []

    def finish(self) -> None:
        """Raises KeadmError with everything that stands in the way."""
        if self.problems:
            raise KeadmError("\n".join(self.problems))

    def not_running(self, program: str, name: str) -> None:
        if self._host.processes(program):
            self.problems.append(f"{name} is already running on this node, please run reset to clean up first")

    def no_other_agent(self) -> None:
        """Two agents that manage the pods of one host would undo each other's work."""
        for name, pid in self._host.processes(*AGENTS).items():
            self.problems.append(
                f"{name} (process {pid}) should not running on edge node when running edgecore: stop and disable it,"
                f" or set {SWITCH}=false here and for edgecore.service"
            )

    def runtime(self, endpoint: str) -> None:
        """The container runtime must speak CRI."""
        if endpoint and (problem := runtime_problem(self._host, endpoint)):
            self.problems.append(
                f"the container runtime at {endpoint} does not answer by CRI v1: {problem} (is its CRI plugin disabled?)"
            )

    def ports(self, ports: Mapping[int, str]) -> None:
        """``ports`` says what each is for."""
        for port, purpose in ports.items():
            if port and self._host.port_is_taken(port):
                self.problems.append(f"port {port} ({purpose}) is taken by another program")

    def disk(self, path: str) -> None:
        free = self._host.free_bytes(path)
        if free < _LEAST_BYTES:
            self.problems.append(f"{path}: {free // _MIB} MiB are free; {_LEAST_BYTES // _MIB} MiB are needed to begin")
        elif free < _LITTLE_BYTES:
            self._progress.warn(f"{path}: only {free // _MIB} MiB are free, for the database, images and logs")

    def clock(self) -> None:
        """Certificates of a clock that was never set would be worthless."""
        now = time.time()
        if now < _PLAUSIBLE:
            shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
            self.problems.append(f"the clock shows {shown} UTC: set it first (chrony, systemd-timesyncd, or by hand)")

    def program(self, name: str) -> None:
        if self._host.program(name) is None and self._host.own_program() is None:
            self.problems.append(f"the program {name} is not installed: install the package kubeedge-{name}")
