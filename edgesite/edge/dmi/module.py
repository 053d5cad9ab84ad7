"""The module ``dmi``: mappers of both versions at one socket, told of their devices, heard about their values.

    modules.deviceTwin.dmiSockPath     a folder, or a path that ends in .sock; mode 0600

One mapper serves a protocol; who registers last has it. Mappers are kept over a restart, and are then told what has changed. Without the socket's
folder, or with somebody else at it, the node goes on without the interface, as KubeEdge does; it is tried again.

Source  KubeEdge v1.12.7 and v1.23, edge/pkg/devicetwin (dmiserver, dmiclient, dtmodule).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge

from edgesite.edge.devicetwin.devices import Devices
from edgesite.edge.dmi.doorway import Doorway
from edgesite.edge.dmi.mappers import MapperInfo, Mappers
from edgesite.edge.dmi.records import Change, Key, Records, Told
from edgesite.edge.metamanager.store import StoreError
from edgesite.kube.errors import not_found, unavailable

if TYPE_CHECKING:
    from edgesite.context import Context, Section
    from edgesite.edge.dmi.mapper import Mapper
    from edgesite.edge.dmi.service import DmiService

__all__ = ["Dmi", "socket_of"]

MAPPERS: Final = 100
_SAVE_S: Final = 1.0
_AGAIN_S: Final = 30.0


def socket_of(configured: str) -> Path:
    """The socket's path: as configured, or ``dmi.sock`` in the folder that is."""
    path = Path(configured)
    return path if configured.endswith(".sock") else path / "dmi.sock"


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter("edgesite_dmi_calls", "Calls of mappers", ["method", "outcome"], registry=registry)
        self.mappers = Gauge("edgesite_dmi_mappers", "Mappers that are registered", registry=registry)
        self.troubled = Gauge("edgesite_dmi_mappers_troubled", "Mappers whose last push failed", registry=registry)

    def count(self, method: str, succeeded: bool) -> None:
        self.calls.labels(method, "ok" if succeeded else "refused").inc()


class Dmi:
    """See the module docstring."""

    name: ClassVar[str] = "dmi"
    roles: ClassVar[frozenset[str]] = frozenset({"edge"})
    needs: ClassVar[frozenset[str]] = frozenset({"twin"})
    section: ClassVar[str] = "modules.deviceTwin"

    def __init__(self) -> None:
        self._metrics: _Metrics | None = None  # kept over restarts: a registry takes each name once

    def enabled(self, settings: Section) -> bool:
        return bool(settings.get("modules", {}).get("deviceTwin", {}).get("enable", True))

    async def run(self, ctx: Context) -> None:
        self._metrics = self._metrics or _Metrics(ctx.metrics)
        await _Run(ctx, self._metrics).run()


