"""What an idle site with 10 pods does: bytes sent to disk a minute, wake-ups a second, CPU; by role.

    python -m benchmarks.writes [--seconds 40] [--settle 14]

Bytes are those that the system counts as written to storage on behalf of the process (write_bytes of /proc/PID/io); wake-ups are
voluntary context switches of all its threads. Every five minutes renewals are brought to disk and node statuses are reported: their
share is in the figures of 310 seconds or more.
"""

from __future__ import annotations

import argparse
import time

from benchmarks import idle, rig


def show(what: str, spent: idle.Spent) -> None:
    rig.line(f"{what}: written a minute", f"{spent.written_kib_per_minute:.1f} KiB")
    rig.line("  the same in a day", f"{spent.written_kib_per_minute * 1440 / 1024:.1f} MiB")
    rig.line("  wake-ups a second", f"{spent.wakeups_per_s:.1f}")
    rig.line("  CPU", f"{spent.cpu_percent:.2f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--settle", type=float, default=14.0)
    options = parser.parse_args()
    with rig.folder() as folder, idle.site_with_pods(folder) as (site, _), idle.two_roles(folder / "apart") as roles:
        time.sleep(options.settle)
        programs = {"whole site": site} | {f"{name} role alone": program for name, (program, _) in roles.items()}
        for name, spent in idle.spent(programs, options.seconds).items():
            show(name, spent)


if __name__ == "__main__":
    main()
