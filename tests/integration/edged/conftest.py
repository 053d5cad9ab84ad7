"""One containerd for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgesite.testing.containerd import Containerd, containerd


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def daemon() -> Iterator[Containerd]:
    with containerd() as started:
        yield started
