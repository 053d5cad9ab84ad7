"""Device profiles for mappers of KubeEdge v1.12: a ConfigMap for each node and namespace.

    device-profile-config-<node>    data: {"deviceProfile.json": ...}

Devices that were written as v1alpha2 are in it: mappers of that time know no others, and since KubeEdge v1.15 there are none. It is written
when a device or model changes, not when a device reports, and deleted with its last device.

On a cluster the right to write ConfigMaps everywhere is not given without need (docs/devices.md): then there are no profiles.

Errors  ApiError is logged and tried again.
State   Which profiles are to be looked at.
Source  KubeEdge v1.12, cloud/pkg/devicecontroller/controller/downstream.go.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from edgesite.client import Controller, ObjectKey, Result
from edgesite.cloud.devicecontroller.objects import DeviceObjects, unpacked
from edgesite.cloud.namespace import is_ending
from edgesite.kube.devices.profile import KEY, config_map_name, profile
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import CONFIG_MAPS

if TYPE_CHECKING:
    import random

    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["Profiles"]

Object = dict[str, Any]
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
_MOST_BYTES: Final = 1_000_000  #: a ConfigMap holds a mebibyte
_GATHER_S: Final = 0.3


class Profiles:
    """`run` writes until cancelled."""

    def __init__(self, client: Client, objects: DeviceObjects, clock: Clock, draw: random.Random, log: Log) -> None:
        self._client = client
        self._objects = objects
        self._log = log
        self._too_large: set[ObjectKey] = set()
        self._forbidden = False
        self._controller = Controller("device-profiles", self._reconcile, clock, draw, workers=1)

    def changed(self, one: Object) -> None:
        """A device has changed, or its model."""
        if one["node"] and one["alpha"]:
            key = ObjectKey(one["metadata"].get("namespace") or "", one["node"])
            self._controller.queue.add_after(key, _GATHER_S)

    async def run(self) -> None:
        await self._controller.run(synced=[self._objects.devices, self._objects.models])

    async def _reconcile(self, key: ObjectKey) -> Result | None:
        """Raises ApiError: tried again with backoff."""
        namespace, node = key
        devices = [
            unpacked(one)
            for one in self._objects.devices_of(node)
            if one["alpha"] and one["metadata"].get("namespace") == namespace
        ]
        devices.sort(key=lambda one: (one["metadata"].get("creationTimestamp") or "", one["metadata"]["name"]))
        text = profile(devices, lambda name: self._objects.model(namespace, name))
        if len(text) > _MOST_BYTES:
            if key not in self._too_large:
                self._too_large.add(key)
                self._log.error(
                    "the device profile of node %s has %d bytes: too many, it stays as it is", node, len(text)
                )
            return None
        self._too_large.discard(key)
        try:
            await self._write(namespace, config_map_name(node), text)
        except ApiError as exc:
            if is_ending(exc):
                return None
            if exc.code != 403:
                raise
            if not self._forbidden:
                self._forbidden = True
                self._log.warning("device profiles are not written, for which the account has no right: %s", exc)
        return None

    async def _write(self, namespace: str, name: str, text: str) -> None:
        try:
            found = await self._client.get(CONFIG_MAPS, name, namespace)
        except ApiError as exc:
            if exc.code != 404:
                raise
            if text:
                made = {"metadata": {"name": name, "namespace": namespace}, "data": {KEY: text}}
                await self._client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **made})
            return
        if not text:
            await self._client.delete(CONFIG_MAPS, name, namespace)
        elif (found.get("data") or {}).get(KEY) != text:
            await self._client.patch(CONFIG_MAPS, name, {"data": {KEY: text}}, namespace)
