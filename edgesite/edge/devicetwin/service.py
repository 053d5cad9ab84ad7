"""`Devices` as devicetwin provides it, and the watches of its changes.

Errors  ApiError, as the interface says.
State   Watches, each with at most one waiting change for an object.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio

from edgesite.edge.devicetwin.clients import UNKNOWN
from edgesite.edge.devicetwin.devices import DeviceChange, Reported
from edgesite.edge.devicetwin.engine import Engine, Request
from edgesite.edge.devicetwin.payloads import InMeta, InTwin, InValue, Refused
from edgesite.edge.devicetwin.turn import ACTUAL, Turn
from edgesite.edge.metamanager.batch import BatchClosed
from edgesite.edge.metamanager.meta import Meta
from edgesite.kube.devices import to_v1beta1
from edgesite.kube.errors import ApiError, internal, invalid, not_found

__all__ = ["DeviceService"]

_GROUP = "devices.kubeedge.io"


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

    def __init__(self, engine: Engine, meta: Meta) -> None:
        self._engine = engine
        self._meta = meta
        self._watches: dict[_Watch, None] = {}

    async def device(self, namespace: str, name: str) -> dict[str, Any] | None:
        return _beta(await self._meta.get("device", namespace, name))

    async def model(self, namespace: str, name: str) -> dict[str, Any] | None:
        return _beta(await self._meta.get("devicemodel", namespace, name))

    async def devices(self) -> list[dict[str, Any]]:
        return [to_v1beta1(one) for one in await self._meta.list("device")]

    async def models(self) -> list[dict[str, Any]]:
        return [to_v1beta1(one) for one in await self._meta.list("devicemodel")]

    def namespace_of(self, name: str) -> str | None:
        device = self._engine.registry.named(name)
        return None if device is None else device.namespace or "default"

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
        device = self._engine.registry.at(namespace, name)
        return "" if device is None else device.last_online

    # -- reports -------------------------------------------------------------------------------------------------

    async def report_twins(self, namespace: str, name: str, values: Sequence[Reported]) -> None:
        twins: dict[str, InTwin | None] = {
            one.property: InTwin(actual=InValue(one.value), metadata=InMeta(one.type or None)) for one in values
        }
        observed = {one.property: one.observed_desired for one in values if one.observed_desired is not None}

        def take(turn: Turn) -> None:
            clients, device = self._engine.clients, self._engine.registry.at(namespace, name)
            id_text = name if device is None else clients.id_of(device)
            try:
                if device is None:
                    raise Refused(404, UNKNOWN)
                clients.local(turn, id_text, twins, "", heard=False)
            except Refused as exc:
                clients.refused(turn, id_text, "", exc)
                raise _error(name, exc) from exc
            for property_, value in observed.items():
                twin = device.twins.get(property_)
                if twin is not None and twin.observed != value:
                    twin.observed = value
                    turn.told.append((device, property_, ACTUAL))

        await self._request(take)

    async def report_state(self, namespace: str, name: str, state: str) -> None:
        def take(turn: Turn) -> None:
            device = self._engine.registry.at(namespace, name)
            if device is None:
                raise not_found("devices", name, _GROUP)
            self._engine.clients.state(turn, self._engine.clients.id_of(device), state, heard=False)

        await self._request(take)

    async def _request(self, action: Any) -> None:
        request = Request(action)
        try:
            await self._engine.add(request)
        except BatchClosed:
            raise internal("DeviceTwin is stopping") from None
        await request.done.wait()
        if request.error is not None:
            raise request.error


def _beta(obj: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if obj is None else to_v1beta1(obj)


def _error(name: str, exc: Refused) -> ApiError:
    if exc.code == 404:
        return not_found("devices", name, _GROUP)
    cause = {"reason": "FieldValueInvalid", "message": exc.reason, "field": "reported"}
    return invalid("Device", name, [cause], _GROUP)
