"""`Devices` as devicetwin provides it, and the watches of its changes.

It is there before the first device is, and takes reports once there may be one (`Reports`).

Errors  ApiError, as the interface says.
State   Watches, each with at most one waiting change for an object.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.edge.devicetwin.devices import DeviceChange, Reported
from edgesite.edge.metamanager.meta import Meta
from edgesite.kube.errors import not_found

if TYPE_CHECKING:
    from edgesite.edge.devicetwin.reports import Reports

__all__ = ["DeviceService"]

_LOAD_S: Final = 30.0


class _Watch:
    """Implements `DeviceWatch`."""

    def __init__(self, service: DeviceService) -> None:
        self._service = service
        self._waiting: dict[tuple[str, str, str], DeviceChange] = {}
        self._filled = anyio.Event()

    def add(self, change: DeviceChange) -> None:
        key = (change.kind, change.namespace, change.name)
        old = self._waiting.pop(key, None)
        if old is not None and old.operation == "insert" and change.operation == "update":
            change = old
        self._waiting[key] = change
        self._filled.set()

    async def __aiter__(self) -> AsyncIterator[DeviceChange]:
        while True:
            if not self._waiting:
                self._filled = anyio.Event()
                await self._filled.wait()
            yield self._waiting.pop(next(iter(self._waiting)))

    def close(self) -> None:
        self._service.left(self)


class DeviceService:
    """Implements `edgesite.edge.devicetwin.Devices`."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta
        self._reports: Reports | None = None
        self._loading: anyio.Event | None = None
        self._watches: dict[_Watch, None] = {}

    def expect(self) -> None:
        """There is something to do: who reports waits for `attach`."""
        self._loading = anyio.Event()

    def attach(self, reports: Reports) -> None:
        """There may be devices from now on."""
        self._reports = reports
        if self._loading is not None:
            self._loading.set()

    async def device(self, namespace: str, name: str) -> dict[str, Any] | None:
        found = await self._meta.get("device", namespace, name)
        return None if found is None else _beta(found)

    async def model(self, namespace: str, name: str) -> dict[str, Any] | None:
        found = await self._meta.get("devicemodel", namespace, name)
        return None if found is None else _beta(found)

    async def devices(self) -> list[dict[str, Any]]:
        return [_beta(one) for one in await self._meta.list("device")]

    async def models(self) -> list[dict[str, Any]]:
        return [_beta(one) for one in await self._meta.list("devicemodel")]

    def namespace_of(self, name: str) -> str | None:
        return None if self._reports is None else self._reports.namespace_of(name)

    def watch(self) -> _Watch:
        made = _Watch(self)
        self._watches[made] = None
        return made

    def left(self, watch: _Watch) -> None:
        self._watches.pop(watch, None)

    def tell(self, change: DeviceChange) -> None:
        """An object has changed."""
        for watch in self._watches:
            watch.add(change)

    def last_online(self, namespace: str, name: str) -> str:
        return "" if self._reports is None else self._reports.last_online(namespace, name)

    async def report_twins(self, namespace: str, name: str, values: Sequence[Reported]) -> None:
        await (await self._for(name)).report_twins(namespace, name, values)

    async def report_state(self, namespace: str, name: str, state: str) -> None:
        await (await self._for(name)).report_state(namespace, name, state)

    async def _for(self, name: str) -> Reports:
        """Raises ApiError NotFound where there are no devices."""
        if self._reports is None and self._loading is not None:
            with anyio.move_on_after(_LOAD_S):
                await self._loading.wait()
        if self._reports is None:
            raise not_found("devices", name, "devices.kubeedge.io")
        return self._reports


def _beta(obj: dict[str, Any]) -> dict[str, Any]:
    from edgesite.kube.devices import to_v1beta1  # 200 KB that a node without devices does not need

    return to_v1beta1(obj)
