"""The log never holds up who writes it."""

from __future__ import annotations

import logging
import os

from edgesite.runtime.logs import QueuedHandler


def test_a_reader_that_does_not_read_stops_nobody_and_is_told_what_it_missed() -> None:
    reader, writer = os.pipe()
    handler = QueuedHandler(writer, most_lines=50)
    log = logging.Logger("test")
    log.addHandler(handler)
    for number in range(20_000):  # far more than a pipe holds
        log.warning("line %d %s", number, "x" * 100)
    os.set_blocking(reader, False)
    read = b""
    while b"dropped" not in read:
        try:
            read += os.read(reader, 65536)
        except BlockingIOError:
            continue
    first = read.splitlines()
    assert first[0].startswith(b"line 0 ")
    handler.close()
    os.close(writer)
    os.close(reader)


def test_what_was_logged_before_the_end_is_written() -> None:
    reader, writer = os.pipe()
    handler = QueuedHandler(writer)
    handler.handle(logging.LogRecord("test", logging.INFO, "", 0, "farewell", None, None))
    handler.close()
    os.close(writer)
    assert os.read(reader, 100) == b"farewell\n"
    os.close(reader)
