"""Helpers of these tests: a process runtime on a directory, and a short way to run programs in one sandbox of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio

from edgesite.edge.edged.faults import RuntimeUnavailable
from edgesite.edge.edged.process.runtime import ProcessRuntime
from edgesite.edge.edged.runtime import ContainerStatus, SandboxConfig
from edgesite.net.real import RealClock, RealNet, RealThreads
from edgesite.testing.runtime import container_config, ended, running, sandbox_config, start

OpenProcess = Callable[[], AbstractAsyncContextManager[ProcessRuntime]]


@asynccontextmanager
async def process_runtime(root: Path, net: RealNet | None = None) -> AsyncGenerator[ProcessRuntime]:
    threads = RealThreads()
    runtime = ProcessRuntime(
        root,
        net=net or RealNet(),
        clock=RealClock(),
        threads=threads,
        random=random.Random(),
        address=lambda: "192.0.2.7",
    )
    try:
        async with running(runtime):
            yield runtime
    finally:
        await threads.close()


@dataclass
class Site:
    """One sandbox of a runtime."""

    runtime: ProcessRuntime
    sandbox_id: str
    sandbox: SandboxConfig
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def begin(self, script: str, **more: Any) -> str:
        """Start a shell script; return the container's id."""
        config = container_config("host", ("/bin/sh", "-c", script), attempt=next(self.numbers))
        return await start(self.runtime, (self.sandbox_id, self.sandbox), replace(config, **more))

    async def finish(self, script: str, **more: Any) -> tuple[ContainerStatus, str]:
        """Run a shell script to its end; return its status and what it printed."""
        container_id = await self.begin(script, **more)
        status = await ended(self.runtime, container_id)
        return status, self.output(status)

    def output(self, status: ContainerStatus) -> str:
        lines = Path(status.log_path).read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)


async def make_site(runtime: ProcessRuntime, directory: Path) -> Site:
    config = sandbox_config(directory)
    return Site(runtime, await runtime.run_sandbox(config), config)


@asynccontextmanager
async def site_of(runtime: ProcessRuntime, directory: Path) -> AsyncGenerator[Site]:
    """A site that is removed in the end."""
    made = await make_site(runtime, directory)
    yield made
    with anyio.fail_after(60):
        await _stop(runtime, made.sandbox_id)
    await runtime.remove_sandbox(made.sandbox_id)


async def _stop(runtime: ProcessRuntime, sandbox_id: str) -> None:
    """Stop it as edged does: again while the supervisor, which a test may just have killed, is not back."""
    while True:
        try:
            await runtime.stop_sandbox(sandbox_id)
        except RuntimeUnavailable:
            await anyio.sleep(0.02)
        else:
            return
