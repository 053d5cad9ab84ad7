"""Volumes that a cluster attaches to this node: what the node says it uses, and whether a volume is attached here.

Before anything is mounted the cloud has to know that the node uses the volume: whoever detaches volumes looks there first. Only then
does the node ask whether the volume is attached, so that it never begins with one that is being taken away.

Errors  ClaimPending: the volume is not attached yet, or the cloud cannot be asked.
State   What is in use, in memory; found again in the records of mounts after a restart.
Source  core/v1 NodeStatus (volumesInUse, volumesAttached); storage/v1 VolumeAttachment; kubelet's volume manager: the order of the
        questions, texts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesite.edge.edged.objects import Objects
from edgesite.edge.edged.volumes.claims import ClaimPending
from edgesite.edge.edged.volumes.csi.volume import CsiVolume, attachment_name
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.edge.edged.volumes.csi.rules import DriverRules

__all__ = ["Attached", "Attachments", "unique_name"]

Volume = tuple[str, str]  # driver and handle
_NOT_IN_USE = "Volume has not been added to the list of VolumesInUse in the node's volume status"


def unique_name(driver: str, handle: str) -> str:
    """Return what a Node calls a volume."""
    return f"kubernetes.io/csi/{driver}^{handle}"


@dataclass(frozen=True, slots=True)
class Attached:
    """What the attachment tells the driver. ``is_needed``: there is one, and somebody may want to end it."""

    context: Mapping[str, str] = field(default_factory=dict)
    is_needed: bool = False


class Attachments:
    """`load` first."""

    def __init__(
        self, node: str, objects: Objects, tell: Callable[[], Awaitable[Mapping[str, Any]]], changed: Callable[[], None]
    ) -> None:
        """``tell`` has the cloud know what `in_use` gives, and returns the Node as it is there; ``changed`` is called when that is
        something else which may be told later."""
        self._node, self._objects, self._tell, self._changed = node, objects, tell, changed
        self._in_use: dict[Volume, None] = {}
        self._before: frozenset[Volume] = frozenset()

    def load(self, volumes: list[Volume]) -> None:
        """Take what was mounted before a restart: the cloud was told of it then."""
        self._in_use = dict.fromkeys(volumes)
        self._before = frozenset(volumes)

    def in_use(self) -> list[str]:
        """What is not to be detached, as ``volumesInUse`` of the Node names it."""
        return sorted(unique_name(*one) for one in self._in_use)

    def given_back(self, volume: Volume) -> None:
        """Nothing of a volume is mounted here any more."""
        self._before -= {volume}
        if volume in self._in_use:
            del self._in_use[volume]
            self._changed()

    def may_be_needed(self, volume: CsiVolume, rules: DriverRules) -> bool:
        """Whether `wait` may have to."""
        return not volume.is_inline and (rules.attach or not self._objects.cloud_is_ours)

    async def wait(self, volume: CsiVolume, rules: DriverRules) -> Attached:
        """Return what the attachment tells, if the volume has one. Raises ClaimPending until it is attached."""
        if not self.may_be_needed(volume, rules):
            return Attached()
        if not rules.attach and await self._attachment(volume) is None:
            return Attached()  # a cloud of another make, which tells nothing of its drivers
        await self._use(volume)
        found = await self._attachment(volume)
        if found is None:
            name = attachment_name(volume, self._node)
            raise ClaimPending(f"volume {volume.handle} is not attached yet: no VolumeAttachment {name}")
        status = found.get("status") or {}
        if (found.get("metadata") or {}).get("deletionTimestamp"):
            raise ClaimPending(f"volume {volume.handle} is being detached")
        if status.get("attached"):
            return Attached(status.get("attachmentMetadata") or {}, is_needed=True)
        why = (status.get("attachError") or {}).get("message", "")
        raise ClaimPending(f"volume {volume.handle} is not attached yet{': ' + why if why else ''}")

    async def _use(self, volume: CsiVolume) -> None:
        """Have the cloud know that the volume is used here, and see that it counts it as attached. Raises ClaimPending."""
        key = (volume.driver, volume.handle)
        self._in_use.setdefault(key)
        if not self._objects.connected and key in self._before:
            return
        try:
            node = await self._tell()
        except ApiError as exc:
            raise ClaimPending(f"{_NOT_IN_USE}: {exc.message}") from exc
        name = unique_name(*key)
        attached = (node.get("status") or {}).get("volumesAttached") or ()
        if all(one.get("name") != name for one in attached):
            raise ClaimPending(f"volume {volume.handle} is not attached yet according to the node status")

    async def _attachment(self, volume: CsiVolume) -> Mapping[str, Any] | None:
        name = attachment_name(volume, self._node)
        try:
            return await self._objects.newest("volumeattachment", "", name)
        except ApiError as exc:
            raise ClaimPending(f"the VolumeAttachment {name} cannot be read: {exc.message}") from exc
