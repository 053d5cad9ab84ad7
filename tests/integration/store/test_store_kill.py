"""kill -9 under write load: nothing acknowledged is lost, revisions go on, a watch resumes without a gap."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from edgesite.net.real import RealClock, RealDisk, RealThreads
from edgesite.store import Store

pytestmark = pytest.mark.anyio
WRITER = Path(__file__).with_name("store_writer.py")
ROUNDS = 5
LINES = 400  #: before the kill


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Said(NamedTuple):
    """One line of the writer."""

    kind: str
    revision: int
    key: str
    there: bool


def run_until_killed(path: Path) -> list[Said]:
    """Let the writer run for some hundred lines; return what it said, a torn last line left out."""
    with subprocess.Popen([sys.executable, str(WRITER), str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        deadline = time.monotonic() + 30
        lines = [line for _, line in zip(range(LINES), writer.stdout, strict=False) if time.monotonic() < deadline]
        writer.kill()
        lines += writer.stdout.readlines()
    said = [line.decode().split() for line in lines if line.endswith(b"\n")]
    return [Said(kind, int(revision), key, there == "True") for kind, revision, key, there in said]


async def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    known: dict[str, Said] = {}
    newest = 0
    for _ in range(ROUNDS):
        said = run_until_killed(path)
        assert said[0].kind == "R"
        assert said[0].revision >= newest, "revisions ran backwards over a crash"
        events = [one.revision for one in said if one.kind == "E"]
        assert events == sorted(set(events)), "a watch repeated or reordered events"
        missed = {one.revision for one in said if one.kind == "A" and one.revision < events[-1]} - set(events)
        assert not missed, "a watch missed what was acknowledged"
        for one in said[1:]:  # an event is as good as an acknowledgement: nobody may see what a crash can undo
            newest = max(newest, one.revision)
            if one.key not in known or one.revision >= known[one.key].revision:
                known[one.key] = one
        await check(path, known, events[-1])


async def check(path: Path, known: dict[str, Said], last_event: int) -> None:
    """Look at what the killed program has left."""
    threads = RealThreads()
    async with await Store.open(path, clock=RealClock(), threads=threads, disk=RealDisk()) as store:
        later = {event.row.key for event in store.watch("/pods/", after=last_event).take()}
        for key, one in known.items():
            row = store.get(key)
            if key.startswith("/leases/"):
                assert row is not None
            elif key not in later:
                assert (row is not None) == one.there
                assert row is None or row.revision == one.revision
    await threads.close()
