"""Runs benchmarks: ``python -m benchmarks [NAME …]``, all of them without a name. Each prints its figures and their ratios."""

from __future__ import annotations

import signal
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


class Runner:
    """Runs one benchmark after the other. A signal goes to the one that runs, which is given the time to remove what it has made."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self.stopped_by = 0

    def run(self, name: str) -> bool:
        """Return whether it succeeded."""
        with subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}"], process_group=0) as self._child:
            return self._child.wait() == 0

    def stop(self, number: int, _: object) -> None:
        self.stopped_by = number
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def main() -> int:
    wanted = sys.argv[1:] or NAMES
    if unknown := set(wanted) - set(NAMES):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print(rig.conditions())
    failed, runner = [], Runner()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, runner.stop)
    for name in wanted:
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        if not runner.run(name):
            failed.append(name)
        if runner.stopped_by:
            return 128 + runner.stopped_by
        print(f"   ({time.perf_counter() - started:.0f} s)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
