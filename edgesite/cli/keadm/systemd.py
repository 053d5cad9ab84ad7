"""systemd by ``systemctl``: units started, stopped, enabled; and the unit that is written where no package brings one.

Errors  SystemdError: systemctl refused; its own words.
Source  KubeEdge v1.12.7, build/tools/*.service and keadm join (what a unit has); systemctl(1).
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgesite.cli.keadm.failure import KeadmError

if TYPE_CHECKING:
    from edgesite.cli.keadm.host import Host

__all__ = ["CLOUD_STATE", "MARK", "OWN_UNITS", "Systemd", "SystemdError", "unit_text"]

MARK: Final = "# Written by keadm; `keadm reset` removes it."
_LINES: Final = 6
OWN_UNITS: Final = "/etc/systemd/system"
CLOUD_STATE: Final = "/var/lib/kubeedge/cloudcore"  #: apart from the edge's, so that one host may be both
_UNIT_PLACES: Final = (
    OWN_UNITS,
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


class SystemdError(KeadmError):
    """systemctl refused."""


class Systemd:
    """``units`` are named without ".service"."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def unit_file(self, unit: str) -> Path | None:
        """Where the unit is installed; None if nowhere."""
        paths = (self._host.path(place) / f"{unit}.service" for place in _UNIT_PLACES)
        return next((one for one in paths if one.is_file()), None)

    def is_active(self, unit: str) -> bool:
        return self._ask("is-active", unit).strip() == "active"

    def is_enabled(self, unit: str) -> bool:
        return self._ask("is-enabled", unit).strip() == "enabled"

    def properties(self, unit: str, *names: str) -> Mapping[str, str]:
        """Properties of a unit; those that are not known are left out."""
        text = self._ask("show", f"--property={','.join(names)}", unit)
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def user_of(self, unit: str) -> str:
        """The user that the unit runs as; "" for root."""
        return self.properties(unit, "User").get("User", "")

    def last_words(self, unit: str) -> str:
        """The last lines that the unit has logged, to be shown where it fails; "" if there are none."""
        try:
            done = self._host.run(["journalctl", "--no-pager", "--output=cat", f"--lines={_LINES}", f"--unit={unit}"])
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return "".join(f"\n  {line}" for line in done.stdout.splitlines())

    def reload(self) -> None:
        self._do("daemon-reload")

    def enable(self, unit: str) -> None:
        self._do("enable", unit)

    def disable(self, unit: str) -> None:
        self._do("disable", unit)

    def start(self, unit: str) -> None:
        """Start; returns when it runs, or with a unit that tells, when it is ready. Raises SystemdError."""
        self._do("restart", unit)

    def stop(self, unit: str) -> None:
        self._do("stop", unit)

    def _ask(self, verb: str, *arguments: str) -> str:
        try:
            return self._host.run(["systemctl", verb, *arguments]).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""

    def _do(self, verb: str, *arguments: str) -> None:
        argv = ["systemctl", verb, *arguments]
        try:
            done = self._host.run(argv)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise SystemdError(f"{' '.join(argv)}: {exc}") from None
        if done.returncode:
            raise SystemdError(f"{' '.join(argv)}: {done.stderr.strip() or f'exit code {done.returncode}'}")


def unit_text(unit: str, program: Path) -> str:
    """A unit for a program of ours, where no package has brought one. Containers run on when it is stopped."""
    role, options = {"cloudcore": ("cloud", f" --data-dir {CLOUD_STATE}"), "edgecore": ("edge", "")}[unit]
    kill = "process" if unit == "edgecore" else "control-group"
    return f"""{MARK}
[Unit]
Description={unit} ({role} role)
Wants=network-online.target
After=network-online.target containerd.service crio.service

[Service]
Type=notify
NotifyAccess=main
ExecStart={program}{options}
Restart=always
RestartSec=10
RestartPreventExitStatus=2
TimeoutStartSec=100
KillMode={kill}

[Install]
WantedBy=multi-user.target
"""
