"""Removes images that nobody uses when their disk gets full, those first that have been unused the longest.

Units   Percent of the disk; seconds; bytes.
Errors  RuntimeFault, from `ImageCollector.free`; none leave `run`.
State   When each image was first seen and last used, in memory: after a restart all have just been seen.
Source  kubelet: imageGCHighThresholdPercent, imageGCLowThresholdPercent, imageMinimumGCAge; reasons of its events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgesite.context import Clock, Threads
from edgesite.edge.edged.events import WARNING
from edgesite.edge.edged.imagenames import InvalidImageName, normalized
from edgesite.edge.edged.machine import Machine, Pressure
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import Image, Runtime, RuntimeFault
from edgesite.edge.edged.settings import EdgedSettings

__all__ = ["ImageCollector", "ImageRecord", "bytes_to_free", "is_for_sandboxes"]

LOOK_S: Final = 300.0


@dataclass(slots=True)
class ImageRecord:
    """Monotonic times."""

    first_seen: float
    last_used: float = float("-inf")


class ImageCollector:
    """``pods`` gives the pods that are wanted here; ``report(type, reason, message)`` speaks of the node."""

    def __init__(
        self,
        runtime: Runtime,
        machine: Machine,
        clock: Clock,
        threads: Threads,
        settings: EdgedSettings,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        *,
        pods: Callable[[], Iterable[Pod]],
        report: Callable[[str, str, str], None],
    ) -> None:
        self._runtime, self._machine, self._clock, self._threads = runtime, machine, clock, threads
        self._settings, self._log, self._pods, self._report = settings, log, pods, report
        self._records: dict[str, ImageRecord] = {}

    async def run(self) -> None:
        """Look at the disk of images again and again until cancelled."""
        while True:
            await self._clock.sleep(LOOK_S)
            if self._settings.image_gc_high_percent >= 100:  # switches it off
                continue
            try:
                await self.look()
            except (RuntimeFault, OSError) as exc:
                self._log.warning("images cannot be collected now: %s", exc)

    async def look(self) -> None:
        """Remove images if the disk is fuller than the high threshold, down to the low one. Raises RuntimeFault, OSError."""
        disk = await self.disk()
        if disk is None:
            return
        high, low = self._settings.image_gc_high_percent, self._settings.image_gc_low_percent
        wanted = bytes_to_free(disk, high, low)
        freed = await self.free(wanted)
        if wanted and freed < wanted:
            text = f"Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
            self._report(WARNING, "FreeDiskSpaceFailed", text)

    async def disk(self) -> Pressure | None:
        """How full the disk is on which the runtime keeps images. Raises RuntimeFault, OSError."""
        places = await self._runtime.image_filesystems()
        if not places or not places[0].mountpoint:
            return None
        return await self._threads.run(self._machine.pressure, Path(places[0].mountpoint))

    async def free(self, wanted: float) -> int:
        """Remove unused images until ``wanted`` bytes are free, and return how many bytes were. Raises RuntimeFault."""
        images = await self._runtime.list_images()
        used = await self._used(images)
        now = self._clock.monotonic()
        self._records = {one.id: self._records.get(one.id) or ImageRecord(now) for one in images}
        for image_id in used & self._records.keys():
            self._records[image_id].last_used = now
        freed = 0
        for image in sorted(images, key=self._age):
            record = self._records[image.id]
            if freed >= wanted:
                break
            if image.id in used or now - record.first_seen < self._settings.image_minimum_gc_age_s:
                continue
            self._log.info("image=%s (%d bytes) is removed: nobody uses it", image.id, image.size_bytes)
            await self._runtime.remove_image(image.id)
            freed += image.size_bytes
        return freed

    def _age(self, image: Image) -> tuple[float, float, str]:
        record = self._records[image.id]
        return record.last_used, record.first_seen, image.id

    async def _used(self, images: Iterable[Image]) -> set[str]:
        """Ids of images that a container was made of, that a pod wants, or that sandboxes are made of."""
        names = {name for one in await self._runtime.list_containers() for name in (one.image, one.image_ref)}
        for pod in self._pods():
            for container in (*pod.containers, *pod.init_containers):
                try:
                    names.add(normalized(str(container.get("image", ""))))
                except InvalidImageName:
                    continue  # no image has that name
        names.discard("")
        return {
            one.id
            for one in images
            if one.pinned
            or is_for_sandboxes(one, self._settings.sandbox_image)
            or not names.isdisjoint((one.id, *one.tags, *one.digests))
        }


def is_for_sandboxes(image: Image, configured: str) -> bool:
    """Whether sandboxes are made of it. Runtimes before CRI's "pinned" do not tell, and a node without a link could not get it again."""
    return any(tag == configured or tag.rpartition("/")[2].partition(":")[0] == "pause" for tag in image.tags)


def bytes_to_free(disk: Pressure, high_percent: int, low_percent: int) -> int:
    """Return what must go from a disk fuller than ``high_percent`` until it is as full as ``low_percent``; 0 if it is not."""
    if not disk.disk_bytes or (disk.disk_bytes - disk.disk_available_bytes) * 100 < high_percent * disk.disk_bytes:
        return 0
    return max(disk.disk_bytes * (100 - low_percent) // 100 - disk.disk_available_bytes, 0)
