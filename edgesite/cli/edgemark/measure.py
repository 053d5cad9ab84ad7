"""Figures: percentiles of pod start-up with the columns of Kubernetes' density test, and what a process has used.

Units   Seconds unless a column says milliseconds; bytes.
Source  Kubernetes' density test (test/e2e/scalability/density.go): create, schedule, run, watch, and percentiles 50, 90, 99 and 100.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["PERCENTILES", "PodTimes", "ProcessUse", "percentiles", "process_use", "startup_table"]

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_COLUMNS: Final = ("create_to_schedule", "schedule_to_run", "run_to_watch", "schedule_to_watch", "e2e")


@dataclass(slots=True)
class PodTimes:
    """When something was true of each pod, monotonic seconds: by name, but ``run``, which is by uid."""

    create: dict[str, float] = field(default_factory=dict)
    schedule: dict[str, float] = field(default_factory=dict)
    watch: dict[str, float] = field(default_factory=dict)
    uid: dict[str, str] = field(default_factory=dict)
    run: Mapping[str, float] = field(default_factory=dict)

    def spans(self) -> dict[str, list[float]]:
        """The time from one to the next, for pods that have both."""
        found: dict[str, list[float]] = {name: [] for name in _COLUMNS}
        for name, seen in self.watch.items():
            ran, bound = self.run.get(self.uid.get(name, "")), self.schedule.get(name)
            created = self.create.get(name)
            if ran is None or bound is None or created is None:
                continue
            for column, span in zip(
                _COLUMNS, (bound - created, ran - bound, seen - ran, seen - bound, seen - created), strict=True
            ):
                found[column].append(span)
        return found


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Return those of `PERCENTILES`, 0 where there are no values; "max" is the hundredth."""
    ordered = sorted(values) or [0.0]
    last = len(ordered) - 1
    return {name: ordered[min(last, int(len(ordered) * part))] for name, part in PERCENTILES.items()}


def startup_table(times: PodTimes) -> list[str]:
    """Return the lines of the table, in milliseconds."""
    heads = ("Perc50", "Perc90", "Perc99", "Perc100", "pods")
    lines = [f"{'pod start-up (ms)':<22}" + "".join(f"{one:>10}" for one in heads)]
    for column, spans in times.spans().items():
        found = "".join(f"{value * 1000:>10.1f}" for value in percentiles(spans).values())
        lines.append(f"{column:<22}{found}{len(spans):>10}")
    return lines


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process has used since its start; ``rss`` is what it has now."""

    cpu_s: float = 0.0
    rss: int = 0


def process_use(pid: int | None) -> ProcessUse:
    """Ask the system; zeros for no process, or one that is gone."""
    if pid is None:
        return ProcessUse()
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return ProcessUse()
    return ProcessUse((int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))
