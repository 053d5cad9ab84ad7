"""A short form of the fault run in network namespaces: real processes, kill -9, dead and half-open links, bad packets, full disks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 40


def test_cloud_and_edges_are_equal_after_real_faults(tmp_path: Path) -> None:
    """Its books must balance too; needs root, iproute2 and iptables."""
    words = [sys.executable, "-m", "benchmarks.linkfaults", "--namespaces", "--seconds", str(SECONDS), "--seed", "5"]
    process = subprocess.Popen(
        words, cwd=tmp_path, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=SECONDS + 300)
    finally:
        process.terminate()  # it removes its namespaces and processes
        process.wait(60)
    assert process.returncode == 0, printed[-6000:]
    figures = {name.strip(): int(number) for name, number in re.findall(r"^(\D+?) {2,}(\d+)\b", printed, re.MULTILINE)}
    assert figures["differences at the end"] == figures["acknowledged and lost"] == figures["took effect twice"] == 0
    assert figures["messages acked"] > 50
    assert figures["acknowledged versions looked for on disk"] > 20
    assert sum(number for name, number in figures.items() if name.startswith("fault: ")) >= 3
