"""The API server's certificates over boots of a machine whose clock is not set, wrong, and set again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgesite.apiserver.credentials import Credentials, load_or_make
from edgesite.net import pem
from edgesite.net.pki import RealPki
from edgesite.net.real import RealClock

pytestmark = pytest.mark.anyio
YEARS = 365.25 * 86400.0


class At(RealClock):
    """A clock that stands still."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


async def boot(folder: Path, now: float) -> Credentials:
    return await load_or_make(folder, ["localhost"], RealPki(At(now)), now)


def serve_at(made: Credentials, now: float) -> bool:
    return all(
        pem.facts(one.certificate).not_before <= now < pem.facts(one.certificate).not_after
        for one in (made.ca, made.server, made.admin)
    )


@pytest.mark.parametrize("first", [180.0, time.time(), time.time() + 10 * YEARS], ids=["1970", "right", "2036"])
async def test_what_a_wrong_clock_has_made_serves_once_it_is_right(tmp_path: Path, first: float) -> None:
    now = time.time()
    made = await boot(tmp_path, first)
    assert serve_at(made, first)
    assert await boot(tmp_path, first) == made
    right = await boot(tmp_path, now)
    assert serve_at(right, now)
    if first <= now:
        assert right.ca == made.ca, "others know it"
    assert await boot(tmp_path, 180.0) == right, "a clock that is not set judges nothing"
    ahead = await boot(tmp_path, now + 10 * YEARS)
    assert ahead.ca == right.ca
    again = await boot(tmp_path, now)
    assert serve_at(again, now)
    assert again.ca == right.ca
