"""Start: from exec to node Ready on a warm disk, by phase; each role alone; the same on an empty folder; imports of each.

    python -m benchmarks.start [--runs 7]

Embedded API, process runtime. Times are medians of what this process sees: seconds from just before exec to the arrival of a line.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
from pathlib import Path
from typing import Final

from benchmarks import rig
from benchmarks.apart import Apart

TARGET_S: Final = 2.0
#: Phase → the line that ends it. Phases overlap: the roles start side by side.
PHASES: Final = {
    "API listening": "apiserver: serving the API",
    "hub connected": "edgehub: connected to the cloud",
    "node registered": "edged: node=.* is registered",
    "node Ready": "Ready after",
}


def up(data: Path) -> tuple[str, ...]:
    where = ("--data-dir", str(data), "--node-name", "node1", "--api-address", f"127.0.0.1:{rig.free_port()}")
    return ("up", *where, "--runtime", "process", *rig.UP_PORTS)


def timed(arguments: tuple[str, ...], last: str, installed: Path = rig.PROGRAM) -> tuple[dict[str, float], float]:
    """Start and stop once; return when each phase ended, and CPU seconds until the last."""
    with rig.Program(*arguments, program=installed) as program:
        program.wait_line(last)
        cpu_s = rig.usage(program.pid).cpu_s
        ends = {
            name: next((at for at, text in program.lines if re.search(end, text)), 0.0) for name, end in PHASES.items()
        }
        ends["last"] = program.wait_line(last)[0]
    return ends, cpu_s


def import_s(arguments: tuple[str, ...], last: str) -> tuple[float, int]:
    """Seconds spent in imports, and their number, as the interpreter itself counts them (which slows it by some percent)."""
    with rig.Program(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"}) as program:
        program.wait_line(last)
        selves = [re.match(r"import time:\s+(\d+) \|", text) for _, text in program.lines]
    took = [int(one[1]) for one in selves if one]
    return sum(took) / 1e6, len(took)


def median(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s"


def whole_site(data: Path, runs: int) -> None:
    ends, _ = timed(up(data), "Ready after")
    rig.line("whole site, empty folder (CA, certificates, store made)", f"{ends['last']:.2f} s")
    measured = [timed(up(data), "Ready after") for _ in range(runs)]
    for name in PHASES:
        rig.line(f"  {name}", median([ends[name] for ends, _ in measured]))
    rig.line(
        f"whole site, exec to node Ready, median of {runs}",
        median([ends["last"] for ends, _ in measured]),
        f"{TARGET_S:.1f} s",
    )
    rig.line("  slowest", f"{max(ends['last'] for ends, _ in measured):.2f} s")
    rig.line("  CPU of it", median([cpu_s for _, cpu_s in measured]))
    took, count = import_s(up(data), "Ready after")
    rig.line(f"  imports of {count} modules (instrumented)", f"{took:.2f} s")


def roles_apart(folder: Path, runs: int) -> None:
    apart = Apart(folder)
    with apart.cloud() as cloud:
        rig.line("cloud alone, empty folder", f"{cloud.wait_line('ready after')[0]:.2f} s")
        with apart.edge(apart.token()) as edge:
            rig.line("edge alone, first join (certificate by token)", f"{edge.wait_line('ready after')[0]:.2f} s")
        edges = [timed(apart.edge_arguments(), "ready after") for _ in range(runs)]
    clouds = [timed(apart.cloud_arguments(), "ready after") for _ in range(runs)]
    for name, measured in (("cloud", clouds), ("edge", edges)):
        rig.line(f"{name} alone, all modules ready, median of {runs}", median([ends["last"] for ends, _ in measured]))
        rig.line("  CPU of it", median([cpu_s for _, cpu_s in measured]))


def bare_interpreter() -> None:
    """What no Python program can do without, for comparison."""
    arguments = [str(rig.PROGRAM.parent / "python"), "-c", "import asyncio"]
    taken = []
    for _ in range(3):
        before = os.times()
        subprocess.run(arguments, check=True)
        after = os.times()
        taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    rig.line("CPU of an interpreter that imports asyncio", median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with rig.folder() as folder:
        whole_site(folder / "site", runs)
        roles_apart(folder, min(runs, 3))
    bare_interpreter()


if __name__ == "__main__":
    main()
