"""Edged on a fake runtime and a fake metamanager."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
