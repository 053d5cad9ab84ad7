"""ConfigMaps and Secrets for pods: from the edge's store, else asked of the cloud once and then from the store.

Source  KubeEdge MetaManager: what is stored is served; what is not is asked for when there is a link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    from edgesite.edge.metamanager.meta import Meta

__all__ = ["Objects"]

QUERY_S: Final = 10.0


class Objects:
    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the object, or None when it is missing or out of reach. ``kind`` is "configmap", "secret" or "persistentvolume"."""
        stored = await self._meta.get(kind, namespace, name)
        if stored is not None or not self._meta.connected:
            return stored
        try:
            return await self._meta.query_remote(kind, namespace, name, timeout_s=QUERY_S)
        except ApiError:
            return None

    async def claim(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a PersistentVolumeClaim; the cloud is asked for one that was not bound when it was stored."""
        stored = await self._meta.get("persistentvolumeclaim", namespace, name)
        if (stored or {}).get("status", {}).get("phase") == "Bound" or not self._meta.connected:
            return stored
        try:
            return await self._meta.query_remote("persistentvolumeclaim", namespace, name, timeout_s=QUERY_S)
        except ApiError as exc:
            return None if exc.reason == "NotFound" else stored

    async def token(self, namespace: str, service_account: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return a service account token. Raises ApiError."""
        return await self._meta.token(namespace, service_account, request)
