"""Maintainer scripts for a package's units: what the spec's scriptlets do, called as dpkg calls them.

Nothing is enabled or started at installation. An upgrade restarts the units that run; removal stops and disables them,
and leaves what the roles wrote (/etc/kubeedge, /var/lib/kubeedge).

Source  Debian Policy, chapter 6.5 (how maintainer scripts are called).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["of"]

_POSTINST: Final = """#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
{prepare}if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    if [ -n "$2" ]; then
        systemctl try-restart {units} || :
    fi
fi
"""
_PRERM: Final = """#!/bin/sh
set -e
[ "$1" = remove ] || exit 0
if [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now {units} || :
else
    systemctl --no-reload disable {units} || :
fi
"""
_POSTRM: Final = """#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
fi
"""


def of(root: Path) -> dict[str, str]:
    """The scripts of the package that is unpacked in ``root``, by name; none for one without units."""
    units = " ".join(sorted(path.name for path in (root / "usr/lib/systemd/system").glob("*.service")))
    if not units:
        return {}
    prepare = "".join(
        f"{command} {path.name} || :\n"
        for command, folder in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles --create", "tmpfiles.d"))
        for path in sorted((root / "usr/lib" / folder).glob("*.conf"))
    )
    return {
        "postinst": _POSTINST.format(prepare=prepare, units=units),
        "prerm": _PRERM.format(units=units),
        "postrm": _POSTRM,
    }
