"""The devices of a mapper: a worker for each, replaced when its device changes, ended when it goes.

Errors  FleetFull from `put`. What becomes of one worker is nothing to the others: one that fails is logged and begins anew.
Bounds  `DEVICES`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.mapper.reports import Key, Outlet, Reports
from edgesite.mapper.worker import DeviceWorker, Make, Push

if TYPE_CHECKING:
    from edgesite.mapper.devices import Assignment
    from edgesite.mapper.driver import Device, DeviceState, Host, Property
    from edgesite.mapper.metrics import Meters

__all__ = ["DEVICES", "Fleet", "FleetFull"]

DEVICES: Final = 10_000
_AGAIN_S: Final = 5.0
_SPREAD: Final = 200  #: devices that begin in a second, when there are many


class FleetFull(Exception):
    """There are as many devices as one mapper may have."""


class _Seat:
    """A worker and its task."""

    def __init__(self, worker: DeviceWorker, make: Make) -> None:
        self.worker, self.make = worker, make
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class Fleet:
    """``async with Fleet(...) as fleet``: workers run within the block."""

    def __init__(
        self,
        host: Host,
        outlet: Outlet,
        meters: Meters,
        *,
        environ: Mapping[str, str] | None = None,
        push: Push | None = None,
    ) -> None:
        """``push`` takes the values of properties with a ``pushMethod``, by default a `Pusher`, which finds credentials in ``environ``."""
        self._host, self._meters = host, meters
        self._push, self._environ = push, environ or {}
        self._reports = Reports(outlet, host, meters)
        self._seats: dict[Key, _Seat] = {}
        self._leaving: dict[Key, _Seat] = {}  # removed, and not yet done with their machines
        self._tasks = anyio.create_task_group()
        meters.watch(self.states)

    async def __aenter__(self) -> Fleet:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._reports.run)
        return self

    async def __aexit__(self, *error: object) -> bool | None:
        self._tasks.cancel_scope.cancel()
        return await self._tasks.__aexit__(*error)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[DeviceWorker]:
        return (seat.worker for seat in self._seats.values())

    def __len__(self) -> int:
        return len(self._seats)

    def get(self, key: Key) -> DeviceWorker | None:
        seat = self._seats.get(key)
        return None if seat is None else seat.worker

    def states(self) -> list[DeviceState]:
        return [seat.worker.state for seat in self._seats.values()]

    def put(self, assignment: Assignment, make: Make) -> None:
        """Serve a device, or take over what has changed of it. Raises FleetFull."""
        old = self._seats.get(assignment.key)
        if old is not None:
            if old.worker.assignment.device == assignment.device and old.make == make:
                old.worker.want(assignment)
                return
            old.scope.cancel()
        elif len(self._seats) >= DEVICES:
            raise FleetFull(f"there are {DEVICES} devices already")
        old = old or self._leaving.get(assignment.key)
        worker = DeviceWorker(assignment, make, self._host, self._reports, self._meters, self._offer)
        seat = self._seats[assignment.key] = _Seat(worker, make)
        self._tasks.start_soon(self._serve, seat, old)

    def remove(self, key: Key) -> bool:
        """End a device's worker; False if there is none."""
        seat = self._seats.pop(key, None)
        if seat is None:
            return False
        seat.scope.cancel()
        self._leaving[key] = seat
        self._reports.forget(key)
        return True

    def refresh(self) -> None:
        """Report everything anew."""
        for worker in self:
            worker.refresh()

    def _offer(self, device: Device, prop: Property, value: str, at_ms: int) -> None:
        if self._push is None:  # the first one
            from edgesite.mapper.push import Pusher

            pusher = Pusher(self._host, self._environ, self._meters.push())
            self._tasks.start_soon(pusher.run)
            self._push = pusher.offer
        self._push(device, prop, value, at_ms)

    async def _serve(self, seat: _Seat, old: _Seat | None) -> None:
        """Run a worker until its seat is given up. Its device's former worker has let go of the machine before."""
        try:
            if old is not None:
                await old.ended.wait()
            with seat.scope:
                await self._host.clock.sleep(
                    self._host.random.random() * min(max(len(self._seats) - 1, 0), 1000) / _SPREAD
                )
                while True:
                    try:
                        await seat.worker.run()
                    except Exception:
                        self._host.log.exception("device %s/%s: its worker fails", *seat.worker.assignment.key)
                    await self._host.clock.sleep(_AGAIN_S * (0.5 + self._host.random.random() / 2))
        finally:
            seat.ended.set()
            key = seat.worker.assignment.key
            if self._leaving.get(key) is seat:
                del self._leaving[key]
