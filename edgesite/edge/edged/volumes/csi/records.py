"""What of CSI volumes must outlive edgesite: which driver and handle stand behind a mount. Laid out as kubelet does. Blocking.

    <root>/pods/<uid>/volumes/kubernetes.io~csi/<volume>/vol_data.json      a volume of a pod; mounted at mount/ beside it
    <root>/plugins/kubernetes.io/csi/<driver>/<hash>/vol_data.json          a volume that is staged, at globalmount/ beside it

A record is written before the driver is asked and removed after it has undone everything, so that none is ever missing.

Errors  OSError. A record that cannot be read counts as none.
Source  kubelet's csi plugin: folder names and members of vol_data.json, which either program finds of the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from edgesite.edge.durable import replace_file
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.volumes.csi.volume import CsiVolume
from edgesite.edge.edged.volumes.host import is_in_mount_table
from edgesite.kube import json

__all__ = ["ATTACHED", "CAPACITY", "EPHEMERAL", "LIFECYCLE", "PLUGIN", "Record", "Records", "Waiting"]

FILE: Final = "vol_data.json"
PLUGIN: Final = "csi"
CAPACITY: Final = "edgesiteCapacity"  #: a member of ours
ATTACHED: Final = "edgesiteAttached"  #: ours, too; one of `Waiting`
LIFECYCLE: Final = "volumeLifecycleMode"
EPHEMERAL: Final = "Ephemeral"
_ALWAYS: Final = ("driverName", "volumeHandle")


class Waiting(StrEnum):
    """Whether a cluster attaches a volume to the node."""

    YET = "waiting"  #: it is to be attached; its driver has not been asked for anything
    NO_MORE = "true"  #: it is attached
    NEVER = "false"  #: its driver knows no attaching


@dataclass(frozen=True, slots=True)
class Record:
    """``folder`` holds the record and the mount."""

    folder: Path
    driver: str
    handle: str

    @property
    def mount(self) -> Path:
        """Where a pod's volume is mounted; a device's driver makes a file of it."""
        return self.folder / "mount"

    @property
    def staged(self) -> Path:
        """Where a staged volume is mounted."""
        return self.folder / "globalmount"


class Records:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._staging = paths.root / "plugins" / "kubernetes.io" / "csi"

    def of_pod(self, uid: str, volume: CsiVolume) -> Record:
        """Where a pod's volume has its place, whether it is there or not."""
        return Record(self._paths.volume(uid, PLUGIN, volume.name), volume.driver, volume.handle)

    def staged(self, driver: str, handle: str) -> Record:
        """Where a staged volume has its place, whether it is there or not."""
        digest = hashlib.sha256(handle.encode()).hexdigest()
        return Record(self._staging / driver / digest, driver, handle)

    def write(self, record: Record, more: Mapping[str, str] | None = None) -> None:
        """Put a record down, with the folder that it belongs to. Raises OSError."""
        record.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        data = dict(zip(_ALWAYS, (record.driver, record.handle), strict=True)) | dict(more or {})
        replace_file(record.folder / FILE, json.dumps(data))

    def is_published(self, record: Record) -> bool:
        """Whether the volume is mounted for the pod: binds within one file system are seen in the mount table alone. A driver may
        also make a device's own file."""
        there = is_in_mount_table(record.mount) or record.mount.is_block_device()
        return there and (record.folder / FILE).exists()

    def capacity(self, record: Record) -> str:
        """How large the volume was when it was mounted, as its PersistentVolume had it; "" if that is not known."""
        return str(_read(record.folder / FILE).get(CAPACITY) or "")

    def grown(self, record: Record, capacity: str) -> dict[str, str]:
        """What a record holds beside driver and handle, with another size."""
        data = _read(record.folder / FILE)
        return {key: str(value) for key, value in data.items() if key not in _ALWAYS} | {CAPACITY: capacity}

    def remove(self, record: Record) -> None:
        """Forget a volume whose driver has undone its mounts; never what is still mounted. Raises OSError."""
        for place in (record.mount, record.staged):
            if _was_device(place):
                place.unlink()  # refuses where something is mounted
            with contextlib.suppress(FileNotFoundError):
                place.rmdir()  # as above, and where there are files
        for one in record.folder.glob(f"*{FILE}*"):  # a half-written one, too
            one.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            record.folder.rmdir()

    def of(self, uid: str) -> list[Record]:
        """The volumes of a pod."""
        return list(_records(self._paths.pod(uid) / "volumes" / f"kubernetes.io~{PLUGIN}"))

    def all_staged(self) -> list[Record]:
        """All volumes that are staged here."""
        return [one for folder in _folders(self._staging) for one in _records(folder)]

    def is_untouched(self, record: Record) -> bool:
        """Whether a volume's driver has not been asked for anything yet."""
        return bool(_read(record.folder / FILE).get(ATTACHED) == Waiting.YET)

    def attached(self) -> list[tuple[str, str]]:
        """Driver and handle of each volume that the cluster attaches to this node and that a pod has, or is getting, or that is still
        staged. Those of which a record does not tell, as a Go kubelet's, are taken to be attached."""
        found: dict[tuple[str, str], None] = {}
        for one in (*(one for pod in _folders(self._paths.pods) for one in self.of(pod.name)), *self.all_staged()):
            data = _read(one.folder / FILE)
            if data.get(LIFECYCLE) != EPHEMERAL and data.get(ATTACHED) != Waiting.NEVER:
                found[one.driver, one.handle] = None
        return list(found)

    def users(self, driver: str, handle: str) -> list[str]:
        """Uids of the pods that have the volume, or are getting it."""
        found = []
        for pod in _folders(self._paths.pods):
            if any((one.driver, one.handle) == (driver, handle) for one in self.of(pod.name)):
                found.append(pod.name)
        return found


def _was_device(place: Path) -> bool:
    """Whether a driver has left the file at which a device was: of its own, or what it had bound it to."""
    try:
        about = place.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISBLK(about.st_mode)
        or stat.S_ISLNK(about.st_mode)
        or (stat.S_ISREG(about.st_mode) and not about.st_size)
    )


def _records(root: Path) -> Iterator[Record]:
    for folder in _folders(root):
        data = _read(folder / FILE)
        if data.get("driverName") and data.get("volumeHandle"):
            yield Record(folder, str(data["driverName"]), str(data["volumeHandle"]))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(one for one in root.iterdir() if one.is_dir() and not one.is_symlink())
    except OSError:
        return []
