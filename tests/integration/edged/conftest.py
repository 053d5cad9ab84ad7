"""One containerd for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import anyio
import pytest
from edged_site import clean_rig

from edgesite.edge.edged.cri.runtime import CriRuntime
from edgesite.testing.containerd import Containerd, containerd
from edgesite.testing.edgedrig import Rig
from edgesite.testing.runtime import running


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def daemon() -> Iterator[Containerd]:
    with containerd() as started:
        yield started


@pytest.fixture(autouse=True)
def nothing_of_failed_tests(request: pytest.FixtureRequest) -> None:
    """What a test that failed has left would fail all that come after it."""
    if request.session.testsfailed:
        anyio.run(_remove_all, request.getfixturevalue("daemon"))


async def _remove_all(daemon: Containerd) -> None:
    async with running(CriRuntime(daemon.endpoint, "", request_timeout_s=30.0)) as runtime:
        for one in await runtime.list_sandboxes():
            await runtime.stop_sandbox(one.id)
            await runtime.remove_sandbox(one.id)


@pytest.fixture
async def rig(daemon: Containerd, tmp_path: Path) -> AsyncGenerator[Rig]:
    async with clean_rig(daemon, tmp_path) as started:
        yield started
