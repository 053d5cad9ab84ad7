"""A fault run of the link in simulated time, with books kept of every message: ``python -m benchmarks.linkfaults --simulated 30m``.

The world is `edgesite.testing.simulator.worlds.link`: kills at any await, power cuts that lose what was not synced, cut and half-open
links, delay, loss, full disks, damaged databases, clocks that jump at both ends, messages that come again out of order.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from benchmarks import rig

__all__ = ["play"]

_FAULTS: Final = (
    "kill", "kill between awaits", "stop", "power", "power in a commit", "cut", "half-open", "reset", "slow", "full disk",
    "clock", "corrupt", "echo",
)  # fmt: skip
_BOOKS: Final = (
    "messages sent", "messages acknowledged", "messages repeated", "messages coalesced", "messages stale", "messages applied",
    "messages dropped as old", "applied twice", "removals acknowledged", "removals applied", "reports", "reports repeated",
    "acknowledged writes", "stores checked after a crash", "acknowledged versions looked for after power cuts",
    "ObjectSync versions checked", "container starts", "rounds that ended equal",
)  # fmt: skip


def play(seconds: float, seed: int) -> int:
    """Run, and print the tally. Returns the exit code."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # the same seed is to give the same run
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks.linkfaults", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    from edgesite.testing.simulator.world import run
    from edgesite.testing.simulator.worlds.link import lasting

    started = time.process_time()
    outcome = run(lasting(seconds), seed)
    for name in _FAULTS:
        rig.line(f"fault: {name}", str(outcome.counts.get(name, 0)))
    for name in _BOOKS:
        rig.line(name, str(outcome.counts.get(name, 0)), "0" if name == "applied twice" else "")
    rig.line("virtual seconds", f"{outcome.virtual_s:.0f}", f"{seconds:.0f}")
    rig.line("CPU seconds", f"{time.process_time() - started:.1f}")
    rig.line("trace", outcome.digest)
    if outcome.failure is not None:
        print("\n".join(outcome.last_lines[-40:]))
        print(outcome.failure)
        return 1
    return 0
