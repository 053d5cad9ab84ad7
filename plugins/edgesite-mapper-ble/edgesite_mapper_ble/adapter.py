"""The Bluetooth adapter that peripherals are reached through: any number may be looked for at once, but only one connected to at a time.

BlueZ refuses a connection while another is being made. Looking needs no turn: a peripheral that is away holds up no other.

Errors  DriverError.
State   One `Adapter` for each adapter's name in ``host.shared``, gone with its last user.
Source  BlueZ's D-Bus API (doc/org.bluez.Adapter.rst, org.bluez.Device.rst).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from bleak import BleakClient, BleakScanner
from bleak.exc import BleakError
from dbus_fast.errors import DBusError

from edgesite.mapper import DriverError

if TYPE_CHECKING:
    from edgesite.mapper import Host

__all__ = ["Adapter", "attempt"]

T = TypeVar("T")


class Adapter:
    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self._host = host
        self._turn = anyio.Lock()
        self._users = 0

    @classmethod
    def of(cls, host: Host, name: str) -> Adapter:
        """Return the adapter's object, made if nobody uses it yet; give it back by `release`."""
        adapter = host.shared.get((cls, name))
        if adapter is None:
            adapter = host.shared[(cls, name)] = cls(name, host)
        adapter._users += 1
        return adapter

    def release(self) -> None:
        self._users -= 1
        if self._users <= 0:
            self._host.shared.pop((Adapter, self.name), None)

    async def connect(self, address: str, timeout_s: float, on_loss: Callable[[], None]) -> BleakClient:
        """Look for a peripheral and connect to it. Raises DriverError."""
        chosen: Any = {"bluez": {"adapter": self.name}} if self.name else {}
        found = await attempt(address, BleakScanner.find_device_by_address(address, timeout_s, **chosen))
        if found is None:
            raise DriverError(f"{address} is not to be seen")
        client = BleakClient(found, disconnected_callback=lambda _: on_loss(), timeout=timeout_s, **chosen)
        async with self._turn:
            await attempt(address, client.connect())
        return client


async def attempt(address: str, call: Awaitable[T]) -> T:
    """Return what comes of something that is done by radio. Raises DriverError."""
    try:
        return await call
    except TimeoutError as exc:
        raise DriverError(f"{address} does not answer in time") from exc
    except (BleakError, DBusError, OSError, EOFError) as exc:
        raise DriverError(f"{address}: {_reason(exc)}") from exc


def _reason(exc: BaseException) -> str:
    texts = [one for one in exc.args if isinstance(one, str) and one]  # some errors have a code before it
    return texts[-1].partition("\n")[0][:200] if texts else str(exc)[:200] or type(exc).__name__
