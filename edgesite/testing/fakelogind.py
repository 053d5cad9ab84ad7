"""A D-Bus daemon of one's own with a logind that shuts nothing down: for tests of what edged does when the host goes.

    async with fake_logind(tmp_path) as host:       # host.address is what DBUS_SYSTEM_BUS_ADDRESS is to be
        await host.held.wait()                      # somebody holds the lock
        await host.prepare(True); await host.released.wait()

Needs ``dbus-daemon``.

Errors  RuntimeError when the daemon does not come up.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from jeepney import DBusAddress, Message, MessageType, new_method_return, new_signal

from edgesite.edge.edged.shutdown.dbus import BUS, Bus, connect, field
from edgesite.edge.edged.shutdown.logind import MANAGER, PATH, SERVICE

__all__ = ["FakeLogind", "fake_logind"]

_CONFIG: Final = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy>
</busconfig>
"""


class FakeLogind:
    """Made by `fake_logind`. ``delay_s`` is the longest delay; what KillUnit makes it read is in the file ``config``."""

    def __init__(self, bus: Bus, socket: Path, config: Path) -> None:
        self._bus, self._config = bus, config
        self.address = f"unix:path={socket}"
        self.delay_s = 5.0
        self.asked: list[tuple[Any, ...]] = []  #: what came with each Inhibit
        self.held, self.released = anyio.Event(), anyio.Event()

    async def prepare(self, shutting_down: bool) -> None:
        """Say that the host is about to shut down, or is not any more."""
        self.released = anyio.Event()
        emitter = DBusAddress(PATH, interface=MANAGER)
        await self._bus.send(new_signal(emitter, "PrepareForShutdown", "b", (shutting_down,)))

    async def serve(self) -> None:
        async with anyio.create_task_group() as tasks:
            for name in (SERVICE, "org.freedesktop.systemd1"):
                await self._bus.call(*BUS, "RequestName", "su", (name, 0))
            while True:
                message = await self._bus.receive()
                if message.header.message_type is MessageType.method_call:
                    await self._answer(message, tasks)

    async def _answer(self, message: Message, tasks: Any) -> None:
        signature: str | None = None
        body: tuple[Any, ...] = ()
        member = field(message, "member")
        if member == "Inhibit":
            self.asked.append(message.body)
            ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signature, body = "h", (theirs,)
            tasks.start_soon(self._until_released, ours)
        elif member == "Get":
            signature, body = "v", (("t", int(self.delay_s * 1e6)),)
        elif member == "KillUnit":
            self.delay_s = float(self._config.read_text().rpartition("=")[2])
        await self._bus.send(new_method_return(message, signature, body))
        if member == "Inhibit":
            os.close(body[0])
            self.held.set()

    async def _until_released(self, ours: int) -> None:
        try:
            await anyio.wait_readable(ours)  # the other end is closed: nobody writes to it
            self.released.set()
        finally:
            os.close(ours)


@asynccontextmanager
async def fake_logind(path: Path) -> AsyncGenerator[FakeLogind]:
    """Run a bus below ``path`` with a logind on it. Raises RuntimeError."""
    socket, config = path / "bus", path / "logind.conf.d" / "edgesite.conf"
    (path / "bus.conf").write_text(_CONFIG.format(path=socket))
    daemon = await anyio.to_thread.run_sync(_start, path / "bus.conf")
    try:
        async with connect(str(socket)) as bus, anyio.create_task_group() as tasks:
            made = FakeLogind(bus, socket, config)
            tasks.start_soon(made.serve)
            yield made
            tasks.cancel_scope.cancel()
    finally:
        with daemon:
            daemon.terminate()


def _start(config: Path) -> subprocess.Popen[bytes]:
    """Run the daemon and wait until it listens. Raises RuntimeError."""
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address=1"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    if not daemon.stdout.readline():
        with daemon:
            daemon.terminate()
        raise RuntimeError("dbus-daemon does not come up")
    return daemon
