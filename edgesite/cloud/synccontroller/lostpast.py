"""The API was restored from a backup: edges hold states that it has never seen, and would ignore what it tells them.

How it shows  An edge holds a version that is newer than the object's own, read from the API at this moment: that cannot be while the
              API keeps its past, for versions grow. Or it says that an object has ended that the API shows alive. That may also be
              one which left the node and is needed there again, as the model of devices that come back.
What is done  The edge is asked to forget what it knows of these objects; it then takes them as the API has them. An edge of
              KubeEdge compares no versions: it is sent them again. The embedded store goes on above all revisions that edges
              have seen, so that no version has two meanings.

Costs nothing while all is well: only an object whose cached version is older than an edge's is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgesite.cloud.cloudhub.records import ConnectedNodes
from edgesite.context import Revisions
from edgesite.kube.errors import ApiError
from edgesite.wire.delivery import ObjectRef, version_number

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.cloud.edgecontroller.objects import EdgeObjects
    from edgesite.cloud.synccontroller.records import Records
    from edgesite.context import Context

__all__ = ["LostPast"]


class LostPast:
    """Looks at what contradicts the API, node by node."""

    def __init__(self, ctx: Context, client: Client, records: Records) -> None:
        self._ctx = ctx
        self._client = client
        self._records = records

    async def look(self, node: str, objects: EdgeObjects, denied: Iterable[ObjectRef]) -> set[str] | None:
        """Put right what this node could not be told otherwise; None if it will tell again what it holds. ``denied``: what it
        says has ended; returns the uids of those that have. Raises ApiError."""
        lost = []
        for ref in self._records.of(node):
            if ref.type == "node" or not objects.manages(ref.type):
                continue
            cached = objects.get(ref.type, ref.namespace, ref.name)
            if cached is not None and cached.uid == ref.uid and 0 < cached.version < ref.version:
                version = await self._version_now(ref, objects)
                if version is not None and version < ref.version:
                    lost.append(ref)
        if lost:
            self._tell(node, lost)
        ended = set()
        for ref in denied:
            if objects.manages(ref.type) and await self._version_now(ref, objects) is not None:
                self._ctx.log.info("node %s has seen the end of %s %s, which is there again", node, ref.type, ref.name)
                lost.append(ref)
            else:
                ended.add(ref.uid)
        return None if lost and self._forget(node, lost) else ended

    async def _version_now(self, ref: ObjectRef, objects: EdgeObjects) -> int | None:
        """The version that the API has at this moment, for the cache may be behind; None if this object is gone."""
        try:
            found = await self._client.get(objects.kind_of(ref.type), ref.name, ref.namespace)
        except ApiError as exc:
            if exc.code == 404:
                return None
            raise
        metadata = found["metadata"]
        return version_number(metadata.get("resourceVersion")) if metadata.get("uid") == ref.uid else None

    def _tell(self, node: str, lost: list[ObjectRef]) -> None:
        """Say what has happened, and have no version mean two things."""
        log, newest = self._ctx.log, max(ref.version for ref in lost)
        log.error(
            "node %s knows of %d objects what the API has never seen, up to version %d: was it restored from a backup?"
            " They are sent anew", node, len(lost), newest,
        )  # fmt: skip
        revisions = self._ctx.services.find(Revisions)  # type: ignore[type-abstract]
        if revisions is not None and not revisions.advance(newest):
            log.error("version %d is beyond belief: the revisions of the API stay as they are", newest)

    def _forget(self, node: str, lost: list[ObjectRef]) -> bool:
        """Whether the edge forgets it all, and will tell again what it holds."""
        hub = self._ctx.services.find(ConnectedNodes)  # type: ignore[type-abstract]
        if hub is not None and hub.forget(node, [ref.uid for ref in lost]):
            return True
        for ref in lost:
            self._records.unknown(node, ref.uid)
        return False
