"""Image volumes: the files of an image, read-only, at a folder of the pod.

Errors  VolumeError, RuntimeFault, OSError.
State   The mount below the pod's folder, and what the runtime keeps for it under a key that the folder's name tells.
Source  core/v1 ImageVolumeSource.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgesite.context import Threads
from edgesite.edge.edged.paths import Paths
from edgesite.edge.edged.runtime import NotInRuntime, Runtime, RuntimeUnsupported
from edgesite.edge.edged.volumes import host
from edgesite.edge.edged.volumes.payload import VolumeError

__all__ = ["PLUGIN", "ImageVolumes"]

PLUGIN: Final = "image"


class ImageVolumes:
    def __init__(self, runtime: Runtime, paths: Paths, threads: Threads) -> None:
        self._runtime, self._paths, self._threads = runtime, paths, threads

    async def mount(self, uid: str, name: str, image_id: str) -> Path | None:
        """Bring an image to a folder of the pod; None where the runtime does it as it makes the container.

        Raises VolumeError, RuntimeFault, OSError.
        """
        place = self._paths.volume(uid, PLUGIN, name)
        if await self._threads.run(host.is_in_mount_table, place):
            return place
        try:
            mounts = await self._runtime.image_mounts(image_id, _key(uid, name))
        except RuntimeUnsupported as exc:
            raise VolumeError(f"image volumes are not supported by this runtime: {exc}") from exc
        if not mounts:
            return None
        await self._threads.run(host.mount_all, mounts, place)
        return place

    async def unmount(self, uid: str) -> None:
        """Take away all images that a pod has as volumes. Raises RuntimeFault, OSError."""
        for place in await self._threads.run(_folders, self._paths.volume(uid, PLUGIN, "")):
            await self._threads.run(host.unmount, place)
            try:
                await self._runtime.forget_image_mounts(_key(uid, place.name))
            except NotInRuntime:
                continue


def _key(uid: str, name: str) -> str:
    return f"edgesite-image-volume/{uid}/{name}"


def _folders(root: Path) -> list[Path]:
    return sorted(root.iterdir()) if root.is_dir() else []
