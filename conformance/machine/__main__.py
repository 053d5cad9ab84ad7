"""What only a whole machine shows, in a virtual one: Debian 12 with systemd, cgroup v2, containerd, NFS, netem.

    python -m conformance.machine [--only NAME,…] [--memory MIB] [--timeout SECONDS] [--out FOLDER]

The machine is emulated, so this takes half an hour and needs no hardware support. Needs root, qemu-system-x86, mmdebstrap and
e2fsprogs, Python 3.11 with this project's requirements, and kubectl as tests/peers.py fetches it. Disks are made from Debian's
packages. Prints a line for each check; logs of the machine are in the output folder. Ends with 1 if a check failed.

Units   Seconds, MiB.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

from conformance.machine.checks import CHECKS, LAST
from conformance.machine.image import CACHE, ImageError, base, program
from conformance.machine.vm import Vm, VmError


def main() -> int:
    names = [one.__name__ for one in (*CHECKS, LAST)]
    parser = argparse.ArgumentParser(prog="conformance.machine", description="What only a whole machine shows.")
    parser.add_argument("--only", default=",".join(names), help=f"some of {', '.join(names)}")
    parser.add_argument("--memory", type=int, default=2048, help="of the machine, in MiB")
    parser.add_argument("--timeout", type=float, default=3600.0, help="for each boot, in seconds")
    parser.add_argument("--kubectl", type=Path, default=CACHE / "kubectl-1.32")
    parser.add_argument("--out", type=Path, help="folder for disks and logs")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if strange := set(wanted) - set(names):
        parser.error(f"there is no {', '.join(sorted(strange))}")
    for ending in (signal.SIGINT, signal.SIGTERM):  # also in the background the machine is to end
        signal.signal(ending, signal.default_int_handler)
    out: Path = arguments.out or Path(tempfile.mkdtemp(prefix="edgesite-machine-"))
    out.mkdir(parents=True, exist_ok=True)
    began, rows, failure = time.monotonic(), 0, ""
    failed: list[str] = []
    try:
        vm = Vm(base(), program(out, arguments.kubectl), out, arguments.memory)
        print(f"the disks are made: {time.monotonic() - began:.0f} s", flush=True)
        boots = [[f"conformance.checks={','.join(wanted)}"]]
        if LAST.__name__ in wanted:
            boots.append(["conformance.after"])
        try:
            for words in boots:
                for line in vm.boot(words, arguments.timeout):
                    row = json.loads(line)
                    rows += 1
                    mark = "ok  " if row["ok"] else "FAIL"
                    print(f"{mark} {row['name']:15} {row['seconds']:7.1f} s  {row['text']}", flush=True)
                    if not row["ok"]:
                        failed.append(row["name"])
        finally:
            vm.fetch("/var/log", out)
    except (ImageError, VmError) as exc:
        failure = str(exc)
        print(failure)
    expected = len(wanted) + 2 * (1 + (LAST.__name__ in wanted)) + (LAST.__name__ in wanted)
    print(f"{len(failed)} failed, {max(0, expected - rows)} not run; logs in {out}")
    return 1 if failed or failure or rows < expected else 0


if __name__ == "__main__":
    sys.exit(main())
