"""Figures: percentiles of pod start-up with the columns of Kubernetes' density test, and what a process has used.

Units   Seconds unless a column says milliseconds; bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["PodTimes", "ProcessUse", "percentiles", "process_use", "startup_table"]

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


def percentiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the 50th, 90th and 99th, 0 where there are no values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0, 0.0, 0.0
    last = len(ordered) - 1
    p50, p90, p99 = (ordered[min(last, int(len(ordered) * part))] for part in (0.5, 0.9, 0.99))
    return p50, p90, p99


def startup_table(times: PodTimes) -> list[str]:
    """Return the lines of the table, in milliseconds."""
    lines = [f"{'pod start-up (ms)':<22}{'Perc50':>10}{'Perc90':>10}{'Perc99':>10}{'pods':>8}"]
    for column, spans in times.spans().items():
        p50, p90, p99 = (value * 1000 for value in percentiles(spans))
        lines.append(f"{column:<22}{p50:>10.1f}{p90:>10.1f}{p99:>10.1f}{len(spans):>8}")
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
