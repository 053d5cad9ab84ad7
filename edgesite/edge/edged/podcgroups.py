"""The cgroups above containers: one for each pod, below one for each class, with what the pod may use in all. Blocking.

    /kubepods                       shares as the node can give; no memory that is reserved for the system
    /kubepods/burstable             shares as its pods ask for together
    /kubepods/besteffort            the least
    /kubepods[/<class>]/pod<uid>    shares and limits of the pod

With the systemd driver these are slices, which systemd makes on the way to the first container; their limits are written then. Where
the host does not let us, pods run without.

Units   CPU shares as in cgroup v1; quotas microseconds, sizes bytes.
Errors  OSError from `limit`, where the host lets us write but refuses this.
State   The groups themselves.
Source  Kubernetes v1.22, pkg/kubelet/cm (names, and what is set); Linux, admin-guide/cgroup-v1 and cgroup-v2.rst; systemd.slice(5).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "CgroupLimits", "is_slice", "limit", "slice_path"]

ROOT: Final = Path("/sys/fs/cgroup")
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT})
_V1: Final = ("cpu", "memory", "pids")
_UNLIMITED: Final = 1 << 60  #: What version 1 shows for no limit is a little less than 2**63.


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """0 is no limit; of shares, no say."""

    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    memory_bytes: int = 0
    pids: int = 0
    huge_pages: tuple[
        tuple[str, int], ...
    ] = ()  #: sizes as the kernel names them ("2MB"), and bytes, of which 0 is none; v2 alone


def is_slice(parent: str) -> bool:
    return parent.endswith(".slice")


def slice_path(name: str) -> str:
    """Return where systemd has a slice: each dash in its name is a level. "a-b.slice" is /a.slice/a-b.slice."""
    parts = name.removesuffix(".slice").split("-")
    return "".join(f"/{'-'.join(parts[: end + 1])}.slice" for end in range(len(parts)))


def limit(parent: str, limits: CgroupLimits, root: Path = ROOT, *, make: bool = True, only_more: bool = False) -> bool:
    """Set the limits of a cgroup, given as a path or as a slice's name; return whether the host let us.

    ``only_more``: leave what would become less. ``make``: make the group if it is missing. Raises OSError.
    """
    path = (slice_path(parent) if is_slice(parent) else parent).lstrip("/")
    unified = (root / "cgroup.controllers").exists()
    done = False
    for controller in ("",) if unified else _V1:
        top = root / controller
        if not top.is_dir():
            continue
        try:
            if make:
                _make(top, path, unified)
            for name, text, old, new in _values(limits, controller, top / path):
                if not (only_more and new < old):
                    (top / path / name).write_text(text)
            done = True
        except OSError as exc:
            if exc.errno not in _REFUSED:
                raise
    return done


def _make(top: Path, path: str, unified: bool) -> None:
    folder = top
    for part in Path(path).parts:
        if unified:
            _hand_down(folder)
        folder = folder / part
        folder.mkdir(exist_ok=True)


def _hand_down(folder: Path) -> None:
    """Let groups below have controllers; what the host does not have is passed over."""
    for controller in _V1:
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as exc:
            if exc.errno not in (*_REFUSED, errno.EINVAL, errno.EBUSY):
                raise


def _values(limits: CgroupLimits, controller: str, folder: Path) -> Iterator[tuple[str, str, float, float]]:
    """File, what to write, what it holds now, and what it will hold."""
    more = float("inf")
    quota, period = limits.cpu_quota_us, limits.cpu_period_us
    if controller in ("", "cpu") and limits.cpu_shares:
        if controller:
            yield "cpu.shares", str(limits.cpu_shares), 0, more
        else:
            yield "cpu.weight", str(1 + (max(limits.cpu_shares, 2) - 2) * 9999 // 262142), 0, more
    if controller == "":
        old_quota, _, old_period = _read(folder / "cpu.max").partition(" ")
        old = int(old_quota) / int(old_period or 1) if old_quota.isdecimal() else more
        yield "cpu.max", f"{quota or 'max'} {period}", old, quota / period if quota else more
        yield (
            "memory.max",
            str(limits.memory_bytes or "max"),
            _number(folder / "memory.max"),
            limits.memory_bytes or more,
        )
        yield "pids.max", str(limits.pids or "max"), 0, more
        for size, amount in limits.huge_pages:
            if (folder / f"hugetlb.{size}.max").exists():
                yield f"hugetlb.{size}.max", str(amount), 0, more
    elif controller == "cpu":
        old = _number(folder / "cpu.cfs_quota_us") / (_number(folder / "cpu.cfs_period_us") or 1)
        yield "cpu.cfs_period_us", str(period), 0, more
        yield "cpu.cfs_quota_us", str(quota or -1), old, quota / period if quota else more
    elif controller == "memory":
        old = _number(folder / "memory.limit_in_bytes")
        yield "memory.limit_in_bytes", str(limits.memory_bytes or -1), old, limits.memory_bytes or more
    else:
        yield "pids.max", str(limits.pids or "max"), 0, more


def _number(path: Path) -> float:
    """What a file says; infinite where that is no limit, or not there."""
    text = _read(path)
    return float(text) if text.isdecimal() and int(text) < _UNLIMITED else float("inf")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
