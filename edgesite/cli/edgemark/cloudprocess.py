"""A cloud role for a run: a process of its own on free ports, with its state in a folder that goes with it.

Errors  RuntimeError with the end of its log when it does not come up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from edgesite.context import Clock

__all__ = ["CloudProcess", "cloud_process"]

_UP_S: Final = 60.0
_STOP_S: Final = 20.0


@dataclass(slots=True)
class CloudProcess:
    """``start`` again after ``kill``: on what it left."""

    folder: Path
    nodes: int
    api_port: int
    hub_port: int
    ports: tuple[int, int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    def start(self) -> None:
        module = [] if getattr(sys, "frozen", False) else ["-m", "edgesite.cli"]
        where = ["--data-dir", str(self.folder), "--api-address", f"127.0.0.1:{self.api_port}"]
        ports = ["--hub-port", str(self.hub_port), "--bootstrap-port", str(self.ports[0])]
        ports += ["--tunnel-port", str(self.ports[1]), "--advertise-address", "127.0.0.1"]
        limit = ["--set", f"modules.cloudHub.nodeLimit={self.nodes + 100}"]
        with (self.folder / "cloud.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *module, "cloud", *where, *ports, *limit],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def up(self, clock: Clock) -> None:
        """Wait until edges can connect. Raises RuntimeError."""
        with anyio.move_on_after(_UP_S):
            while self.process is not None and self.process.poll() is None:
                if self.kubeconfig.exists() and _answers(self.hub_port):
                    return
                await clock.sleep(0.05)
        raise RuntimeError(f"the cloud role did not come up:\n{self.log_end()}")

    def log_end(self) -> str:
        return "\n".join((self.folder / "cloud.log").read_text("utf-8", "replace").splitlines()[-10:])

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_S)
        self.kill()


@asynccontextmanager
async def cloud_process(clock: Clock, nodes: int) -> AsyncIterator[CloudProcess]:
    """Run one until the block ends. Raises RuntimeError."""
    with tempfile.TemporaryDirectory(prefix="edgemark-", dir=os.environ.get("EDGEMARK_DIR")) as folder:
        api, hub, *others = _free_ports(4)
        cloud = CloudProcess(Path(folder), nodes, api, hub, (others[0], others[1]))
        cloud.start()
        try:
            await cloud.up(clock)
            yield cloud
        finally:
            cloud.stop()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
