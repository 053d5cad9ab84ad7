"""What a simulated disk keeps and loses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from edgesite.testing.simulator.disk import Disk, SimDisk

PATH = Path("/data/test.db")


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(random.Random(7), lambda: 1e9)
    yield disk
    disk.close()


def written(owner: SimDisk, rows: int) -> apsw.Connection:
    connection = owner.connect(PATH)
    connection.execute("CREATE TABLE IF NOT EXISTS t(x)")
    for number in range(rows):
        connection.execute("INSERT INTO t VALUES (?)", (number,))
    return connection


def count(disk: Disk) -> int:
    owner = SimDisk(disk)
    connection = owner.connect(PATH)
    number = connection.execute("SELECT count(*) FROM t").get
    owner.die()
    return int(number)


def test_what_was_committed_survives_a_power_cut(disk: Disk) -> None:
    owner = SimDisk(disk)
    written(owner, 100)
    owner.die()
    disk.power_cut()
    assert count(disk) == 100


def test_what_was_not_synced_may_be_lost(disk: Disk) -> None:
    owner = SimDisk(disk)
    connection = written(owner, 100)
    connection.execute("PRAGMA synchronous=OFF")
    for _ in range(100):
        connection.execute("INSERT INTO t VALUES (1)")
    owner.die()
    disk.power_cut()
    assert 100 <= count(disk) < 200


def test_a_killed_process_loses_nothing_that_it_wrote(disk: Disk) -> None:
    owner = SimDisk(disk)
    connection = written(owner, 100)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("INSERT INTO t VALUES (1)")
    owner.die()
    assert count(disk) == 101


@pytest.mark.parametrize("operation", range(1, 8))
def test_power_goes_at_any_write_of_a_transaction(disk: Disk, operation: int) -> None:
    owner = SimDisk(disk)
    connection = written(owner, 10)
    cut: list[bool] = []
    disk.on_power_cut = lambda: cut.append(True)
    disk.arm_power_cut(operation)
    connection.execute("INSERT INTO t VALUES (zeroblob(20000))")
    owner.die()
    disk.power_cut()
    assert count(disk) in (10, 11)
    assert cut == [True] or operation > 3


def test_a_dead_process_writes_no_more(disk: Disk) -> None:
    owner = SimDisk(disk)
    connection = written(owner, 1)
    owner.die()
    with pytest.raises(apsw.Error):
        connection.execute("INSERT INTO t VALUES (1)")


def test_one_process_at_a_time_has_a_database(disk: Disk) -> None:
    first = SimDisk(disk)
    written(first, 1)
    with pytest.raises(apsw.Error):
        SimDisk(disk).connect(PATH)


def test_a_full_and_a_broken_disk_say_so(disk: Disk) -> None:
    connection = written(SimDisk(disk), 1)
    disk.full = True
    with pytest.raises(apsw.FullError):
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    disk.full, disk.broken = False, True
    with pytest.raises(apsw.IOError):
        connection.execute("INSERT INTO t VALUES (1)")
    disk.mend()
    connection.execute("INSERT INTO t VALUES (1)")


def test_a_database_set_aside_leaves_its_name_free(disk: Disk) -> None:
    owner = SimDisk(disk)
    written(owner, 3).close()
    assert owner.set_aside(PATH) == PATH.with_name("test.db.corrupt-1")
    assert owner.connect(PATH).execute("SELECT count(*) FROM sqlite_schema").get == 0
