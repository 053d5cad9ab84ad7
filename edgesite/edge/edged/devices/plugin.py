"""One device plugin: the devices that it lists, and the calls for a container.

Units   Seconds.
Errors  PluginError.
State   The connection.
Source  Kubernetes device plugin API v1beta1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from edgesite.context import Net
from edgesite.edge.edged.devices.allocation import AllocationError, Device
from edgesite.edge.edged.devices.tables import DEVICES, PLUGIN_SERVICE
from edgesite.edge.edged.plugins.client import PluginClient
from edgesite.edge.edged.plugins.errors import PluginError

__all__ = ["DevicePlugin"]

CALL_S: Final = 30.0
HEALTHY: Final = "Healthy"


class DevicePlugin:
    """`follow` until it ends; the calls meanwhile."""

    def __init__(self, net: Net, resource: str, socket: str) -> None:
        self.resource, self.socket = resource, socket
        self._client = PluginClient(net, socket, DEVICES)
        self._prefers = self._prepares = False

    async def close(self) -> None:
        await self._client.close()

    async def follow(self, listed: Callable[[list[Device]], None]) -> None:
        """Call ``listed`` with all devices whenever they change, until the plugin goes. Raises PluginError."""
        options = await self._call("GetDevicePluginOptions", "Empty", "DevicePluginOptions", {})
        self._prefers = options.get("get_preferred_allocation_available", False)
        self._prepares = options.get("pre_start_required", False)
        stream = self._client.stream(f"{PLUGIN_SERVICE}ListAndWatch", "Empty", "ListAndWatchResponse", {})
        async with aclosing(stream) as answers:
            async for answer in answers:
                listed([_device(one) for one in answer.get("devices", ())])
        raise PluginError("UNAVAILABLE", "the plugin ended its list")

    async def choose(self, available: Sequence[str], must: Sequence[str], count: int) -> list[str]:
        """Return which devices the plugin would rather give, or the first where it does not care. Raises PluginError."""
        chosen = [*must, *(one for one in available if one not in must)][:count]
        if not self._prefers or len(available) == count:
            return chosen
        one = {"available_deviceIDs": list(available), "must_include_deviceIDs": list(must), "allocation_size": count}
        answer = await self._call(
            "GetPreferredAllocation",
            "PreferredAllocationRequest",
            "PreferredAllocationResponse",
            {"container_requests": [one]},
        )
        (first, *_) = answer.get("container_responses") or [{}]
        preferred = [one for one in first.get("deviceIDs", ()) if one in available]
        fits = len(set(preferred)) == count and set(must) <= set(preferred)
        return preferred if fits else chosen

    async def allocate(self, ids: Sequence[str]) -> dict[str, Any]:
        """Have devices made ready; return what their container needs. Raises PluginError, AllocationError."""
        answer = await self._call(
            "Allocate", "AllocateRequest", "AllocateResponse", {"container_requests": [{"devices_ids": list(ids)}]}
        )
        responses = list(answer.get("container_responses") or ())
        if len(responses) != 1:
            raise AllocationError(f"the plugin of {self.resource} answered for {len(responses)} containers, not one")
        return dict(responses[0])

    async def prepare(self, ids: Sequence[str]) -> None:
        """Tell the plugin that a container is about to be made with devices, if it wants to know. Raises PluginError."""
        if self._prepares:
            await self._call(
                "PreStartContainer", "PreStartContainerRequest", "PreStartContainerResponse", {"devices_ids": list(ids)}
            )

    async def _call(self, name: str, request: str, answer: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._client.call(PLUGIN_SERVICE + name, request, answer, body, CALL_S)


def _device(said: dict[str, Any]) -> Device:
    nodes = (said.get("topology") or {}).get("nodes") or ()
    return Device(said.get("ID", ""), said.get("health") == HEALTHY, tuple(one.get("ID", 0) for one in nodes))
