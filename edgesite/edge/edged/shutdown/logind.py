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
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from edgesite.edge.edged.shutdown.dbus import SIGNAL, Bus, BusError, connect

__all__ = ["Logind", "logind"]

SERVICE: Final = "org.freedesktop.login1"
PATH: Final = "/org/freedesktop/login1"
MANAGER: Final = "org.freedesktop.login1.Manager"
CONFIG: Final = Path("/etc/systemd/logind.conf.d/99-edgesite.conf")
_MATCH: Final = f"type='signal',interface='{MANAGER}',member='PrepareForShutdown',path='{PATH}'"


class Logind:
    """Made by `logind`."""

    def __init__(self, bus: Bus, log: logging.Logger | logging.LoggerAdapter[logging.Logger], config: Path) -> None:
        self._bus, self._log, self._config = bus, log, config
        self._lock = -1

    async def listen(self) -> None:
        """Ask to be told of shutdowns. Raises BusError."""
        bus = "org.freedesktop.DBus"
        await self._bus.call(bus, "/org/freedesktop/DBus", bus, "AddMatch", "s", (_MATCH,))

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
        return float(answer.body[0]) / 1e6 if answer.body else 0.0

    async def hold(self) -> None:
        """Take the lock. Raises BusError."""
        self.release()
        why = ("shutdown", "edgesite", "Pods are ended in order", "delay")
        answer = await self._bus.call(SERVICE, PATH, MANAGER, "Inhibit", "ssss", why)
        if not answer.fds:
            raise BusError("logind gave no lock")
        self._lock, *others = answer.fds
        for fd in others:
            os.close(fd)

    def release(self) -> None:
        """Let the shutdown go on."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                os.close(self._lock)
            self._lock = -1

    async def prepared(self) -> bool:
        """Wait for news: True when the host is about to shut down, False when it is not any more. Raises BusError."""
        while True:
            message = await self._bus.receive()
            if message.type == SIGNAL and message.member == "PrepareForShutdown" and message.body:
                return bool(message.body[0])


@asynccontextmanager
async def logind(
    address: str, log: logging.Logger | logging.LoggerAdapter[logging.Logger], config: Path = CONFIG
) -> AsyncGenerator[Logind]:
    """Connect through the bus at ``address``; the lock ends with the block. Raises BusError."""
    async with connect(address) as bus:
        made = Logind(bus, log, config)
        try:
            await made.listen()
            yield made
        finally:
            made.release()
