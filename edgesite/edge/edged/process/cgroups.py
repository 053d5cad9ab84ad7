"""Control groups of host processes, version 1 or 2, where we may write them. Blocking: call it in a thread.

Units   As in `LinuxResources`; use is nanoseconds and bytes.
Errors  None: where a group cannot be made, `Cgroups.make` says so by None and the caller falls back on rlimits.
State   The groups themselves.
Source  Linux Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst; runc's conversion of shares to weights.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgesite.edge.edged.runtime import LinuxResources

__all__ = ["Cgroup", "Cgroups", "Use"]

ROOT: Final = Path("/sys/fs/cgroup")
OURS: Final = "edgesite"  #: Above all groups of sandboxes that name no parent.
_V1: Final = ("cpu", "cpuacct", "memory", "pids")
_V2: Final = ("cpu", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Use:
    cpu_ns: int
    memory_bytes: int
    working_set_bytes: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One container's group: its directory in each hierarchy; one under version 2."""

    version: int
    directories: tuple[str, ...]
    hierarchies: tuple[str, ...] = ()  #: of version 1, by name: "memory", "cpu,cpuacct"

    @property
    def procs(self) -> list[str]:
        """The files that a process joins by."""
        return [f"{one}/cgroup.procs" for one in self.directories]

    @property
    def oom_file(self) -> str:
        """Where the kernel counts what it killed for want of memory; "" if it does not."""
        memory = self._of("memory")
        if not memory:
            return ""
        return f"{memory}/memory.events" if self.version == 2 else f"{memory}/memory.oom_control"

    def _of(self, controller: str) -> str:
        if self.version == 2:
            return self.directories[0]
        for name, directory in zip(self.hierarchies, self.directories, strict=True):
            if controller in name.split(","):
                return directory
        return ""

    def limit(self, resources: LinuxResources) -> None:
        """Set limits. Raises OSError."""
        for path, text in self._settings(resources):
            _write(path, text)

    def _settings(self, resources: LinuxResources) -> list[tuple[str, str]]:
        cpu, memory = self._of("cpu"), self._of("memory")
        found: list[tuple[str, str]] = []
        quota = resources.cpu_quota_us or 0
        if self.version == 2:
            if resources.cpu_shares:
                weight = 1 + (max(resources.cpu_shares, 2) - 2) * 9999 // 262142
                found.append((f"{cpu}/cpu.weight", str(weight)))
            if resources.cpu_period_us:
                found.append((f"{cpu}/cpu.max", f"{quota or 'max'} {resources.cpu_period_us}"))
            if resources.memory_bytes:
                found.append((f"{memory}/memory.max", str(resources.memory_bytes)))
            return found
        if cpu and resources.cpu_shares:
            found.append((f"{cpu}/cpu.shares", str(resources.cpu_shares)))
        if cpu and resources.cpu_period_us:
            found.append((f"{cpu}/cpu.cfs_period_us", str(resources.cpu_period_us)))
            found.append((f"{cpu}/cpu.cfs_quota_us", str(quota or -1)))
        if memory and resources.memory_bytes:
            found.append((f"{memory}/memory.limit_in_bytes", str(resources.memory_bytes)))
        return found

    def use(self) -> Use | None:
        """What the group has used; None if it is gone."""
        try:
            return self._use_v2() if self.version == 2 else self._use_v1()
        except (OSError, ValueError, KeyError):
            return None

    def _use_v2(self) -> Use:
        place = Path(self.directories[0])
        cpu, memory = _table(place / "cpu.stat"), _table(place / "memory.stat")
        used = int((place / "memory.current").read_text())
        return Use(cpu["usage_usec"] * 1000, used, max(used - memory.get("inactive_file", 0), 0), memory.get("anon", 0))

    def _use_v1(self) -> Use:
        cpu = int(Path(self._of("cpuacct"), "cpuacct.usage").read_text())
        place = Path(self._of("memory"))
        memory = _table(place / "memory.stat")
        used = int((place / "memory.usage_in_bytes").read_text())
        inactive = memory.get("total_inactive_file", 0)
        return Use(cpu, used, max(used - inactive, 0), memory.get("total_rss", 0))


class Cgroups:
    """Makes and removes groups below ``root``."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self.version = 2 if (root / "cgroup.controllers").exists() else 1

    def make(self, parent: str, name: str, resources: LinuxResources) -> Cgroup | None:
        """Make the group ``name`` with its limits; None if the host does not let us."""
        group = self._group(parent, name)
        if not group.directories:
            return None
        try:
            for directory in group.directories:
                Path(directory).mkdir(parents=True, exist_ok=True)
            if self.version == 2:
                self._enable(Path(group.directories[0]).parent)
            group.limit(resources)
            if not all(os.access(one, os.W_OK) for one in group.procs):
                raise PermissionError
        except OSError:
            self.remove(group)
            return None
        return group

    def find(self, parent: str, name: str) -> Cgroup | None:
        """The group if it is there, also where a crash came before anybody noted it."""
        group = self._group(parent, name)
        return group if any(os.path.isdir(one) for one in group.directories) else None

    def _group(self, parent: str, name: str) -> Cgroup:
        below = Path(parent.strip("/") or OURS, name)
        places = self._hierarchies()
        names = tuple(one.name for one in places) if self.version == 1 else ()
        return Cgroup(self.version, tuple(str(one / below) for one in places), names)

    def _hierarchies(self) -> list[Path]:
        if self.version == 2:
            return [self._root]
        if not self._root.is_dir():
            return []
        return [
            one for one in sorted(self._root.iterdir()) if not one.is_symlink() and set(one.name.split(",")) & set(_V1)
        ]

    def _enable(self, directory: Path) -> None:
        """Let the controllers reach what is below ``directory``, from the root on."""
        for one in reversed([directory, *directory.parents]):
            if one != self._root and self._root not in one.parents:
                continue
            there = (one / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{name}" for name in _V2 if name in there)
            _write(str(one / "cgroup.subtree_control"), wanted)

    def remove(self, group: Cgroup) -> bool:
        """Remove a group; False if something is still in it."""
        for directory in group.directories:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        return not any(os.path.isdir(one) for one in group.directories)

    def remove_parent(self, parent: str) -> None:
        """Remove what stood above a sandbox's groups, as far up as it is empty."""
        for hierarchy in self._hierarchies():
            place = hierarchy / (parent.strip("/") or OURS)
            with contextlib.suppress(OSError):
                while place != hierarchy:
                    place.rmdir()
                    place = place.parent


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
