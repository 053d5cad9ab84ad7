"""The module ``mappers``: devices of this node for whose protocol a plugin has a driver.

    modules.mappers     enable; outOfProcess, protocols that are left to programs over DMI; httpAddress, where devices are read by HTTP

A node without such devices loads nothing of it: `Drivers` comes with the first.

State   None: what the devices shall be and are is DeviceTwin's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import anyio
import anyio.abc

from edgesite.edge.devicetwin.devices import DeviceChange, Devices
from edgesite.edge.dmi.mappers import Mappers

if TYPE_CHECKING:
    from edgesite.context import Context, Section
    from edgesite.edge.mappers.drivers import Drivers
    from edgesite.hookspecs import DriverFactory
    from edgesite.mapper.metrics import Meters

__all__ = ["MapperHost"]


class MapperHost:
    """See the module docstring."""

    name: ClassVar[str] = "mappers"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"twin"})
    section: ClassVar[str] = "modules.mappers"

    def __init__(self) -> None:
        self._meters: Meters | None = None  # kept over restarts: a registry takes each name once

    def enabled(self, settings: Section) -> bool:
        modules = settings.get("modules", {})
        return all(modules.get(one, {}).get("enable", True) for one in ("mappers", "deviceTwin"))

    async def run(self, ctx: Context) -> None:
        await _Run(ctx, self).run()

    def meters(self, ctx: Context) -> Meters:
        if self._meters is None:
            from edgesite.mapper.metrics import Meters

            self._meters = Meters(ctx.metrics)
        return self._meters


class _Run:
    """One run of the module; it ends with the provider of `Devices`."""

    def __init__(self, ctx: Context, module: MapperHost) -> None:
        self._ctx, self._module = ctx, module
        self._tasks = anyio.create_task_group()
        self._devices: Devices = ctx.services.get(Devices)  # type: ignore[type-abstract]
        self._makers: dict[str, DriverFactory | None] = {}  # by protocol
        self._drivers: Drivers | None = None
        self._elsewhere = frozenset(ctx.config.get("outOfProcess", ()))

    async def run(self) -> None:
        watch = self._devices.watch()
        try:
            async with self._tasks as tasks:
                tasks.start_soon(self._follow_provider)
                for device in await self._devices.devices():
                    await self._settle(device)
                self._ctx.ready()
                async for change in watch:
                    await self._look(change)
        finally:
            watch.close()

    async def _follow_provider(self) -> None:
        """Begin anew when DeviceTwin is another one."""
        await self._ctx.services.replaced(Devices, self._devices)  # type: ignore[type-abstract]
        raise RuntimeError("the device twins have begun anew")

    async def _look(self, change: DeviceChange) -> None:
        if change.kind == "devicemodel":
            for key in self._drivers.of_model(change.namespace, change.name) if self._drivers else ():
                if (device := await self._devices.device(*key)) is not None:
                    await self._settle(device)
            return
        device = await self._devices.device(change.namespace, change.name)
        if device is not None:
            await self._settle(device)
        elif self._drivers is not None:
            self._drivers.remove((change.namespace, change.name))

    async def _settle(self, device: dict[str, Any]) -> None:
        """Have the device driven, if it is ours to drive."""
        metadata, spec = device.get("metadata", {}), device.get("spec", {})
        namespace, name = str(metadata.get("namespace") or "default"), str(metadata.get("name", ""))
        make = await self._maker(str((spec.get("protocol") or {}).get("protocolName") or ""))
        if make is None:
            if self._drivers is not None:
                self._drivers.remove((namespace, name))
            return
        if self._drivers is None:
            self._drivers = await self._tasks.start(self._hold)
        model = str((spec.get("deviceModelRef") or {}).get("name") or "")
        self._drivers.put(device, await self._devices.model(namespace, model) if model else None, make)

    async def _hold(self, *, task_status: anyio.abc.TaskStatus[Drivers]) -> None:
        from edgesite.edge.mappers.drivers import Drivers

        async with Drivers(self._ctx, self._devices, self._module.meters(self._ctx)) as drivers:
            task_status.started(drivers)
            await anyio.sleep_forever()

    async def _maker(self, protocol: str) -> DriverFactory | None:
        """Who makes drivers of a protocol; asked for once."""
        if not protocol or protocol in self._elsewhere:
            return None
        if protocol not in self._makers:
            made = self._makers[protocol] = await self._ctx.threads.run(self._ctx.hooks.mapper, protocol)
            if made is not None:
                self._ctx.log.info("devices of protocol %s are driven by %s", protocol, getattr(made, "__name__", made))
                self._warn_of_other(protocol)
        return self._makers[protocol]

    def _warn_of_other(self, protocol: str) -> None:
        mappers = self._ctx.services.find(Mappers)  # type: ignore[type-abstract]
        for one in mappers.registered() if mappers is not None else ():
            if one.protocol == protocol:
                self._ctx.log.warning(
                    "mapper %s serves protocol %s, too: leave one of them out (modules.mappers.outOfProcess)",
                    one.name,
                    protocol,
                )
