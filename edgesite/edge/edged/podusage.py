"""What pods use beside CPU and memory: their network interfaces, volumes and logs. Measured when somebody asks; blocking.

Of an emptyDir on the disk the files are counted, no more than `FILES_MOST`, and what was counted serves for `VOLUMES_S`: kubelet counts
each minute whether anybody asks or not. Other volumes are file systems that know themselves what they hold.

Units   Bytes; times are seconds of the clock.
Errors  None: what cannot be measured, or goes away meanwhile, is left out.
State   `PodMeter` keeps the last measurements of pods that are still here.
Source  proc(5) (net/dev), statvfs(3); kubelet's stats API v1alpha1 for what is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.podcgroups import ROOT, is_slice, slice_path
from edgesite.edge.edged.state import PodState

__all__ = ["FsUsage", "Interface", "PodDetails", "PodMeter", "VolumeUsage", "interfaces"]

VOLUMES_S: Final = 60.0
FILES_MOST: Final = 20_000
_PER_POD: Final = 32  #: folders of a pod's cgroup that are looked into for a process
_NODE_FILES: Final = ("memory", "pids", "cpu")  #: hierarchies of version 1 in which a pod's processes may be found


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    rx_bytes: int
    rx_errors: int
    tx_bytes: int
    tx_errors: int


@dataclass(frozen=True, slots=True)
class FsUsage:
    """Of a file system, and of what is used of it here; None: too much to count."""

    capacity_bytes: int
    available_bytes: int
    inodes: int
    inodes_free: int
    used_bytes: int | None
    inodes_used: int | None


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    name: str
    fs: FsUsage
    claim: str = ""  #: the PersistentVolumeClaim behind it
    is_local: bool = False  #: an emptyDir on the disk, which counts as the pod's ephemeral storage


@dataclass(frozen=True, slots=True)
class PodDetails:
    interfaces: Sequence[Interface] = ()
    volumes: Sequence[VolumeUsage] = ()
    logs: Mapping[str, FsUsage] = field(default_factory=dict)  #: by container


class PodMeter:
    """Remembers what was counted last."""

    def __init__(self, paths: Paths, root: Path = ROOT) -> None:
        self._paths, self._root = paths, root
        self._volumes: dict[str, tuple[float, list[VolumeUsage]]] = {}

    def measure(self, pods: Iterable[tuple[PodState, str]], now: float) -> dict[str, PodDetails]:
        """Return the details of pods by uid. Each comes with the cgroup of its containers; ``now`` is monotonic."""
        found = {}
        for state, parent in pods:
            pod = state.pod
            nets: Sequence[Interface] = ()
            if parent and not pod.host_network and (pid := self._process_of(parent)):
                nets = interfaces(Path(f"/proc/{pid}/net/dev"))
            found[pod.uid] = PodDetails(nets, self._volumes_of(state, now), self._logs_of(state))
        self._volumes = {uid: one for uid, one in self._volumes.items() if uid in found}
        return found

    def _volumes_of(self, state: PodState, now: float) -> list[VolumeUsage]:
        uid = state.pod.uid
        at, held = self._volumes.get(uid, (-VOLUMES_S, []))
        if now - at < VOLUMES_S:
            return held
        held = []
        for volume in state.pod.spec.get("volumes") or ():
            name = volume.get("name", "")
            if "hostPath" in volume or name not in state.volumes:
                continue
            is_local = (volume.get("emptyDir") or {}).get("medium") in (None, "") and _is_empty_dir(volume)
            fs = _fs_usage(Path(state.volumes[name]), count=not _is_claim(volume))
            if fs is not None:
                held.append(
                    VolumeUsage(name, fs, (volume.get("persistentVolumeClaim") or {}).get("claimName", ""), is_local)
                )
        self._volumes[uid] = (now, held)
        return held

    def _logs_of(self, state: PodState) -> dict[str, FsUsage]:
        root = self._paths.pod_logs(state.pod)
        found = {one["name"]: _fs_usage(root / one["name"], count=True) for one in state.pod.containers}
        return {name: fs for name, fs in found.items() if fs is not None}

    def _process_of(self, parent: str) -> int:
        """Some process of a pod; 0 if none is found."""
        path = (slice_path(parent) if is_slice(parent) else parent).lstrip("/")
        unified = (self._root / "cgroup.controllers").exists()
        for hierarchy in ("",) if unified else _NODE_FILES:
            for number, (folder, _, _) in enumerate(os.walk(self._root / hierarchy / path)):
                if number >= _PER_POD:
                    break
                try:
                    text = Path(folder, "cgroup.procs").read_text()
                except OSError:
                    continue
                if text:
                    return int(text.split(maxsplit=1)[0])
        return 0


def interfaces(path: Path) -> tuple[Interface, ...]:
    """Read network interfaces, but the loopback, from a file like /proc/net/dev."""
    try:
        lines = path.read_text().splitlines()[2:]
    except OSError:
        return ()
    found = []
    for line in lines:
        name, _, rest = line.partition(":")
        fields = rest.split()
        if name.strip() != "lo" and len(fields) >= 11:
            found.append(Interface(name.strip(), *(int(fields[number]) for number in (0, 2, 8, 10))))
    return tuple(found)


def _is_empty_dir(volume: Mapping[str, Any]) -> bool:
    return "emptyDir" in volume or set(volume) == {"name"}


def _is_claim(volume: Mapping[str, Any]) -> bool:
    return bool({"persistentVolumeClaim", "ephemeral", "csi", "nfs"} & set(volume))


def _fs_usage(folder: Path, *, count: bool) -> FsUsage | None:
    try:
        disk = os.statvfs(folder)
        own = os.path.ismount(folder)
    except OSError:
        return None
    size = disk.f_frsize
    used: int | None = (disk.f_blocks - disk.f_bfree) * size
    inodes: int | None = disk.f_files - disk.f_ffree
    if count and not own:
        used, inodes = _counted(folder)
    return FsUsage(disk.f_blocks * size, disk.f_bavail * size, disk.f_files, disk.f_favail, used, inodes)


def _counted(folder: Path) -> tuple[int | None, int | None]:
    """Blocks and inodes below a folder, None where these are too many to be counted."""
    total = entries = 0
    for place, names, files in os.walk(folder):
        entries += len(names) + len(files)
        if entries > FILES_MOST:
            return None, None
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue  # it has just gone
    return total, entries + 1
