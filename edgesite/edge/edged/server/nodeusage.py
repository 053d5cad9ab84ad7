"""What the node as a whole uses, from the kernel's files. Blocking: call it in a thread.

Units   Bytes, nanoseconds; times are Unix nanoseconds.
Errors  None: what a kernel does not tell is 0.
Source  proc(5): stat, meminfo, loadavg, net/dev, net/route; statvfs(3).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgesite.edge.edged.podusage import Interface, interfaces

__all__ = ["DiskUsage", "NodeUsage", "disk_usage", "node_usage"]


@dataclass(frozen=True, slots=True)
class NodeUsage:
    booted_ns: int
    cpus: int
    cpu_ns: int  #: core nanoseconds since boot
    memory_bytes: int
    available_bytes: int
    working_set_bytes: int
    usage_bytes: int
    rss_bytes: int
    swap_bytes: int = 0
    swap_available_bytes: int = 0
    tasks: int = 0
    tasks_most: int = 0
    interfaces: tuple[Interface, ...] = ()
    default_interface: str = ""


@dataclass(frozen=True, slots=True)
class DiskUsage:
    capacity_bytes: int
    available_bytes: int
    used_bytes: int
    inodes: int
    inodes_free: int


def node_usage() -> NodeUsage:
    """Read what is used now."""
    stat, memory = _read("/proc/stat"), _read("/proc/meminfo")
    ticks = re.search(r"^cpu +(.*)$", stat, re.MULTILINE)
    fields = [int(one) for one in ticks[1].split()] if ticks else []
    busy = sum(fields[:3]) + sum(fields[5:8])  # user, nice, system; irq, softirq, steal: all but idle and waiting
    total, available = _kib(memory, "MemTotal"), _kib(memory, "MemAvailable")
    booted = re.search(r"^btime (\d+)$", stat, re.MULTILINE)
    return NodeUsage(
        booted_ns=int(booted[1]) * 10**9 if booted else 0,
        cpus=os.cpu_count() or 1,
        cpu_ns=busy * 10**9 // os.sysconf("SC_CLK_TCK"),
        memory_bytes=total,
        available_bytes=available,
        working_set_bytes=max(0, total - available),
        usage_bytes=max(0, total - _kib(memory, "MemFree")),
        rss_bytes=_kib(memory, "AnonPages"),
        swap_bytes=_kib(memory, "SwapTotal") - _kib(memory, "SwapFree"),
        swap_available_bytes=_kib(memory, "SwapFree"),
        tasks=int(tasks[1]) if (tasks := re.search(r"/(\d+) ", _read("/proc/loadavg"))) else 0,
        tasks_most=int(_read("/proc/sys/kernel/pid_max") or 0),
        interfaces=interfaces(Path("/proc/net/dev")),
        default_interface=_default_interface(_read("/proc/net/route")),
    )


def _default_interface(routes: str) -> str:
    """The interface of the default route, "" if there is none."""
    rows = (line.split() for line in routes.splitlines()[1:])
    return next((fields[0] for fields in rows if len(fields) > 7 and fields[1] == fields[7] == "00000000"), "")


def disk_usage(path: Path) -> DiskUsage:
    """Of the file system that holds ``path``. Raises OSError."""
    disk = os.statvfs(path)
    size = disk.f_frsize
    used = (disk.f_blocks - disk.f_bfree) * size
    return DiskUsage(disk.f_blocks * size, disk.f_bavail * size, used, disk.f_files, disk.f_favail)


def _kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
