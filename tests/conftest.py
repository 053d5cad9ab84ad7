"""Shared by all tests: anyio runs on asyncio; hypothesis finds new examples here and repeats the same ones in CI; nothing may be left."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parent))
from leftovers import MARK, left_over, remove

END_S = 20.0  #: what ends by itself has this long

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure() -> None:
    """A shell starts what it leaves in the background with SIGINT ignored, and so would be all programs that tests then interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After all tests and fixtures, no process, mount or network namespace of theirs may be there: it would be in the way of the next."""
    folder = tmp_path_factory.getbasetemp()
    os.environ[MARK] = str(folder)
    yield
    deadline = time.monotonic() + END_S
    while (left := left_over(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    remove(folder)
    assert not left, "\n".join(["left behind:", *left])
