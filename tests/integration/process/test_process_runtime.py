"""The process runtime keeps the contract of runtimes, with real processes."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgesite.edge.edged.process.runtime import ProcessRuntime
from edgesite.edge.edged.runtime import Runtime
from edgesite.net.real import RealClock, RealNet, RealThreads
from edgesite.testing.runtime import OpenRuntime, RuntimeContract, running

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def process_runtime(root: Path) -> AsyncGenerator[Runtime]:
    threads = RealThreads()
    try:
        runtime = ProcessRuntime(
            root, net=RealNet(), clock=RealClock(), threads=threads, random=random.Random(), address=lambda: "192.0.2.7"
        )
        async with running(runtime):
            yield runtime
    finally:
        await threads.close()


class TestProcess(RuntimeContract):
    @pytest.fixture
    def open_runtime(self, tmp_path: Path) -> OpenRuntime:
        return lambda: process_runtime(tmp_path / "process")
