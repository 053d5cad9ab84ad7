"""Drivers at work within the edge role: a fleet of them, whose values go to `Devices`.

Errors  None raised: where the address for HTTP cannot be had, that is logged, and devices are driven without it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from edgesite.edge.devicetwin.devices import Devices, Reported
from edgesite.kube.errors import ApiError
from edgesite.mapper.devices import assignment_of
from edgesite.mapper.driver import DeviceState, Host
from edgesite.mapper.fleet import Fleet, FleetFull
from edgesite.mapper.reports import Key, OutletAway, Reading, ReportRefused

if TYPE_CHECKING:
    from edgesite.context import Context
    from edgesite.hookspecs import DriverFactory
    from edgesite.mapper.metrics import Meters

__all__ = ["Drivers"]


class Drivers:
    """``async with``: runs within the block."""

    def __init__(self, ctx: Context, devices: Devices, meters: Meters) -> None:
        self._ctx = ctx
        self._host = Host(ctx.net, ctx.clock, ctx.threads, ctx.random, ctx.log)
        self._fleet = Fleet(self._host, _Twins(devices), meters, environ=os.environ)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Drivers:
        async with self._stack as stack:
            await stack.enter_async_context(self._fleet)
            if address := self._ctx.config.get("httpAddress", ""):
                from edgesite.mapper.rest import Rest

                try:
                    await stack.enter_async_context(Rest(self._fleet, self._host, address, self._ctx.metrics))
                except OSError as exc:
                    self._ctx.log.error("%s (modules.mappers.httpAddress)", exc)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> bool | None:
        return await self._stack.__aexit__(*error)  # type: ignore[arg-type]

    def put(self, device: dict[str, Any], model: dict[str, Any] | None, make: DriverFactory) -> None:
        """Drive a device as its objects say now."""
        try:
            self._fleet.put(assignment_of(device, model), make)
        except FleetFull as exc:
            self._ctx.log.error("device %s is not driven: %s", device.get("metadata", {}).get("name"), exc)

    def remove(self, key: Key) -> None:
        self._fleet.remove(key)

    def of_model(self, namespace: str, name: str) -> list[Key]:
        """The devices of a model."""
        return [
            one.assignment.key
            for one in self._fleet
            if one.assignment.device.namespace == namespace and one.assignment.device.model == name
        ]


class _Twins:
    """Implements `edgesite.mapper.reports.Outlet`."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

    async def report(self, key: Key, readings: Sequence[Reading]) -> None:
        """Give all at once; if one of several is refused, each by itself. Raises ReportRefused, OutletAway."""
        values = [Reported(one.property, one.value, one.at_ms, _type(one), one.observed_desired) for one in readings]
        try:
            await self._give(key, values)
        except ReportRefused:
            if len(values) == 1:
                raise
            refusals = []
            for one in values:
                try:
                    await self._give(key, [one])
                except ReportRefused as exc:
                    refusals.append(f"{one.property}: {exc}")
            if refusals:
                raise ReportRefused("; ".join(refusals)) from None

    async def _give(self, key: Key, values: list[Reported]) -> None:
        try:
            await self._devices.report_twins(*key, values)
        except ApiError as exc:
            raise (OutletAway if exc.code >= 500 else ReportRefused)(str(exc)) from exc

    async def report_state(self, key: Key, state: DeviceState) -> None:
        """Raises ReportRefused, OutletAway."""
        try:
            await self._devices.report_state(*key, state.value)
        except ApiError as exc:
            raise (OutletAway if exc.code >= 500 else ReportRefused)(str(exc)) from exc


def _type(one: Reading) -> str:
    return "string" if one.type == "stream" else one.type
