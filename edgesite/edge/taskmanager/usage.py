"""What of this machine is in use, as shares from 0 to 1. Blocking."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["used"]


def used(folder: Path) -> dict[str, float]:
    """CPU by the load of the last minute, memory by what is available, disk of ``folder``. Raises OSError."""
    disk = os.statvfs(folder)
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines() if ":" in line)
    total, available = (int(memory[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return {
        "cpu": min(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0),
        "mem": 1.0 - available / total if total else 0.0,
        "disk": 1.0 - disk.f_bavail / disk.f_blocks if disk.f_blocks else 0.0,
    }
