"""Volumes that have grown: their file system grows here, and the claim is told how large it is now.

A volume is mounted whether it can grow or not: at the edge a pod with a small file system is better than none.

Units   Seconds; sizes as the API writes them.
Errors  OSError of this host. What the driver or the cloud refuses is told by an event, or tried again.
State   On disk: how large a volume was when it was mounted, or grew.
Source  kubelet's volume manager: when a volume has to grow, events; core/v1 PersistentVolumeClaimStatus: what says that it has;
        Container Storage Interface v1, NodeExpandVolume: after which errors it is never tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edgesite.context import Clock, Threads
from edgesite.edge.edged.events import NORMAL, WARNING, Events
from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.plugins.errors import PluginError
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.volumes.csi.records import Record, Records
from edgesite.edge.edged.volumes.csi.volume import Claim, CsiVolume
from edgesite.kube.errors import ApiError
from edgesite.kube.quantity import InvalidQuantity, parse
from edgesite.kube.times import format_time

if TYPE_CHECKING:
    from edgesite.edge.edged.volumes.csi.driver import CsiDriver

__all__ = ["Expansion", "finished", "is_larger", "smaller"]

AGAIN_S: Final = 20.0
_PENDING: Final = "NodeResizePending"
_UNDER_WAY: Final = "NodeResizeInProgress"
_INFEASIBLE: Final = "NodeResizeInfeasible"
_NEVER: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE"})
_FS_PENDING: Final = "FileSystemResizePending"
_OF_RESIZING: Final = ("Resizing", _FS_PENDING, "NodeResizeError")


class Expansion:
    def __init__(self, records: Records, objects: Objects, events: Events, clock: Clock, threads: Threads) -> None:
        self._records, self._objects, self._events = records, objects, events
        self._clock, self._threads = clock, threads

    async def grow(
        self,
        pod: Pod,
        volume: CsiVolume,
        record: Record,
        driver: CsiDriver,
        body: Mapping[str, Any],
        told: dict[str, str],
    ) -> float | None:
        """Let a mounted volume grow if it has to. ``body`` is what the driver is told beside the size, ``told`` the record of a volume
        that has grown. Returns after how long to come back, None if all is done. Raises OSError."""
        if volume.readonly or "EXPAND_VOLUME" not in driver.capabilities:
            return None
        claim = volume.claim
        if is_larger(volume.capacity, await self._threads.run(self._records.capacity, record)):
            if claim is not None and claim.resize == _INFEASIBLE:
                return None
            if not await self._expand(pod, volume, record, driver, body):
                return AGAIN_S
            await self._threads.run(self._records.write, record, told)
        if claim is None or not (is_larger(volume.capacity, claim.capacity) or _waits(claim, volume.capacity)):
            return None
        return None if await self._tell(claim, finished(volume.capacity, claim)) else AGAIN_S

    async def _expand(
        self, pod: Pod, volume: CsiVolume, record: Record, driver: CsiDriver, body: Mapping[str, Any]
    ) -> bool:
        claim = volume.claim
        if claim is not None and claim.resize == _PENDING:
            await self._tell(claim, {"allocatedResourceStatuses": {"storage": _UNDER_WAY}})
        path = {"volume_path": str(record.mount)}
        wanted = {"capacity_range": {"required_bytes": parse(volume.capacity).value()}}
        try:
            await driver.expand(volume.handle, {**path, **wanted, **body})
        except PluginError as exc:
            text = f'NodeExpandVolume.NodeExpandVolume failed for volume "{volume.name}" : {exc}'
            self._events.report(pod.reference(), WARNING, "VolumeResizeFailed", text)
            if claim is not None and exc.code in _NEVER:
                await self._tell(claim, self._infeasible(str(exc)))
            return False
        text = f'MountVolume.NodeExpandVolume succeeded for volume "{volume.name}"'
        self._events.report(pod.reference(), NORMAL, "FileSystemResizeSuccessful", text)
        if claim is not None:
            self._events.report(claim.reference(), NORMAL, "FileSystemResizeSuccessful", text)
        return True

    def _infeasible(self, why: str) -> dict[str, Any]:
        condition = {
            "type": "NodeResizeError",
            "status": "True",
            "lastTransitionTime": format_time(self._clock.time()),
            "message": f"the node cannot expand the volume: {why}",
        }
        return {"allocatedResourceStatuses": {"storage": _INFEASIBLE}, "conditions": [condition]}

    async def _tell(self, claim: Claim, status: dict[str, Any]) -> bool:
        """Whether the cloud has taken it, or never will."""
        patch = {"metadata": {"uid": claim.uid}, "status": status}
        try:
            await self._objects.report_claim(claim.namespace, claim.name, patch)
        except ApiError as exc:
            return exc.code < 500 and exc.code != 429
        return True


def finished(capacity: str, claim: Claim) -> dict[str, Any]:
    """Return the patch of a claim's status that says its file system is as large as the volume."""
    status: dict[str, Any] = {"capacity": {"storage": capacity}}
    if gone := [one for one in claim.conditions if one in _OF_RESIZING]:
        status["conditions"] = [{"type": one, "$patch": "delete"} for one in gone]
    if claim.resize:
        status["allocatedResourceStatuses"] = {"storage": None}
    return status


def _waits(claim: Claim, capacity: str) -> bool:
    """Whether a claim waits for what has been done: its resizer may say so after the node has seen the larger volume."""
    pending = claim.resize in (_PENDING, _UNDER_WAY) or _FS_PENDING in claim.conditions
    return pending and not is_larger(claim.allocated, capacity)


def is_larger(wanted: str, before: str) -> bool:
    """Whether a volume has grown; of one without a size on record nothing is known."""
    try:
        return bool(before) and parse(wanted) > parse(before)
    except InvalidQuantity:
        return False


def smaller(one: str, other: str) -> str:
    """The smaller of two sizes; ``one`` where the other is not known."""
    return other if is_larger(one, other) else one
