"""Memory of an idle site with 10 pods, by role: resident (RSS), proportional (PSS), threads, imported modules.

    python -m benchmarks.memory [--settle 10]

The pods' own processes are not counted, nor is containerd; the helper process of the process runtime has a line of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections import Counter
from pathlib import Path

from benchmarks import idle, rig
from edgesite.testing.containerd import BUSYBOX

SITE_MIB, EDGE_MIB = 110, 65


def show(what: str, held: idle.Held, target_mib: int = 0) -> None:
    rig.line(f"{what}: RSS", f"{held.rss_mib:.1f} MiB", f"{target_mib} MB" if target_mib else "")
    rig.line("  PSS", f"{held.pss_mib:.1f} MiB")
    rig.line("  threads, modules", f"{held.threads}, {held.modules}")
    tops = Counter(name.partition(".")[0] for name in held.names)
    print("  most modules: " + ", ".join(f"{name} {count}" for name, count in tops.most_common(8)))
    heavy = {"cryptography", "pydantic", "pydantic_core", "grpc", "paho", "multiprocessing", "ssl", "yaml"} & set(tops)
    print(f"  of the large ones: {', '.join(sorted(heavy)) or 'none'}")


def helper_mib(folder: Path) -> float:
    """RSS of the process that keeps the process runtime's pods, found by its argument."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if any(one.endswith(b"supervisor.py") for one in arguments) and str(folder).encode() in b" ".join(
                    arguments
                ):
                    return rig.usage(int(entry.name)).rss / (1 << 20)
            except OSError:
                continue
    raise rig.BenchmarkFailed("the process runtime has no helper")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settle", type=float, default=10.0)
    settle_s = parser.parse_args().settle
    with rig.folder() as folder:
        with idle.site_with_pods(folder) as (program, env):
            time.sleep(settle_s)
            show("whole site, process runtime, 10 pods", idle.held(program, env), SITE_MIB)
            rig.line("  helper process of the runtime, beside it: RSS", f"{helper_mib(folder):.1f} MiB")
        with idle.two_roles(folder / "apart") as roles:
            time.sleep(settle_s)
            show("edge role alone, process runtime, 10 pods", idle.held(*roles["edge"]), EDGE_MIB)
            show("cloud role alone", idle.held(*roles["cloud"]))
    if os.getuid() or not shutil.which("containerd"):
        print("containerd needs root and its programs: not measured")
        return
    with rig.folder() as folder, rig.containerd(folder) as daemon:
        options = ("--cri-endpoint", daemon.endpoint)
        with idle.site_with_pods(folder, *options, runtime="cri", image=BUSYBOX) as (program, env):
            time.sleep(settle_s)
            show("whole site, containerd, 10 pods", idle.held(program, env), SITE_MIB)


if __name__ == "__main__":
    main()
