"""The store on a disk in memory keeps the contract."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edgesite.net.real import RealClock, RealThreads
from edgesite.store import Store
from edgesite.testing.simulator.disk import Disk, SimDisk
from edgesite.testing.store import CONTRACT_LIMITS, StoreContract


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(random.Random(1), lambda: 0.0)
    yield disk
    disk.close()


@pytest.fixture
async def store(disk: Disk) -> AsyncIterator[Store]:
    threads = RealThreads()
    async with await Store.open(
        Path("/state.db"), clock=RealClock(), threads=threads, disk=SimDisk(disk), limits=CONTRACT_LIMITS
    ) as store:
        yield store
    await threads.close()


class TestStore(StoreContract):
    """All of it."""
