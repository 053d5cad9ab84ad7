"""A running process runtime with one sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from process_site import OpenProcess, Site, process_runtime, site_of


@pytest.fixture
def open_process(tmp_path: Path) -> OpenProcess:
    return lambda: process_runtime(tmp_path / "process")


@pytest.fixture
async def site(open_process: OpenProcess, tmp_path: Path) -> AsyncGenerator[Site]:
    async with open_process() as runtime, site_of(runtime, tmp_path) as made:
        yield made
