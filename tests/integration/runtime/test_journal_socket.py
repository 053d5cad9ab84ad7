"""The journal's socket: small entries, big ones, and a journal that goes away for a while."""

from __future__ import annotations

import array
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesite.runtime.journal import Journal, is_stream
from edgesite.runtime.logs import JournalHandler


def listen(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.settimeout(10)
    return made


def receive(journal: socket.socket) -> bytes:
    """One entry, from the datagram or from the file that came with it."""
    data, ancillary, _, _ = journal.recvmsg(1 << 20, 64)
    if not ancillary:
        return data
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2])
    with os.fdopen(descriptors[0], "rb") as file:
        return os.pread(file.fileno(), 1 << 24, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def server(path: Path) -> Iterator[socket.socket]:
    with listen(path) as made:
        yield made


def say(handler: logging.Handler, text: str) -> None:
    handler.handle(logging.LogRecord("edgesite.edged", logging.INFO, "f", 1, text, None, None))


def test_an_entry_that_no_datagram_holds_comes_in_a_file(path: Path, server: socket.socket) -> None:
    handler = JournalHandler(Journal(str(path)), "edgesite")
    say(handler, "x" * 4_000_000)
    say(handler, "after it")
    big = receive(server)
    assert b"MESSAGE=edged: " + b"x" * 4_000_000 in big
    assert b"MESSAGE=edged: after it\n" in receive(server)
    handler.close()


def test_nothing_is_lost_while_the_journal_is_restarted(path: Path) -> None:
    first = listen(path)
    handler = JournalHandler(Journal(str(path)), "edgesite")
    say(handler, "one")
    assert b"one" in receive(first)
    first.close()
    path.unlink()
    say(handler, "two")
    with listen(path) as second:
        assert b"two" in receive(second)
    handler.close()


def test_a_journal_that_is_full_holds_up_nobody_and_hears_what_it_missed(path: Path, server: socket.socket) -> None:
    handler = JournalHandler(Journal(str(path)), "edgesite", most_lines=50)
    for number in range(5_000):
        say(handler, f"line {number}")
    entry = b""
    while b"lines of the log were dropped" not in entry:
        entry = receive(server)
    assert b"PRIORITY=4\n" in entry
    handler.close()


def test_standard_error_is_the_journals_only_if_systemd_says_so_of_this_very_file(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as file:
        found = os.fstat(file.fileno())
        assert is_stream(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_stream(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not is_stream(file.fileno(), {})
