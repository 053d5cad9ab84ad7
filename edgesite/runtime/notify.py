"""Tells systemd how the process is: ready, reloading, stopping, alive. Without systemd nothing is sent.

READY=1 goes out when every module has been ready, or after `PATIENCE_S` with what serves by then: one broken plugin, or a
cloud that does not answer, shall not keep systemd from calling the site started. STATUS= says what is missing. WATCHDOG=1 is
sent by the event loop itself, at half the interval, and only while no liveness check fails and no module has been left by its
supervisor. When systemd then aborts the process, the stacks of all threads go to the log.

Units   Seconds; systemd's own are microseconds.
Source  sd_notify(3), sd_watchdog_enabled(3), systemd.service(5).
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from edgesite.runtime.supervisor import ModuleState

if TYPE_CHECKING:
    from edgesite.context import Clock
    from edgesite.runtime.role import RoleHost

__all__ = ["PATIENCE_S", "Notifier", "Systemd", "follow", "status", "why_unwell"]

logger = logging.getLogger(__name__)
PATIENCE_S: Final = 60.0  #: units give more: TimeoutStartSec=180
_LOOK_S: Final = 15.0  #: how often the status is looked at where there is no watchdog
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Systemd:
    """What systemd asks of this process: where to send, and the watchdog's interval (0: none)."""

    address: str = ""
    watchdog_s: float = 0.0

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Systemd:
        """Read and remove the variables, so that no program that this one starts speaks in its name."""
        address = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        usable = address.startswith(("/", "@"))
        microseconds = int(interval) if interval.isdigit() and watched == str(os.getpid()) and usable else 0
        return cls(address if usable else "", microseconds / 1e6)


class Notifier:
    """Sends to systemd's socket; never waits, and losing a message is no failure."""

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, **fields: object) -> None:
        """``send(READY=1, STATUS="…")``."""
        if self._socket is None:
            return
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode(errors="backslashreplace"), self._address)

    def reloading(self) -> None:
        self.send(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


async def follow(roles: Sequence[RoleHost], systemd: Systemd, notifier: Notifier, clock: Clock) -> None:
    """Report until cancelled."""
    if not systemd.address:
        return
    if systemd.watchdog_s and not faulthandler.is_enabled():
        faulthandler.enable()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_say_ready, roles, notifier)
        tasks.start_soon(_say_alive, roles, systemd, notifier, clock)


async def _say_ready(roles: Sequence[RoleHost], notifier: Notifier) -> None:
    notifier.send(STATUS="starting")
    with anyio.move_on_after(PATIENCE_S):
        for role in roles:
            await role.ready.wait()
    notifier.send(READY=1, STATUS=status(roles))


async def _say_alive(roles: Sequence[RoleHost], systemd: Systemd, notifier: Notifier, clock: Clock) -> None:
    told, complaint = "", ""
    while True:
        await clock.sleep(systemd.watchdog_s / 2 or _LOOK_S)
        if (unwell := why_unwell(roles)) is None:
            notifier.send(WATCHDOG=1)
        elif unwell != complaint:
            logger.error("systemd is not told that this process is alive: %s", unwell)
        complaint = unwell or ""
        if (text := status(roles)) != told:
            notifier.send(STATUS=text)
            told = text


def why_unwell(roles: Sequence[RoleHost]) -> str | None:
    """Why the process should be restarted as a whole; None when it should not."""
    for role in roles:
        for name, why in role.health.report("live"):
            if why is not None:
                return f"{name}: {why}"
        for one in role.running:
            if one.state is ModuleState.STOPPED:
                return f"{one.module.name} was left by its supervisor"
    return None


def status(roles: Sequence[RoleHost]) -> str:
    """One line for ``systemctl status``."""
    names = " and ".join(
        f"edge role of node {role.node_name}" if role.node_name else "cloud role" for role in roles[:3]
    )
    if len(roles) > 3:
        names = f"{names} and {len(roles) - 3} more"
    running = [one for role in roles for one in role.running]
    missing = [f"{one.module.name} ({one.state})" for one in running if one.problem() is not None]
    if not missing:
        return f"{names}: {len(running)} modules ready"
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    return f"{names}: {len(running) - len(missing)} of {len(running)} modules ready; not {', '.join(missing[:_MOST_NAMED])}{more}"
