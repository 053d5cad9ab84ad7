"""Runs in the machine, as a service: makes it fit, runs the checks that the kernel's command line names, and powers it off.

    conformance.checks=NAME,…    of `checks`; conformance.after looks at what the boot before left

What it finds goes to the second serial line, a JSON object a line: name, ok, seconds, text.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from conformance.machine import checks
from conformance.machine.site import ADDRESS, Site, host
from conformance.programs import Failed

_REPORT: Final = Path("/dev/ttyS1")
_MODULES: Final = ("overlay", "br_netfilter", "dummy", "sch_netem", "veth", "bridge", "nfs", "tun")


def main() -> int:
    """Whatever happens, the machine is powered off in the end."""
    try:
        _play_all()
    finally:
        subprocess.run(["systemctl", "poweroff"], check=True)
    return 0


def _play_all() -> None:
    host("stty", "-F", str(_REPORT), "raw", "-echo")
    words = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
    wanted = [name for name in words.get("conformance.checks", "").split(",") if name]
    with _REPORT.open("w", buffering=1) as report:

        def play(name: str, check: Callable[[], str]) -> bool:
            began = time.monotonic()
            ok, text = True, ""
            try:
                text = check()
            except Failed as exc:
                ok, text = False, str(exc)
            except Exception:
                ok, text = False, traceback.format_exc()
            row = {"name": name, "ok": ok, "seconds": round(time.monotonic() - began, 1), "text": text[-1500:]}
            print(json.dumps(row), file=report, flush=True)
            return ok

        if play("prepare", _prepare):
            site = Site("/opt/edgesite/bin/kubectl")
            if play("start", lambda: f"{type(site.__enter__()).__name__.lower()} is ready"):
                if "conformance.after" in words:
                    play(checks.AFTER.__name__, lambda: checks.AFTER(site))
                for check in checks.CHECKS:
                    if check.__name__ in wanted:
                        play(check.__name__, lambda check=check: check(site))  # type: ignore[misc]
                if checks.LAST.__name__ in wanted and play(checks.LAST.__name__, lambda: checks.LAST(site)):
                    subprocess.run(["systemctl", "poweroff"], check=True)
                    time.sleep(600)  # ended by the shutdown
            site.__exit__(None, None, None)


def _prepare() -> str:
    """Modules, huge pages, a resolver's address, and an address of its own with a way out, as a host has them."""
    missing = [name for name in _MODULES if subprocess.run(["modprobe", name], check=False).returncode]
    host("sysctl", "-q", "-w", "vm.nr_hugepages=16", "net.ipv4.ip_forward=1")
    for words in (
        "link set lo up",
        "link add es0 type dummy",
        f"address add {ADDRESS}/24 dev es0",
        "link set es0 up",
        "route add default via 10.88.0.254 dev es0",
    ):
        subprocess.run(["ip", *words.split()], check=False)
    Path("/etc/resolv.conf").write_text("nameserver 10.88.0.254\n")
    return f"without {', '.join(missing)}" if missing else "all modules are there"


if __name__ == "__main__":
    sys.exit(main())
