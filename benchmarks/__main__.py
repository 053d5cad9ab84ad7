"""Runs benchmarks: ``python -m benchmarks [NAME …]``, all of them without a name. Each prints its figures and their ratios."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks import rig

#: In the order in which they run; each is ``benchmarks/NAME.py`` and a process of its own.
NAMES = (
    "start",
    "memory",
    "writes",
    "pods",
    "podburst",
    "podend",
    "edge",
    "api",
    "access",
    "store",
    "net",
    "quic",
    "hub",
    "resume",
    "mqtt",
    "dmi",
    "mapper",
    "devices",
    "devicesite",
    "push",
    "metaserver",
)


def main() -> int:
    wanted = sys.argv[1:] or NAMES
    if unknown := set(wanted) - set(NAMES):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(rig.conditions())
    failed = []
    for name in wanted:
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
        print(f"   ({time.perf_counter() - started:.0f} s)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
