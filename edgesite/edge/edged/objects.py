"""ConfigMaps and Secrets for pods: from the edge's store, else asked of the cloud once and then from the store.

Source  KubeEdge MetaManager: what is stored is served; what is not is asked for when there is a link.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.kube.errors import ApiError, internal, not_found

if TYPE_CHECKING:
    from edgesite.edge.metamanager.meta import Meta

__all__ = ["Objects"]

QUERY_S: Final = 10.0
OURS_ALONE: Final = frozenset({"csidriver", "runtimeclass", "servicelist"})  #: KubeEdge's cloud never answers for these


class Objects:
    def __init__(self, meta: Meta, cloud_is_ours: Callable[[], bool] = lambda: True) -> None:
        """``cloud_is_ours``: whether the cloud answers for every kind; KubeEdge's answers for few."""
        self._meta = meta
        self._cloud_is_ours = cloud_is_ours

    @property
    def cloud_is_ours(self) -> bool:
        return self._cloud_is_ours()

    @property
    def connected(self) -> bool:
        """Whether there is a link to the cloud now."""
        return self._meta.connected

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the object, or None when it is missing or out of reach. ``kind`` is "configmap", "secret" or "persistentvolume"."""
        stored = await self._meta.get(kind, namespace, name)
        if stored is not None or not self._meta.connected:
            return stored
        try:
            return await self._meta.query_remote(kind, namespace, name, timeout_s=QUERY_S)
        except ApiError:
            return None

    async def newest(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the object as the cloud has it now, without a link as it was stored; None when there is none. Raises ApiError.

        For "csidriver", "runtimeclass", "servicelist", "volumeattachment" and secrets of volumes. A cloud of another make does not
        know the first three: then None.
        """
        if kind in OURS_ALONE and self._meta.connected and not self.cloud_is_ours:
            return None
        if not self._meta.connected:
            return await self._meta.get(kind, namespace, name)
        try:
            return await self._meta.query_remote(kind, namespace, name, timeout_s=QUERY_S)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise
            return None

    async def secret_values(self, namespace: str, name: str) -> dict[str, str]:
        """Return what a volume's secret holds. Raises ApiError."""
        found = await self.newest("secret", namespace, name)
        if found is None:
            raise not_found("secrets", name)
        try:
            return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}
        except (binascii.Error, UnicodeDecodeError) as exc:
            raise internal(f"a value of secret {name!r} is no text") from exc

    async def claim(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a PersistentVolumeClaim; the cloud is asked for one that was not bound when it was stored."""
        stored = await self._meta.get("persistentvolumeclaim", namespace, name)
        if (stored or {}).get("status", {}).get("phase") == "Bound" or not self._meta.connected:
            return stored
        try:
            return await self._meta.query_remote("persistentvolumeclaim", namespace, name, timeout_s=QUERY_S)
        except ApiError as exc:
            return None if exc.reason == "NotFound" else stored

    async def report_claim(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Tell the cloud of a claim's status, by a strategic merge patch. A cloud of another make cannot be told. Raises ApiError."""
        if self.cloud_is_ours or not self.connected:
            await self._meta.patch("persistentvolumeclaim", namespace, name, patch)

    async def token(self, namespace: str, service_account: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return a service account token. Raises ApiError."""
        return await self._meta.token(namespace, service_account, request)
