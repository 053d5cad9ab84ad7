"""What is asked of and told to the twins by call: by mappers, and by drivers in this process.

Errors  ApiError, as `Devices` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgesite.edge.devicetwin.clients import UNKNOWN
from edgesite.edge.devicetwin.devices import Reported
from edgesite.edge.devicetwin.engine import Engine, Request
from edgesite.edge.devicetwin.payloads import InMeta, InTwin, InValue, Refused
from edgesite.edge.devicetwin.turn import ACTUAL, Turn
from edgesite.edge.metamanager.batch import BatchClosed
from edgesite.kube.errors import ApiError, internal, invalid, not_found

__all__ = ["Reports"]

_GROUP = "devices.kubeedge.io"


class Reports:
    """The part of `edgesite.edge.devicetwin.Devices` that needs the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def namespace_of(self, name: str) -> str | None:
        device = self._engine.registry.named(name)
        return None if device is None else device.namespace or "default"

    def last_online(self, namespace: str, name: str) -> str:
        device = self._engine.registry.at(namespace, name)
        return "" if device is None else device.last_online

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


def _error(name: str, exc: Refused) -> ApiError:
    if exc.code == 404:
        return not_found("devices", name, _GROUP)
    cause = {"reason": "FieldValueInvalid", "message": exc.reason, "field": "reported"}
    return invalid("Device", name, [cause], _GROUP)
