"""The store's file by itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from edgesite.store.log import Version, open_log
from edgesite.testing.simulator.disk import Disk, SimDisk

PATH = Path("/state.db")


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(random.Random(1), lambda: 0.0)
    yield disk
    disk.close()


def version(slot: int, size: int) -> Version:
    return Version(slot, 100 + slot, f"/pods/{slot}", 0, 100 + slot, 0, bytes(size))


def test_a_checkpoint_that_fails_after_a_commit_does_not_undo_it(disk: Disk) -> None:
    owner = SimDisk(disk)
    log, _ = open_log(owner, PATH)
    log._db.execute("PRAGMA wal_autocheckpoint=1")
    log.append([version(1, 40_000)], {})
    disk.full = True  # the write-ahead log has room, the file would have to grow
    log.append([version(2, 20_000)], {"reserved": 500})
    with pytest.raises(apsw.FullError):
        log.append([version(3, 90_000)], {})
    owner.die()
    disk.power_cut()
    disk.mend()
    _, contents = open_log(SimDisk(disk), PATH)
    assert [one.slot for one in contents.versions] == [1, 2]
    assert contents.reserved == 500


def test_a_failed_transaction_leaves_nothing(disk: Disk) -> None:
    owner = SimDisk(disk)
    log, _ = open_log(owner, PATH)
    log.append([version(1, 100)], {})
    disk.broken = True
    with pytest.raises(apsw.IOError):
        log.append([version(1, 100)._replace(revision=200), version(2, 100)], {})
    disk.mend()
    log.append([version(3, 100)], {}, erase=[1])
    log.close()
    _, contents = open_log(owner, PATH)
    assert [(one.slot, one.revision) for one in contents.versions] == [(3, 103)]
