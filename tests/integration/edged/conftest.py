"""One containerd for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
from edged_site import clean_rig

from edgesite.testing.containerd import Containerd, containerd
from edgesite.testing.edgedrig import Rig


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def daemon() -> Iterator[Containerd]:
    with containerd() as started:
        yield started


@pytest.fixture
async def rig(daemon: Containerd, tmp_path: Path) -> AsyncGenerator[Rig]:
    async with clean_rig(daemon, tmp_path) as started:
        yield started
