"""Certificates that a power cut left in pieces are made anew, and never stop the API server."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from edgesite.apiserver.credentials import load_or_make
from edgesite.net.real import RealClock
from edgesite.net.tls import server_context
from edgesite.testing.simulator.pki import SimPki

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("torn", ["apiserver.key", "apiserver.crt", "admin.crt", "admin.key"])
@pytest.mark.parametrize("left", ["", "half", "another's", None])
async def test_a_torn_pair_is_made_anew(tmp_path: Path, torn: str, left: str | None) -> None:
    pki = SimPki(random.Random(1), RealClock())
    first = await load_or_make(tmp_path / "a", ["localhost"], pki, time.time())
    await load_or_make(tmp_path / "b", ["localhost"], pki, time.time())
    path = tmp_path / "a" / torn
    content = path.read_bytes()
    if left is None:
        path.unlink()
    else:
        replacement = {"": b"", "half": content[: len(content) // 2], "another's": (tmp_path / "b" / torn).read_bytes()}
        path.write_bytes(replacement[left])
    again = await load_or_make(tmp_path / "a", ["localhost"], pki, time.time())
    assert again.ca == first.ca
    for pair in (again.server, again.admin):
        server_context(pair.certificate, pair.key)
    assert await load_or_make(tmp_path / "a", ["localhost"], pki, time.time()) == again
