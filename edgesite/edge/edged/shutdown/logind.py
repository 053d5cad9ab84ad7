"""systemd-logind: holds a shutdown of the host up until pods have ended, and tells of it.

Units   Seconds.
Errors  BusError (OSError): no bus, no logind, or it refuses.
State   The lock, which is an open descriptor; a file of logind's configuration, where its longest delay is too short.
Source  org.freedesktop.login1(5): Inhibit, InhibitDelayMaxUSec, PrepareForShutdown; logind.conf(5): InhibitDelayMaxSec.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jeepney import MessageType

from edgesite.edge.edged.shutdown.dbus import BUS, Bus, BusError, connect, field

if TYPE_CHECKING:
    from jeepney.fds import FileDescriptor

__all__ = ["Logind", "logind"]

SERVICE: Final = "org.freedesktop.login1"
PATH: Final = "/org/freedesktop/login1"
MANAGER: Final = "org.freedesktop.login1.Manager"
_MATCH: Final = f"type='signal',interface='{MANAGER}',member='PrepareForShutdown',path='{PATH}'"


class Logind:
    """Made by `logind`."""

    def __init__(self, bus: Bus, log: logging.Logger | logging.LoggerAdapter[logging.Logger], config: Path) -> None:
        self._bus, self._log, self._config = bus, log, config
        self._lock: FileDescriptor | None = None

    async def listen(self) -> None:
        """Ask to be told of shutdowns. Raises BusError."""
        await self._bus.call(*BUS, "AddMatch", "s", (_MATCH,))

    async def longest_delay_s(self, wanted_s: float) -> float:
        """Return for how long a shutdown can be held up; raise that to ``wanted_s`` where it is less. Raises BusError."""
        delay_s = await self._delay_s()
        if delay_s >= wanted_s:
            return delay_s
        try:
            self._config.parent.mkdir(parents=True, exist_ok=True)
            self._config.write_text(f"[Login]\nInhibitDelayMaxSec={math.ceil(wanted_s)}\n")
            manager = "org.freedesktop.systemd1"
            body = ("systemd-logind.service", "all", int(signal.SIGHUP))
            await self._bus.call(manager, "/org/freedesktop/systemd1", f"{manager}.Manager", "KillUnit", "ssi", body)
            delay_s = await self._delay_s()
        except OSError as exc:
            self._log.warning("logind's longest delay of %g s cannot be raised: %s", delay_s, exc)
        return delay_s

    async def _delay_s(self) -> float:
        properties = "org.freedesktop.DBus.Properties"
        answer = await self._bus.call(SERVICE, PATH, properties, "Get", "ss", (MANAGER, "InhibitDelayMaxUSec"))
        (_, micros), *_ = answer.body
        return float(micros) / 1e6

    async def hold(self) -> None:
        """Take the lock. Raises BusError."""
        self.release()
        why = ("shutdown", "edgesite", "Pods are ended in order", "delay")
        answer = await self._bus.call(SERVICE, PATH, MANAGER, "Inhibit", "ssss", why)
        if not answer.body:
            raise BusError("logind gave no lock")
        self._lock = answer.body[0]

    def release(self) -> None:
        """Let the shutdown go on."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.close()
            self._lock = None

    async def prepared(self) -> bool:
        """Wait for news: True when the host is about to shut down, False when it is not any more. Raises BusError."""
        while True:
            message = await self._bus.receive()
            is_signal = message.header.message_type is MessageType.signal
            if is_signal and field(message, "member") == "PrepareForShutdown" and message.body:
                return bool(message.body[0])


@asynccontextmanager
async def logind(
    address: str, log: logging.Logger | logging.LoggerAdapter[logging.Logger], config: Path
) -> AsyncGenerator[Logind]:
    """Connect through the bus at ``address``; the lock ends with the block. Raises BusError."""
    async with connect(address) as bus:
        made = Logind(bus, log, config)
        try:
            await made.listen()
            yield made
        finally:
            made.release()
