"""DeviceStatus objects, as KubeEdge v1.23 has them: what a device reports, beside its status, for who reads it there.

They follow the status of the Device, whoever wrote that, and only where the API serves ``devicestatuses``: on clusters with KubeEdge's
definition, or ours (``--install-crds --device-statuses``). A DeviceStatus has the name of its Device and goes with it. An instance of
the cloud role writes those of nodes that are connected to itself, so that a Go cloudcore beside it keeps its own; ``extensions``
are others' and stay.

Units   Seconds.
Errors  None: what cannot be written is tried again with backoff; a missing right is said once.
State   Digest and owner of what was written last, by device.
Source  KubeEdge v1.23, cloud/pkg/devicecontroller/controller/upstream.go; build/crds/devices (devices_v1beta1_devicestatus.yaml).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import Controller, ObjectKey, Result
from edgesite.client.informer import key_of
from edgesite.cloud.devicecontroller.objects import DeviceObjects, unpacked
from edgesite.cloud.devicecontroller.served import DEVICE_STATUSES, LOOK_S, is_served
from edgesite.cloud.namespace import is_ending
from edgesite.kube import json
from edgesite.kube.devices import V1BETA1
from edgesite.kube.errors import ApiError

if TYPE_CHECKING:
    import random

    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["DeviceStatuses", "status_of"]

Object = dict[str, Any]
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_MEMBERS: Final = ("twins", "state", "lastOnlineTime")
_WORKERS: Final = 8
_GATHER_S: Final = 0.2


def status_of(device: Object) -> Object:
    """The status of a DeviceStatus, as a merge patch: of what the device does not report, nothing stays."""
    status = device.get("status") or {}
    return {name: status.get(name) or None for name in _MEMBERS}


class DeviceStatuses:
    """``is_here(node)`` tells whether a node is connected to this instance. `run` follows until cancelled."""

    def __init__(
        self,
        client: Client,
        objects: DeviceObjects,
        is_here: Callable[[str], bool],
        clock: Clock,
        draw: random.Random,
        log: Log,
    ) -> None:
        self._client = client
        self._objects = objects
        self._is_here = is_here
        self._clock = clock
        self._random = draw
        self._log = log
        self._forbidden = False
        self._written: dict[ObjectKey, int] = {}
        self._controller = Controller("device-statuses", self._reconcile, clock, draw, workers=_WORKERS, log=log)

    async def run(self) -> None:
        loud = True
        while not await is_served(self._client, DEVICE_STATUSES, self._log, loud=loud):
            loud = False
            await self._clock.sleep(LOOK_S * (0.75 + self._random.random() / 2))
        self._log.info("what devices report is written to DeviceStatus objects, too")
        with self._objects.devices.add_handler(self._changed, lambda _, new: self._changed(new), self._gone):
            await self._controller.run(synced=[self._objects.devices])

    def _changed(self, one: Object) -> None:
        self._controller.queue.add_after(key_of(one), _GATHER_S)

    def _gone(self, one: Object) -> None:
        self._written.pop(key_of(one), None)  # the garbage collector takes the object

    async def _reconcile(self, key: ObjectKey) -> Result | None:
        """Raises ApiError: tried again with backoff."""
        one = self._objects.devices.by_key(key)
        if one is None or not one["node"] or not self._is_here(one["node"]):
            self._written.pop(key, None)  # another instance may write it now
            return None
        wanted = _wanted(unpacked(one))
        digest = hash(json.dumps(wanted))
        if self._written.get(key) == digest:
            return None
        try:
            await self._write(key, wanted)
        except ApiError as exc:
            if is_ending(exc):
                return None
            if exc.code != 403:
                raise
            if not self._forbidden:
                self._forbidden = True
                self._log.warning("DeviceStatus objects are not written, for which the account has no right: %s", exc)
        self._written[key] = digest
        return None

    async def _write(self, key: ObjectKey, wanted: Object) -> None:
        """Raises ApiError."""
        try:
            await self._client.patch(DEVICE_STATUSES, key.name, wanted, key.namespace)
        except ApiError as exc:
            if exc.code != 404:
                raise
            metadata = {"name": key.name, "namespace": key.namespace, **wanted["metadata"]}
            status = {name: value for name, value in wanted["status"].items() if value is not None}
            made = {"apiVersion": V1BETA1, "kind": "DeviceStatus", "metadata": metadata, "spec": {}, "status": status}
            await self._client.create(DEVICE_STATUSES, made)


def _wanted(device: Object) -> Object:
    """A merge patch."""
    owner = {
        "apiVersion": V1BETA1,
        "kind": "Device",
        "name": device["metadata"]["name"],
        "uid": device["metadata"].get("uid"),
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"metadata": {"ownerReferences": [owner]}, "status": status_of(device)}
