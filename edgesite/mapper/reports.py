"""What goes from drivers to the edge: the newest value of each property, device by device, until the edge has taken it.

While the edge is away values wait here, one of each property, newer in place of older; nothing overtakes anything of the same device.

Units   Seconds; ``*_ms`` are milliseconds since the Unix epoch.
Errors  An `Outlet` raises ReportRefused (dropped, counted, logged once) or OutletAway (tried again, after `FIRST_S` up to `MOST_S`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from edgesite.mapper.driver import DeviceState

if TYPE_CHECKING:
    from edgesite.mapper.driver import Host
    from edgesite.mapper.metrics import Meters

__all__ = ["Key", "Outlet", "OutletAway", "Reading", "ReportRefused", "Reports"]

Key = tuple[str, str]  #: namespace and name of a device
SENDERS: Final = 8
FIRST_S: Final = 0.5
MOST_S: Final = 30.0
SEND_S: Final = 15.0


class ReportRefused(Exception):
    """The edge does not want this, now or ever."""


class OutletAway(Exception):
    """The edge cannot be reached at the moment."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a property, as the edge is told."""

    property: str
    value: str
    type: str
    at_ms: int
    observed_desired: str | None = None  #: what the device was last told to be


class Outlet(Protocol):
    """The way to the edge: DMI, or the service `Devices` of the process."""

    async def report(self, key: Key, readings: Sequence[Reading]) -> None:
        """Raises ReportRefused, OutletAway."""
        ...

    async def report_state(self, key: Key, state: DeviceState) -> None:
        """Raises ReportRefused, OutletAway."""
        ...


@dataclass(slots=True)
class _Slot:
    readings: dict[str, Reading] = field(default_factory=dict)
    state: DeviceState | None = None


class Reports:
    """See the module docstring. `value` and `state` never wait."""

    def __init__(self, outlet: Outlet, host: Host, meters: Meters) -> None:
        self._outlet, self._host, self._meters = outlet, host, meters
        self._waiting: dict[Key, _Slot] = {}
        self._busy: set[Key] = set()
        self._came = anyio.Event()
        self._refused: dict[Key, str] = {}  # the last reason, so that it is logged once
        self._away = False

    def value(self, key: Key, reading: Reading) -> None:
        self._slot(key).readings[reading.property] = reading
        self._came.set()

    def state(self, key: Key, state: DeviceState) -> None:
        self._slot(key).state = state
        self._came.set()

    def forget(self, key: Key) -> None:
        """The device is gone: what waits for it is nobody's."""
        self._waiting.pop(key, None)
        self._refused.pop(key, None)

    def _slot(self, key: Key) -> _Slot:
        slot = self._waiting.get(key)
        if slot is None:
            slot = self._waiting[key] = _Slot()
        return slot

    async def run(self) -> None:
        """Send until cancelled."""
        async with anyio.create_task_group() as tasks:
            for _ in range(SENDERS):
                tasks.start_soon(self._send)

    async def _send(self) -> None:
        wait_s = FIRST_S
        while True:
            key = await self._next()
            slot = self._waiting.pop(key)
            self._busy.add(key)
            try:
                await self._deliver(key, slot)
                wait_s = FIRST_S
                if self._away:
                    self._away = False
                    self._host.log.info("the edge takes reports again")
                continue
            except OutletAway as exc:
                self._put_back(key, slot)
                self._meters.reported("away")
                if not self._away:
                    self._away = True
                    self._host.log.warning("the edge takes no reports: %s", exc)
            finally:
                self._busy.discard(key)
                self._came.set()
            await self._host.clock.sleep(wait_s * (0.5 + self._host.random.random() / 2))
            wait_s = min(2 * wait_s, MOST_S)

    async def _next(self) -> Key:
        while True:
            key = next((one for one in self._waiting if one not in self._busy), None)
            if key is not None:
                return key
            if self._came.is_set():  # others may wait for it, too
                self._came = anyio.Event()
            await self._came.wait()

    async def _deliver(self, key: Key, slot: _Slot) -> None:
        """Raises OutletAway; what was delivered is no longer in the slot."""
        try:
            with anyio.fail_after(SEND_S):
                if slot.state is not None:
                    await self._take(key, self._outlet.report_state(key, slot.state))
                    slot.state = None
                if slot.readings:
                    await self._take(key, self._outlet.report(key, list(slot.readings.values())))
                    slot.readings.clear()
        except TimeoutError:
            raise OutletAway(f"no answer within {SEND_S:g} s") from None

    async def _take(self, key: Key, sending: object) -> None:
        try:
            await sending  # type: ignore[misc]
        except ReportRefused as exc:
            self._meters.reported("refused")
            if self._refused.get(key) != str(exc):
                self._refused[key] = str(exc)
                self._host.log.warning("a report of device %s/%s is refused: %s", *key, exc)
        else:
            self._meters.reported("taken")
            self._refused.pop(key, None)

    def _put_back(self, key: Key, slot: _Slot) -> None:
        newer = self._waiting.get(key)
        if newer is not None:
            slot.readings.update(newer.readings)
            slot.state = newer.state or slot.state
        self._waiting[key] = slot
