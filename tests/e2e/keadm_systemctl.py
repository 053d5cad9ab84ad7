"""What keadm asks of systemd, where no systemd runs: starts ExecStart of units, remembers what is enabled. Installed as ``systemctl``."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = Path("/run/units")
PLACES = ("/etc/systemd/system", "/usr/lib/systemd/system")


def unit_file(unit: str) -> Path:
    for place in PLACES:
        if (file := Path(place) / f"{unit}.service").exists():
            return file
    sys.exit(f"Unit {unit}.service could not be found.")


def value(unit: str, key: str) -> str:
    lines = [one for one in unit_file(unit).read_text().splitlines() if one.startswith(f"{key}=")]
    return lines[-1].partition("=")[2] if lines else ""


def main_pid(unit: str) -> int:
    try:
        pid = int((STATE / f"{unit}.pid").read_text())
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return 0
    return 0 if stat[0] in "ZX" else pid


def stop(unit: str) -> None:
    if pid := main_pid(unit):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while main_pid(unit):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
    (STATE / f"{unit}.pid").unlink(missing_ok=True)


def start(unit: str) -> None:
    argv = value(unit, "ExecStart").split()
    with (STATE / f"{unit}.log").open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (STATE / f"{unit}.pid").write_text(str(process.pid))


def state_of(unit: str) -> str:
    if main_pid(unit):
        return "active"
    return "failed" if (STATE / f"{unit}.pid").exists() else "inactive"


STATE.mkdir(exist_ok=True)
verb, *rest = sys.argv[1:]
names = [one.removesuffix(".service") for one in rest if not one.startswith("-")]
(STATE / "asked").open("a").write(" ".join(sys.argv[1:]) + "\n")
if verb == "daemon-reload":
    sys.exit(0)
unit = names[0]
if verb == "is-active":
    print(state_of(unit))
elif verb == "is-enabled":
    print("enabled" if (STATE / f"{unit}.enabled").exists() else "disabled")
elif verb == "show":
    print(f"User={value(unit, 'User') if any((Path(one) / f'{unit}.service').exists() for one in PLACES) else ''}")
    print(f"ActiveState={state_of(unit)}")
elif verb in ("enable", "disable", "restart", "stop"):
    unit_file(unit)
    if verb == "enable":
        (STATE / f"{unit}.enabled").touch()
    elif verb == "disable":
        (STATE / f"{unit}.enabled").unlink(missing_ok=True)
    else:
        stop(unit)
        if verb == "restart":
            start(unit)
else:
    sys.exit(f"Unknown command verb {verb}.")
