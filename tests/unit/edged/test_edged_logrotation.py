"""Rotation of logs: names, number, packing, a runtime that refuses, followers."""

from __future__ import annotations

import gzip
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from edged_machine import running_container

from edgesite.edge.edged.logrotation import LogRotation, log_files, move_away, tidy
from edgesite.edge.edged.pod import Pod
from edgesite.edge.edged.runtime import RuntimeFault
from edgesite.edge.edged.state import PodState, Seen
from edgesite.net.real import RealClock, RealThreads

pytestmark = pytest.mark.anyio
NOW = 1_800_000_000.0


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_what_was_moved_away_is_packed_and_the_oldest_removed(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    for number in range(6):
        log.write_text(f"round {number}\n")
        tidy(log, 4)
        move_away(log, NOW + 60 * number)
    log.write_text("now\n")
    assert names(tmp_path) == [
        "0.log",
        "0.log.20270115-080300.gz",
        "0.log.20270115-080400.gz",
        "0.log.20270115-080500",
    ]
    assert gzip.decompress((tmp_path / "0.log.20270115-080400.gz").read_bytes()) == b"round 4\n"
    assert [one.name for one in log_files(log)] == [*names(tmp_path)[1:], "0.log"]


def test_two_in_one_second_and_a_clock_set_back_keep_both(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    for text in ("a", "b"):
        log.write_text(text)
        move_away(log, NOW)
    assert names(tmp_path) == ["0.log.20270115-080000", "0.log.20270115-080001"]


def test_what_a_crash_left_half_packed_is_packed_again(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    (tmp_path / "0.log.20270115-080000").write_text("old\n")
    (tmp_path / "0.log.20270115-080000.tmp").write_text("hal")
    tidy(log, 5)
    assert names(tmp_path) == ["0.log.20270115-080000.gz"]
    tidy(log, 2)
    assert names(tmp_path) == []


@dataclass
class Reopening:
    """What the rotation asks of a runtime."""

    fails: bool = False
    asked: list[str] = field(default_factory=list)

    async def reopen_log(self, container_id: str) -> None:
        self.asked.append(container_id)
        if self.fails:
            raise RuntimeFault("not now")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_large_log_is_rotated_or_left_as_it_was(tmp_path: Path, fails: bool) -> None:
    state = PodState(Pod({"metadata": {"name": "web", "uid": "u1"}}))
    for name, text in (("large", "x" * 200), ("small", "y"), ("absent", "")):
        if text:
            (tmp_path / f"{name}.log").write_text(text)
        status = running_container(name, log_path=str(tmp_path / f"{name}.log"))
        state.containers[status.id] = Seen(status, "s1")
    runtime: Any = Reopening(fails)
    threads = RealThreads()
    rotation = LogRotation(
        runtime, RealClock(), threads, logging.getLogger("t"), lambda: [state], max_bytes=100, max_files=5
    )
    await rotation.look()
    await threads.close()
    assert runtime.asked == ["id-of-large"]
    assert "small.log" in names(tmp_path)
    assert ("large.log" in names(tmp_path)) is fails
    assert len(names(tmp_path)) == 2
