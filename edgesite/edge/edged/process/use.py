"""What running containers use: from their control groups, else from the processes of their sessions. Blocking: call it in a thread.

Units   Nanoseconds, bytes.
Errors  None: what has gone meanwhile is None.
Source  proc(5): stat (fields 6 session, 14 and 15 times in ticks, 24 resident pages).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from edgesite.edge.edged.process.cgroups import Use
from edgesite.edge.edged.process.records import ContainerRecord

__all__ = ["uses"]


def uses(containers: Sequence[ContainerRecord]) -> list[Use | None]:
    """Return the use of each container, in their order; processes are read once for all that have no control group."""
    sessions = {one.state.pid for one in containers if one.cgroup is None}
    by_session = _by_session(sessions) if sessions else {}
    return [one.cgroup.use() if one.cgroup is not None else by_session.get(one.state.pid) for one in containers]


def _by_session(wanted: set[int]) -> dict[int, Use]:
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    page = os.sysconf("SC_PAGE_SIZE")
    totals: dict[int, tuple[int, int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        session = int(fields[3])
        if session in wanted:
            cpu_ns, resident = totals.get(session, (0, 0))
            totals[session] = (
                cpu_ns + (int(fields[11]) + int(fields[12])) * tick_ns,
                resident + int(fields[21]) * page,
            )
    return {session: Use(cpu_ns, resident, resident, resident) for session, (cpu_ns, resident) in totals.items()}
