"""The node's devices: plugins that offer them, containers that have them, and how many there are.

A plugin that goes takes nothing from containers that run; its devices cannot be given until it is back.

Units   Seconds.
Errors  AllocationError; PluginError and OSError in `allocate` become it.
State   Allocations on disk (`checkpoint`); devices in memory, as their plugins list them.
Source  Kubernetes device manager: counts of healthy and unhealthy devices, five minutes of grace, words of its refusals.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.context import Clock, Net, Threads
from edgesite.edge.edged.devices import checkpoint
from edgesite.edge.edged.devices.allocation import (
    Allocation,
    AllocationError,
    Device,
    free_devices,
    in_order,
    is_extended,
    wanted,
)
from edgesite.edge.edged.plugins.errors import PluginError
from edgesite.edge.edged.plugins.registry import PluginInfo, PluginRefused
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import Device as HostDevice
from edgesite.edge.edged.runtime import Mount

if TYPE_CHECKING:
    from edgesite.edge.edged.devices.plugin import DevicePlugin

__all__ = ["ContainerDevices", "DeviceManager"]

GRACE_S: Final = 300.0  #: how long the devices of a plugin that is gone still count in the capacity


@dataclass(frozen=True, slots=True)
class ContainerDevices:
    """What a container gets with its devices."""

    envs: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    devices: tuple[HostDevice, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi: tuple[str, ...] = ()


@dataclass(slots=True)
class _Offer:
    """A resource that a plugin offers or has offered."""

    devices: dict[str, Device] = field(default_factory=dict)
    plugin: DevicePlugin | None = None
    scope: anyio.CancelScope | None = None
    gone_at: float = 0.0


class DeviceManager:
    """One for the node; it is also who takes plugins of kind DevicePlugin."""

    def __init__(
        self,
        folder: Path,
        net: Net,
        clock: Clock,
        threads: Threads,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        active: Callable[[], set[str]],
        beside: Callable[..., None],
    ) -> None:
        """``active`` gives the uids of pods that have not ended; ``beside(function, *args)`` runs something beside."""
        self._folder, self._net, self._clock, self._threads, self._log = folder, net, clock, threads, log
        self._active, self._beside = active, beside
        self._offers: dict[str, _Offer] = {}
        self._allocations: list[Allocation] = []
        self._lock = anyio.Lock()
        self._changed: Callable[[], None] = lambda: None

    async def load(self, changed: Callable[[], None]) -> None:
        """Read what was given before; ``changed`` is told whenever there are more devices or fewer."""
        self._changed = changed
        self._allocations = await self._threads.run(checkpoint.load, self._folder)
        for one in self._allocations:
            self._offers.setdefault(one.resource, _Offer(gone_at=self._clock.monotonic()))

    # -- plugins come and go

    def register(self, resource: str, socket: str) -> None:
        """Take a plugin, in place of one that had the resource before. Raises PluginRefused."""
        if not is_extended(resource):
            raise PluginRefused(f"the ResourceName {resource!r} is invalid")
        offer = self._offers.setdefault(resource, _Offer())
        if offer.scope is not None:
            offer.scope.cancel()
        offer.scope = anyio.CancelScope()
        self._beside(self._follow, resource, offer, offer.scope, socket)

    async def registered(self, info: PluginInfo) -> None:
        self.register(info.name, info.endpoint)

    async def gone(self, info: PluginInfo) -> None:
        offer = self._offers.get(info.name)
        if offer is not None and offer.scope is not None:
            offer.scope.cancel()

    async def _follow(self, resource: str, offer: _Offer, scope: anyio.CancelScope, socket: str) -> None:
        from edgesite.edge.edged.devices.plugin import DevicePlugin  # loads gRPC: not before there is a plugin

        plugin = DevicePlugin(self._net, resource, socket)

        def listed(devices: list[Device]) -> None:
            offer.plugin = plugin
            offer.devices = {one.id: one for one in devices}
            self._changed()

        try:
            with scope:
                await plugin.follow(listed)
        except PluginError as exc:
            self._log.warning("device plugin of resource=%s is gone: %s", resource, exc)
        finally:
            if offer.plugin is plugin:
                offer.plugin, offer.gone_at = None, self._clock.monotonic()
                offer.devices = {one.id: Device(one.id, False, one.nodes) for one in offer.devices.values()}
                self._changed()
                self._beside(self._forget_later)
            with anyio.move_on_after(1.0, shield=True):
                await plugin.close()

    async def _forget_later(self) -> None:
        await self._clock.sleep(GRACE_S)
        self._changed()

    # -- how many

    def amounts(self) -> dict[str, tuple[int, int]]:
        """How many devices there are of each resource, and how many of them are well."""
        now = self._clock.monotonic()
        found = {}
        for resource, offer in self._offers.items():
            devices = offer.devices.values()
            if offer.plugin is None and now - offer.gone_at >= GRACE_S:
                devices = {}.values()
            found[resource] = (len(devices), sum(one.healthy for one in devices))
        return found

    # -- who has which

    async def allocate(self, pod: Pod) -> None:
        """Give each container of a pod the devices that it asks for. Raises AllocationError."""
        if not any(wanted(one) for one, _ in in_order(pod)):
            return
        async with self._lock:
            active = self._active() | {pod.uid}
            before = list(self._allocations)
            self._allocations = [one for one in self._allocations if one.uid in active]
            reusable: dict[str, list[str]] = {}
            try:
                for container, leaves in in_order(pod):
                    await self._allocate(pod, container, reusable, leaves=leaves)
            except AllocationError:
                self._allocations = [one for one in before if one.uid in active and one.uid != pod.uid]
                raise
            finally:
                if self._allocations != before:
                    await self._save()

    async def _save(self) -> None:
        try:
            await self._threads.run(checkpoint.save, self._folder, list(self._allocations))
        except OSError as exc:
            raise AllocationError(f"the allocation of devices cannot be stored: {exc}") from exc

    async def _allocate(
        self, pod: Pod, container: Mapping[str, Any], reusable: dict[str, list[str]], *, leaves: bool
    ) -> None:
        for resource, count in wanted(container).items():
            if (offer := self._offers.get(resource)) is None:
                continue  # no plugin's, but something that somebody wrote into the Node
            left = reusable.setdefault(resource, [])
            held = self._held(pod.uid, container["name"], resource)
            if held is None:
                held = await self._give(pod.uid, container["name"], resource, offer, count, left)
                self._allocations.append(held)
            left[:] = [one for one in left if one not in held.ids] + (list(held.ids) if leaves else [])

    async def _give(
        self, uid: str, container: str, resource: str, offer: _Offer, count: int, reusable: list[str]
    ) -> Allocation:
        again = [one for one in reusable if one in offer.devices and offer.devices[one].healthy]
        free = free_devices(offer.devices.values(), self._allocations, resource)
        if offer.plugin is None or len(again) + len(free) < count:
            available = len(again) + len(free) if offer.plugin is not None else 0
            raise AllocationError(
                f"requested number of devices unavailable for {resource}. Requested: {count}, Available: {available}"
            )
        try:
            must = again[:count]
            ids = await offer.plugin.choose([*again, *free], must, count)
            given = await offer.plugin.allocate(ids)
        except PluginError as exc:
            raise AllocationError(str(exc)) from exc
        return Allocation(uid, container, resource, tuple(ids), given)

    def _held(self, uid: str, container: str, resource: str) -> Allocation | None:
        wanted_key = (uid, container, resource)
        return next((one for one in self._allocations if (one.uid, one.container, one.resource) == wanted_key), None)

    async def for_container(self, pod: Pod, container: Mapping[str, Any]) -> ContainerDevices:
        """Return what a container that is about to be made gets with its devices. Raises AllocationError."""
        if not wanted(container):
            return ContainerDevices()
        if any(one in self._offers and not self._held(pod.uid, container["name"], one) for one in wanted(container)):
            await self.allocate(pod)  # the record of a pod that ran here before was lost
        held = [one for one in self._allocations if (one.uid, one.container) == (pod.uid, container["name"])]
        for one in held:
            offer = self._offers.get(one.resource)
            if offer is not None and offer.plugin is not None:
                try:
                    await offer.plugin.prepare(one.ids)
                except PluginError as exc:
                    raise AllocationError(f"device plugin PreStartContainer rpc failed with err: {exc}") from exc
        return _together(held)

    def devices(self) -> dict[str, list[Device]]:
        """The devices of each resource, as their plugins list them."""
        return {resource: list(offer.devices.values()) for resource, offer in self._offers.items()}

    def of_containers(self) -> list[Allocation]:
        """All allocations."""
        return list(self._allocations)


def _together(held: list[Allocation]) -> ContainerDevices:
    """Join what several plugins give; of two that say the same, the first counts."""
    envs: dict[str, str] = {}
    annotations: dict[str, str] = {}
    mounts: dict[str, Mount] = {}
    devices: dict[str, HostDevice] = {}
    cdi: dict[str, None] = {}
    for one in held:
        given = one.given
        envs = {**given.get("envs", {}), **envs}
        annotations = {**given.get("annotations", {}), **annotations}
        for mount in given.get("mounts", ()):
            path = mount.get("container_path", "")
            mounts.setdefault(path, Mount(path, mount.get("host_path", ""), mount.get("read_only", False)))
        for device in given.get("devices", ()):
            path = device.get("container_path", "")
            devices.setdefault(path, HostDevice(path, device.get("host_path", ""), device.get("permissions", "mrw")))
        cdi.update(dict.fromkeys(device.get("name", "") for device in given.get("cdi_devices", ())))
    return ContainerDevices(envs, tuple(mounts.values()), tuple(devices.values()), annotations, tuple(cdi))
