"""What shows that the API was restored from a backup where an edge does not tell what it holds, as KubeEdge's does not.

    its lease           the edge writes over a version that is newer than the API's: what it was told since is unknown here. A crash of
                        the embedded API, which keeps renewals in memory, looks the same; the edge is then sent what it has
    status of a pod     the API knows no such pod, or another one by its name: the edge runs what was made since the backup

Our own edges tell their versions (`cloud/synccontroller/lostpast.py`).

Errors  ApiError of the API.
Source  KubeEdge v1.12.7, edge/pkg/edged: updates of leases carry the version last seen, patches of pods the uid.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from edgesite.kube import json, resources
from edgesite.kube.errors import ApiError
from edgesite.wire.delivery import version_number
from edgesite.wire.message import Message, Operation

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.wire.resource import ResourcePath

__all__ = ["Evidence"]


class Evidence:
    """``is_own`` tells nodes of ours; ``lost(node, version)`` is told of a node that was told more than the API knows, up to that
    version; ``remove(node, namespace, name, uid)`` ends a pod at an edge."""

    def __init__(
        self,
        client: Client,
        is_own: Callable[[str], bool],
        lost: Callable[[str, int], None],
        remove: Callable[[str, str, str, str], Awaitable[None]],
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._client = client
        self._is_own = is_own
        self._lost = lost
        self._remove = remove
        self._log = log

    async def look(self, node: str, path: ResourcePath, message: Message, refusal: ApiError) -> None:
        """Look at a request that the API has refused. Raises ApiError."""
        if refusal.code not in (404, 409) or self._is_own(node):
            return
        if (path.type, message.operation) == ("lease", Operation.UPDATE):
            await self._look_at_lease(node, path, message)
        elif (path.type, message.operation) == ("podpatch", Operation.PATCH):
            await self._look_at_pod(node, path, message)

    async def _look_at_lease(self, node: str, path: ResourcePath, message: Message) -> None:
        lease = await self._find(resources.LEASES, path)
        version = version_number(_metadata(message.content).get("resourceVersion"))
        known = version_number(lease["metadata"].get("resourceVersion")) if lease is not None else 0
        if version > known:
            self._log.warning(
                "node %s has seen version %d of its lease, the API has %d: what the node holds is not known", node, version, known
            )  # fmt: skip
            self._lost(node, version)

    async def _look_at_pod(self, node: str, path: ResourcePath, message: Message) -> None:
        uid = str(_metadata(message.content).get("uid") or "")
        pod = await self._find(resources.PODS, path) if uid else None
        if uid and (pod is None or pod["metadata"].get("uid") != uid):
            self._log.info("node %s runs pod %s/%s, uid %s, which is gone", node, path.object_namespace, path.name, uid)
            await self._remove(node, path.object_namespace, path.name, uid)

    async def _find(self, kind: resources.Resource, path: ResourcePath) -> dict[str, Any] | None:
        try:
            return await self._client.get(kind, path.name, path.object_namespace)
        except ApiError as exc:
            if exc.code == 404:
                return None
            raise


def _metadata(content: Any) -> dict[str, Any]:
    """Of an object or a patch, which may come as a text; {} of anything else."""
    if isinstance(content, str):
        try:
            content = json.loads(content.encode())
        except json.InvalidJson:
            return {}
    found = content.get("metadata") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}