class _Run:
    """One run of the module; it ends with the provider of `Devices`. Implements `Mappers`."""

    def __init__(self, ctx: Context, metrics: _Metrics) -> None:
        self._ctx = ctx
        self._metrics = metrics
        self._records = Records(ctx.services)
        self._mappers: dict[str, Mapper] = {}  # by protocol
        self._changes: list[Change] = []
        self._changed = anyio.Event()
        self._tasks = anyio.create_task_group()
        self._registering = anyio.Lock()
        self._devices: Devices = ctx.services.get(Devices)  # type: ignore[type-abstract]
        self._served: DmiService | None = None
        metrics.mappers.set_function(lambda: float(len(self._mappers)))
        metrics.troubled.set_function(lambda: float(sum(bool(one.problem) for one in self._mappers.values())))

    async def run(self) -> None:
        ctx = self._ctx
        stored = await self._records.load()
        watch = self._devices.watch()
        try:
            async with self._tasks as tasks:
                tasks.start_soon(self._follow_provider)
                tasks.start_soon(self._save_changes)
                await self._resume(stored.mappers, stored.told)
                tasks.start_soon(self._serve)
                ctx.services.provide(Mappers, self)  # type: ignore[type-abstract]
                ctx.ready()
                async for change in watch:
                    key = Key(change.kind, change.namespace, change.name)
                    for mapper in self._mappers.values():
                        mapper.look(key)
        finally:
            watch.close()

    @property
    def _service(self) -> DmiService:
        """The two versions of the interface; loaded with the first mapper."""
        if self._served is None:
            from edgesite.edge.dmi.service import DmiService

            ctx = self._ctx
            rate = float(ctx.config.get("dmiReportsPerSecond", 5000))
            self._served = DmiService(lambda: self._devices, self._register, ctx.clock, rate, count=self._metrics.count)
        return self._served

    async def _follow_provider(self) -> None:
        """Begin anew when DeviceTwin is another one."""
        await self._ctx.services.replaced(Devices, self._devices)  # type: ignore[type-abstract]
        raise RuntimeError("the device twins have begun anew")

    # The socket

    async def _serve(self) -> None:
        ctx = self._ctx
        path, said = socket_of(str(ctx.config["dmiSockPath"])), ""
        doorway = Doorway(lambda: self._service.handlers())
        self._tasks.start_soon(doorway.run)
        while True:
            try:
                await ctx.threads.run(_make_folder, path.parent)
                listener = await doorway.open(ctx.net, f"unix://{path}")
                break
            except OSError as exc:
                if str(exc) != said:
                    ctx.log.warning("mappers cannot reach this node by %s: %s", path, exc)
                    said = str(exc)
            await ctx.clock.sleep(_AGAIN_S)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await listener.close()

    # Mappers

    async def _resume(self, infos: list[MapperInfo], told: dict[str, dict[Key, Told]]) -> None:
        """Go on with the mappers of the last run: tell them what has changed since."""
        infos = [one for one in infos if one.dmi]  # one that a KubeEdge kept says no version: it has to register again
        if not infos:
            return
        from edgesite.edge.dmi.convert import protocol_of

        keys = [Key("devicemodel", *_place(one)) for one in await self._devices.models()]
        devices = await self._devices.devices()
        for info in infos:
            mapper = self._add(info, told.get(info.name, {}))
            ours = [Key("device", *_place(one)) for one in devices if protocol_of(one) == info.protocol]
            for key in (*keys, *ours, *mapper.told):
                mapper.look(key)

    def _add(self, info: MapperInfo, told: dict[Key, Told]) -> Mapper:
        from edgesite.edge.dmi.mapper import Mapper

        tables = self._service.tables(info.dmi)
        mapper = Mapper(self._ctx, info, tables, self._devices, told, self._note)
        old = self._mappers.pop(info.protocol, None)
        if old is not None:
            old.scope.cancel()
        self._mappers[info.protocol] = mapper
        self._tasks.start_soon(mapper.run)
        return mapper

    async def _register(self, info: MapperInfo, with_data: bool) -> dict[str, Any]:
        from edgesite.edge.dmi.mapper import Mapper
        from edgesite.net.grpc_messages import Code, GrpcError

        async with self._registering:
            if info.protocol not in self._mappers and len(self._mappers) >= MAPPERS:
                raise GrpcError(Code.RESOURCE_EXHAUSTED, f"there are {MAPPERS} mappers already")
            asked = Mapper(self._ctx, info, self._service.tables(info.dmi), self._devices, {}, self._note)
            answer, told = await asked.everything()
            try:
                await self._forget_others(info)
                await self._records.register(info, told)
            except StoreError as exc:
                raise GrpcError(Code.UNKNOWN, f"fail to register mapper {info.name}: {exc}") from exc
            mapper = self._add(info, told)
            for key in told:  # what changed while it was read
                mapper.look(key)
        self._ctx.log.info("mapper %s serves %s with %d devices", info.name, info.protocol, len(answer["deviceList"]))
        return answer if with_data else {}

    async def _forget_others(self, info: MapperInfo) -> None:
        """One mapper serves a protocol, and one protocol is served by a mapper."""
        for protocol, other in list(self._mappers.items()):
            if other.info.name == info.name or protocol == info.protocol:
                other.scope.cancel()
                del self._mappers[protocol]
                if other.info.name != info.name:
                    await self._records.forget(other.info.name)

    def _note(self, change: Change) -> None:
        self._changes.append(change)
        self._changed.set()

    async def _save_changes(self) -> None:
        """Write what mappers were told, many changes at once."""
        try:
            while True:
                await self._changed.wait()
                await self._ctx.clock.sleep(_SAVE_S)
                await self._save()
        finally:
            with anyio.move_on_after(3.0, shield=True):
                await self._save()

    async def _save(self) -> None:
        self._changed = anyio.Event()
        changes, self._changes = self._changes, []
        if not changes:
            return
        try:
            await self._records.save(changes)
        except StoreError as exc:  # they are told once more after a restart
            self._ctx.log.error("what mappers were told is not kept: %s", exc)

    # The service `Mappers`

    def registered(self) -> list[MapperInfo]:
        return [one.info for one in self._mappers.values()]

    async def get_device(self, namespace: str, name: str) -> dict[str, Any]:
        """See `Mappers`."""
        from edgesite.edge.dmi.convert import protocol_of
        from edgesite.net.grpc_messages import GrpcError

        device = await self._devices.device(namespace, name)
        mapper = None if device is None else self._mappers.get(protocol_of(device))
        if mapper is None:
            raise not_found("devices", name, group="devices.kubeedge.io")
        try:
            return await mapper.get_device(namespace, name)
        except GrpcError as exc:
            raise unavailable(f"mapper {mapper.info.name}: {exc.text or exc.code.name}") from exc


def _make_folder(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.makedirs(folder, mode=0o755)


def _place(obj: dict[str, Any]) -> tuple[str, str]:
    metadata = obj.get("metadata", {})
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))
