"""Edged on a fake runtime and a fake metamanager."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesite.edge.edged.volumes.host import unmount


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_stays_mounted(tmp_path: Path) -> Iterator[None]:
    """Pods that a test leaves running leave their tmpfs volumes, as they should; here they go with the test."""
    yield
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split(" ")[4]
        if target.startswith(f"{tmp_path}/"):
            unmount(Path(target))
