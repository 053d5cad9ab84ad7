"""`ImageStore`: images of this node for other modules of the edge role. Provided by edged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgesite.edge.edged.imagenames import InvalidImageName, credentials, normalized
from edgesite.edge.edged.runtime import RegistryAuth, Runtime, RuntimeFault
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.edge.edged.objects import Objects

__all__ = ["EdgedImages", "ImageStore"]


class ImageStore(Protocol):
    """What the container runtime holds."""

    async def pull(self, image: str, secret: str = "") -> str:
        """Have an image pulled unless it is there; ``secret`` is "namespace/name" of a pull secret. Returns why that failed,
        "" if it did not."""
        ...


class EdgedImages:
    """Implements `ImageStore`."""

    def __init__(self, runtime: Runtime, objects: Objects) -> None:
        self._runtime = runtime
        self._objects = objects

    async def pull(self, image: str, secret: str = "") -> str:
        """See `ImageStore`."""
        try:
            reference = normalized(image)
            if await self._runtime.image_status(reference) is not None:
                return ""
            auths = [*await self._credentials(reference, secret), None]
        except (InvalidImageName, RuntimeFault, ApiError) as exc:
            return str(exc)
        failure = ""
        for auth in auths:
            try:
                await self._runtime.pull_image(reference, auth)
            except RuntimeFault as exc:
                failure = failure or str(exc)
            else:
                return ""
        return failure

    async def _credentials(self, reference: str, secret: str) -> list[RegistryAuth]:
        """Raises ApiError."""
        namespace, _, name = secret.partition("/")
        if not name:
            return []
        found = await self._objects.get("secret", namespace, name)
        return [*credentials(reference, iter([found] if found is not None else []))]
