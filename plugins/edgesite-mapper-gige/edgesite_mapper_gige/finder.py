"""Looks for cameras on the networks of this host, once for all devices that wait for theirs.

Looking takes Aravis a second, and its list is one for the process: devices that look at the same time share what is found, for `FRESH_S`.

Errors  DriverError.
State   One `Finder` in ``host.shared``, gone with its last user: the newest list, by serial number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from edgesite.mapper import DriverError
from edgesite_mapper_gige.aravis import load

if TYPE_CHECKING:
    from edgesite.mapper import Host

__all__ = ["Finder"]

FRESH_S: Final = 2.0
PROTOCOL: Final = "GigEVision"
_KEY: Final = "edgesite_mapper_gige.finder"


class Finder:
    def __init__(self, host: Host) -> None:
        self._host = host
        self._turn = anyio.Lock()
        self._users = 0
        self._found: dict[str, str] = {}
        self._found_at: float | None = None
        self.aravis: Any = None
        self.glib: Any = None

    @classmethod
    def of(cls, host: Host) -> Finder:
        """Return the finder, made if nobody uses it yet; give it back by `release`."""
        finder: Finder | None = host.shared.get(_KEY)
        if finder is None:
            finder = host.shared[_KEY] = cls(host)
        finder._users += 1
        return finder

    def release(self) -> None:
        self._users -= 1
        if self._users <= 0:
            self._host.shared.pop(_KEY, None)

    async def prepare(self) -> None:
        """Load Aravis. Raises DriverError."""
        async with self._turn:
            if self.aravis is None:
                self.aravis, self.glib = await self._host.threads.run(load)

    async def find(self, serial: str) -> str:
        """Return Aravis' id of the camera. Raises DriverError, which names the cameras that there are."""
        async with self._turn:
            now = self._host.clock.monotonic()
            if self._found_at is None or now - self._found_at > FRESH_S:
                self._found = await self._host.threads.run(self._look)
                self._found_at = self._host.clock.monotonic()
            found = self._found.get(serial)
        if found is None:
            others = ", ".join(sorted(self._found)[:20]) or "none"
            raise DriverError(f"no camera has serial number {serial}; there are: {others}")
        return found

    def _look(self) -> dict[str, str]:
        aravis = self.aravis
        aravis.update_device_list()
        return {
            str(aravis.get_device_serial_nbr(at)): str(aravis.get_device_id(at))
            for at in range(aravis.get_n_devices())
            if aravis.get_device_protocol(at) == PROTOCOL
        }
