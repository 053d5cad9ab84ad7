"""Writes the records to the API, some seconds after they changed: one write per object, however often it changed meanwhile.

What was sent to a KubeEdge edge for the first time is written at once.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.cloud.synccontroller.records import Records, sync_name, sync_object
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CLUSTER_OBJECT_SYNCS, OBJECT_SYNCS

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.wire.delivery import ObjectRef

__all__ = ["RecordWriter"]

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_AT_ONCE: Final = 32  #: the store joins writes that come together into one commit


class RecordWriter:
    """``run`` writes until cancelled."""

    def __init__(
        self, client: Client, records: Records, draw: random.Random, log: Log, *, interval_s: float = 10.0
    ) -> None:
        self._client = client
        self._records = records
        self._random = draw
        self._log = log
        self._interval_s = interval_s

    async def run(self) -> None:
        while True:
            await self._records.wait_changed()
            with anyio.move_on_after(self._interval_s * (0.9 + self._random.random() / 5)):
                await self._records.wait_urgent()
            await self.flush()

    async def flush(self) -> None:
        """Write all that has changed; what the API refuses is tried again with the next flush."""
        pending, self._records.changed = self._records.changed, {}
        places = anyio.Semaphore(_AT_ONCE)

        async def write(node: str, uid: str) -> None:
            try:
                await self._write(node, uid)
            except ApiError as exc:
                if not _is_of_the_past(exc):
                    self._log.warning("no record of a delivery: node=%s uid=%s: %s", node, uid, exc)
                    self._records.changed.setdefault((node, uid))
            finally:
                places.release()

        async with anyio.create_task_group() as tasks:
            for node, uid in pending:
                await places.acquire()
                tasks.start_soon(write, node, uid)

    async def _write(self, node: str, uid: str) -> None:
        ref, written = self._records.find(node, uid), self._records.written.get((node, uid))
        if ref is None:
            if written is not None:
                await self._delete(node, written)
                self._records.wrote(node, uid, None)
            return
        sync = sync_object(node, ref)
        if sync is None:
            return
        kind = OBJECT_SYNCS if ref.namespace else CLUSTER_OBJECT_SYNCS
        status = {"status": sync["status"]}
        if written is None:
            try:
                await self._client.create(kind, sync)
            except ApiError as exc:
                if exc.reason != "AlreadyExists":
                    raise
        await self._client.patch(kind, sync["metadata"]["name"], status, ref.namespace, subresource="status")
        self._records.wrote(node, uid, ref)

    async def _delete(self, node: str, ref: ObjectRef) -> None:
        kind = OBJECT_SYNCS if ref.namespace else CLUSTER_OBJECT_SYNCS
        try:
            await self._client.delete(kind, sync_name(node, ref.uid), ref.namespace, grace_period_s=0)
        except ApiError as exc:
            if exc.reason != "NotFound":
                raise


def _is_of_the_past(error: ApiError) -> bool:
    """Whether the namespace is gone, or about to go with all that is in it: nothing to record any more."""
    causes = error.details.get("causes") or ()
    return error.reason == "NotFound" or any(one.get("reason") == "NamespaceTerminating" for one in causes)
